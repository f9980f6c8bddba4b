"""The MFU that a run had, from its ledger: what `flopsd estimate` takes in place of an assumption."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from flopsd.core.envelope import parse_envelope, parse_json
from flopsd.core.peaks import PeakTable
from flopsd.errors import LedgerError
from flopsd.estimate import Mfu
from flopsd.verify import read_ledger

_NOT_OURS = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)


def mfu_of(ledger: Path, table: PeakTable, number_format: str) -> Mfu:
    """FLOP that contributed to parameter updates over the devices' dense datasheet peak in their whole time.

    An interval, as the ledger has one. The ledger is read and not verified. Raises LedgerError, NotVerifiedError.
    """
    statement = parse_json(parse_envelope(read_ledger(ledger)).payload, "the payload")
    try:
        predicate = statement["predicate"]
        kind, guidelines = predicate["kind"], predicate["totals"]["guidelines"]
        if kind != "node":
            raise LedgerError(f"{ledger} is a {kind}'s ledger, which has no devices", hint="give a node's ledger")
        possible = sum(
            _peak(table, device["peakRow"], number_format) * Fraction(device["spanSeconds"])
            for device in predicate["devices"]
        )
        low = int(guidelines["low"])
        high = None if guidelines["high"] is None else int(guidelines["high"])
    except _NOT_OURS as fault:
        raise LedgerError(f"{ledger} is not what flopsd writes: {fault!r:.100}") from fault
    if not possible or not low:
        raise LedgerError(
            f"{ledger} does not tell how much of its work was training",
            hint="its run must have declared its phase (--phase train, or the training process) and measured something",
        )
    most = Fraction(1) if high is None else min(Fraction(1), high / possible)
    replay = ", which replays a recording" if predicate["replay"] is not None else ""
    return Mfu(min(low / possible, most), most, f"measured, by the ledger {ledger.name}{replay}, not verified here")


def _peak(table: PeakTable, part: str, number_format: str) -> int:
    peaks = {name: peak for _, name, peak in table.parts[part].datasheet_peaks()}
    if number_format not in peaks:
        raise LedgerError(f"the peak table has no datasheet peak of {part} in {number_format}")
    return peaks[number_format]
