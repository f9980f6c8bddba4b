"""Devices and coverage in ledger form. Pure.

Per device: identity, peak row, figures, times, and work by phase, evidence, pipe and format. For the run: how much
device time was observed, and each gap with its reason and ceiling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flopsd.core.figures import sum_figures
from flopsd.core.ledger.history import GapInterval, History
from flopsd.core.ledger.rated_tally import RatedTallies, RatedTally
from flopsd.core.ledger.run_view import DeviceView, RunView
from flopsd.core.model import ACCOUNTED_ELSEWHERE, UNBOUNDED
from flopsd.core.rows import UNDECLARED, Rating, Row, gap_ceiling_flop, takes_a_declaration
from flopsd.core.tally import Tally
from flopsd.core.values import joules, seconds, text_or_none

MAX_LISTED_GAPS = 1000


class TextsOnly(list[dict[str, Any]]):
    """Members of a ledger with no values but texts and null, in any depth. A signed list that equals such a list cannot
    have a number in place of a flag, or a flag in place of a number."""


def devices_for_ledger(view: RunView) -> list[dict[str, Any]]:
    return [_device(device) for device in view.devices]


def _device(view: DeviceView) -> dict[str, Any]:
    device, part = view.device, view.rated[-1].rating.part
    return {
        "uuid": device.uid,
        "index": device.index,
        "source": view.entry.source,
        "vendor": device.vendor,
        "model": device.model,
        "serial": device.serial,
        "pciBusId": device.pci_bus_id,
        "pciDeviceId": None if device.pci_device_id is None else f"0x{device.pci_device_id:04x}",
        "driver": device.driver,
        "parent": device.parent,
        "smCount": device.sm_count,
        "smCountExpected": None if part is None else part.sm_count,
        "smClockMaxMhz": device.sm_clock_max_mhz,
        "peakRow": view.entry.part_id,
        "peakStatus": None if part is None else part.status,
        "evidence": device.evidence.value,
        "evidenceReason": device.evidence_reason,
        "sharedWith": device.shared,
        "executed": view.figures.for_ledger(),
        "integerOperations": view.integers.for_ledger(),
        "energyJoules": joules(view.energy_mj),
        "energyUncountedSeconds": seconds(view.energy_unknown_ns),
        **times_for_ledger(view),
        "counters": _counters(view.rated[-1].tally),
        "work": _work(
            [(_declarer(one.rating, row), row) for one in view.rated for row in one.rows]
            + [(None, row) for row in view.operator_rows]
        ),
    }


def _declarer(rating: Rating, row: Row) -> str | None:
    """Who declared the number format in which a row is counted; None if it is undeclared."""
    if row.precision == UNDECLARED or not takes_a_declaration(row.pipe):
        return None
    return row.declared_by if rating.precision is None else rating.precision.declared_by


def _work(work: Iterable[tuple[str | None, Row]]) -> TextsOnly:
    grouped: dict[tuple[str, ...], list[tuple[str | None, Row]]] = {}
    for by, row in work:
        key = (row.phase, row.evidence._value_, "" if row.pipe is None else row.pipe._value_, row.precision)
        grouped.setdefault(key, []).append((by, row))
    return TextsOnly([_group_for_ledger(key, group) for key, group in sorted(grouped.items())])


def _group_for_ledger(key: tuple[str, ...], group: list[tuple[str | None, Row]]) -> dict[str, Any]:
    phase, evidence, pipe, precision = key
    by, row = group[0]
    if len(group) > 1:
        by, row = next((by for by, _ in group if by is not None), None), _summed([row for _, row in group])
    return {
        "phase": phase,
        "evidence": evidence,
        "pipe": pipe or None,
        "precision": precision,
        "precisionDeclaredBy": by,
        "smCycles": str(row.sm_cycles),
        "seconds": seconds(row.duration_ns),
        "flop": row.figures.for_ledger(),
        "integerOperations": row.integers.for_ledger(),
        "clockUncertaintyFlop": str(row.clock_uncertainty_flop),
    }


def _summed(rows: list[Row]) -> Row:
    """The first of several rows of one kind, with the amounts of all of them."""
    return rows[0]._replace(
        sm_cycles=sum(row.sm_cycles for row in rows),
        duration_ns=sum(row.duration_ns for row in rows),
        figures=sum_figures(row.figures for row in rows),
        integers=sum_figures(row.integers for row in rows),
        clock_uncertainty_flop=sum(row.clock_uncertainty_flop for row in rows),
    )


def _counters(tally: Tally) -> dict[str, Any]:
    """Absolute counters as last read, for comparison with another source. `running` are the counters of the evidence
    `cycles`; their `origin` states their scale."""
    found: dict[str, Any] = {name: str(value) for name, value in sorted(tally.counters.items())}
    if tally.totals is not None:
        found["running"] = {
            "origin": tally.totals.origin,
            "elapsedSmCycles": str(tally.totals.elapsed_sm_cycles),
            "smCycles": {pipe._value_: str(cycles) for pipe, cycles in sorted(tally.totals.sm_cycles.items())},
        }
    return found


def coverage_for_ledger(history: History, view: RunView) -> dict[str, Any]:
    """Coverage of the run. Lists the longest gaps, in order of time; the sums include all gaps."""
    ppm = view.coverage_ppm
    longest = sorted(history.gaps, key=lambda gap: gap.begin_ns - gap.end_ns)[:MAX_LISTED_GAPS]
    listed = sorted(longest, key=lambda gap: (gap.incarnation, gap.begin_ns, gap.device))
    rated = {(one.start, one.uid): one for one in view.rated}
    begin_ns = [incarnation.begin["ns"] for incarnation in history.incarnations]
    return {
        **times_for_ledger(view),
        "coveragePpm": None if ppm is None else str(ppm),
        "gapSecondsByReason": {reason.value: seconds(ns) for reason, ns in sorted(view.gap_ns_by_reason.items())},
        "gaps": [_gap(gap, rated[gap.incarnation, gap.device], begin_ns[gap.incarnation - 1]) for gap in listed],
        "gapsNotListed": str(len(history.gaps) - len(listed)),
    }


def times_for_ledger(tallies: RatedTallies) -> dict[str, str]:
    """Times of a device or a run; observed and gap time add up to the span."""
    return {
        "observedSeconds": seconds(tallies.observed_ns),
        "gapSeconds": seconds(tallies.gap_ns),
        "recoveredSeconds": seconds(tallies.recovered_ns),
        "spanSeconds": seconds(tallies.span_ns),
    }


def _gap(gap: GapInterval, rated: RatedTally, begin_ns: int) -> dict[str, Any]:
    duration_ns = gap.end_ns - gap.begin_ns
    ceiling = 0 if gap.reason in ACCOUNTED_ELSEWHERE else gap_ceiling_flop(duration_ns, rated.rating)
    return {
        "device": gap.device,
        "incarnation": gap.incarnation,
        "reason": gap.reason._value_,
        "beginSeconds": seconds(gap.begin_ns - begin_ns),
        "endSeconds": seconds(gap.end_ns - begin_ns),
        "seconds": seconds(duration_ns),
        "ceiling": None if gap.reason in UNBOUNDED else text_or_none(ceiling),
    }
