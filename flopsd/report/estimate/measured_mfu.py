"""The MFU of a run, from its ledger, which `flopsd estimate` takes in place of an assumption."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from flopsd.attestation.signed_statement import read_ledger
from flopsd.core.envelope import parse_envelope
from flopsd.core.field_reader import words_of
from flopsd.core.model import ACCOUNTED_ELSEWHERE
from flopsd.core.peaks import PeakTable
from flopsd.core.untrusted import parse_json
from flopsd.errors import LedgerError
from flopsd.report.estimate.planned_hardware import Mfu, peak_flop_per_s
from flopsd.settings.data_files import Tables

_NOT_OURS = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)
_ELSEWHERE = tuple(reason.value for reason in ACCOUNTED_ELSEWHERE)


def mfu_of(ledger: Path, tables: Tables, number_format: str) -> Mfu:
    """The FLOP that contributed to parameter updates, divided by the devices' dense datasheet peak, of the table that
    rated them, over the job's device time: an interval, as in the ledger. The ledger is not verified. Raises
    LedgerError, NotVerifiedError, PeakTableError."""
    statement = parse_json(parse_envelope(read_ledger(ledger)).payload, "the payload")
    try:
        predicate = statement["predicate"]
        kind, guidelines = predicate["kind"], predicate["totals"]["guidelines"]
        if kind != "node":
            raise LedgerError(f"{ledger} is a {kind}'s ledger, which has no devices", hint="give a node's ledger")
        low = int(guidelines["low"])
        if not low:
            raise LedgerError(
                f"{ledger} does not state how much of its work was training",
                hint="its run must have declared its phase (--phase train) and measured something",
            )
        declared = [start["precision"] and start["precision"]["sharesPpm"] for start in predicate["incarnations"]]
        if all(declared) and not any(number_format in formats for formats in declared):
            formats = ", ".join(sorted({name for formats in declared for name in formats}))
            raise LedgerError(
                f"the run of {ledger} computed in {formats}, as it declared, not in {number_format}",
                hint=f"its MFU is a share of another peak: plan in {formats} too, with --format, or give --mfu",
            )
        high = None if guidelines["high"] is None else int(guidelines["high"])
        table = tables.peaks(str(predicate["method"]["peakTableSha256"]), ledger)
        least, most_possible = _possible(predicate, table, number_format)
        most = Fraction(1) if high is None or least <= 0 else min(Fraction(1), high / least)
        at_least = min(low / most_possible, most)
        replay = ", which replays a recording" if predicate["replay"] is not None else ""
    except _NOT_OURS as fault:
        raise LedgerError(f"{ledger} is not what flopsd writes: {words_of(fault)}") from fault
    source = f"measured, by the ledger {ledger.name}{replay}, not verified here"
    return Mfu(at_least, most, source)


def _possible(predicate: Mapping[str, Any], table: PeakTable, number_format: str) -> tuple[Fraction, Fraction]:
    """The FLOP at the peak in the job's device time, at least and at most: a peak may be disputed, and the device of
    gaps that the ledger does not list is unknown."""
    peaks, seconds = {}, {}
    for device in predicate["devices"]:
        uid = device["uuid"]
        peaks[uid] = _peak(table, device, number_format)
        seconds[uid] = Fraction(device["spanSeconds"])
    coverage = predicate["coverage"]
    unlisted = sum(Fraction(coverage["gapSecondsByReason"].get(reason, 0)) for reason in _ELSEWHERE)
    for gap in coverage["gaps"]:
        if gap["reason"] in _ELSEWHERE:
            seconds[gap["device"]] -= Fraction(gap["seconds"])
            unlisted -= Fraction(gap["seconds"])
    least, most = (sum(peaks[uid][end] * seconds[uid] for uid in peaks) for end in (0, 1))
    highest = max(peak for _, peak in peaks.values())
    lowest = min(peak for peak, _ in peaks.values())
    return Fraction(least - highest * unlisted), Fraction(most - lowest * unlisted)


def _peak(table: PeakTable, device: Mapping[str, Any], number_format: str) -> tuple[int, int]:
    """The peak of a device, at least and at most, in FLOP/s; for a MIG slice, the peak of its own SMs."""
    row, slice_sm_count = device["peakRow"], None
    if device["parent"] is not None:
        slice_sm_count = device["smCount"]
        if slice_sm_count is None:
            raise LedgerError(f"the ledger does not state how many SMs the MIG slice {device['uuid']} has")
    peak = None if row is None else peak_flop_per_s(table.parts[row], number_format, slice_sm_count)
    if peak is None:
        raise LedgerError(f"the peak table has no datasheet peak of {row or device['model']} in {number_format}")
    return peak
