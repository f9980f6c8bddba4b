"""Devices with what follows from their tallies: rows, figures, and how a ledger lists them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flopsd.core.figures import UNDECLARED, Rating, Row, figures_json, sum_figures, takes_a_declaration
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.model import Device, DeviceUid, Figures, Tally
from flopsd.core.peaks import PeakTable


@dataclass(frozen=True, slots=True)
class RatedTally:
    """One tally with what follows from it, so that it follows once."""

    uid: DeviceUid
    tally: Tally
    rating: Rating
    rows: list[Row]
    figures: Figures


def rating_of(incarnation: Incarnation, uid: DeviceUid, table: PeakTable) -> Rating:
    """How a device of an incarnation is rated: by the row that the journal names."""
    entry = next(e for e in incarnation.devices.values() if e.device.uid == uid)
    part = table.parts.get(entry.part_id) if entry.part_id is not None else None
    limits = table.limits(entry.device, part) if part is not None else None
    return Rating(part, limits, entry.precision)


def seconds(duration_ns: int) -> str:
    """Nanoseconds as exact decimal seconds."""
    sign = "-" if duration_ns < 0 else ""
    whole, rest = divmod(abs(duration_ns), 1_000_000_000)
    return f"{sign}{whole}.{rest:09d}"


def devices_for_ledger(
    history: History, table: PeakTable, rated: Mapping[DeviceUid, list[RatedTally]]
) -> list[dict[str, Any]]:
    latest: dict[DeviceUid, tuple[Device, str, str | None]] = {}
    for incarnation in history.incarnations:
        for entry in incarnation.devices.values():
            latest[entry.device.uid] = (entry.device, entry.source, entry.part_id)
    listed = []
    for uid, (device, source, part_id) in sorted(latest.items(), key=lambda item: (item[1][0].index, item[0])):
        part = table.parts.get(part_id) if part_id is not None else None
        tallies = [one.tally for one in rated[uid]]
        work = [(_declarer(one.rating, row), row) for one in rated[uid] for row in one.rows]
        listed.append(
            {
                "uuid": uid,
                "index": device.index,
                "source": source,
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
                "peakRow": part_id,
                "peakStatus": None if part is None else part.status,
                "evidence": device.evidence.value,
                "evidenceReason": device.evidence_reason,
                "sharedWith": device.shared,
                "executed": figures_json(sum_figures(one.figures for one in rated[uid])),
                "energyJoules": energy_joules(tallies),
                "energyUncountedSeconds": energy_uncounted(tallies),
                "observedSeconds": seconds(sum(tally.total_observed_ns for tally in tallies)),
                "gapSeconds": seconds(sum(tally.total_gap_ns for tally in tallies)),
                "recoveredSeconds": seconds(sum(tally.recovered_ns for tally in tallies)),
                "spanSeconds": seconds(sum(tally.span_ns for tally in tallies)),
                "counters": _counters(tallies[-1]),
                "work": _work(work),
            }
        )
    return listed


def _declarer(rating: Rating, row: Row) -> str | None:
    """Who said the format that a row is counted in, where anybody did."""
    if row.precision == UNDECLARED or not takes_a_declaration(row.pipe):
        return None
    return row.declared_by if rating.precision is None else rating.precision.declared_by


def _work(work: Iterable[tuple[str | None, Row]]) -> list[dict[str, Any]]:
    grouped: dict[tuple[str, str, str, str], list[tuple[str | None, Row]]] = {}
    for by, row in work:
        key = (row.phase, row.evidence.value, "" if row.pipe is None else row.pipe.value, row.precision)
        grouped.setdefault(key, []).append((by, row))
    return [
        {
            "phase": phase,
            "evidence": evidence,
            "pipe": pipe or None,
            "precision": precision,
            "precisionDeclaredBy": next((by for by, _ in group if by), None),
            "smCycles": str(sum(row.sm_cycles for _, row in group)),
            "seconds": seconds(sum(row.duration_ns for _, row in group)),
            "flop": figures_json(sum_figures(row.figures for _, row in group)),
            "clockUncertaintyFlop": str(sum(row.clock_uncertainty_flop for _, row in group)),
        }
        for (phase, evidence, pipe, precision), group in sorted(grouped.items())
    ]


def _counters(tally: Tally) -> dict[str, Any]:
    """Absolute counters as last read, for whoever checks them against another source; the running ones that the
    `cycles` evidence is made of say their scale in the origin."""
    found: dict[str, Any] = {name: str(value) for name, value in sorted(tally.counters.items())}
    if tally.totals is not None:
        found["running"] = {
            "origin": tally.totals.origin,
            "elapsedSmCycles": str(tally.totals.elapsed_sm_cycles),
            "smCycles": {pipe.value: str(cycles) for pipe, cycles in sorted(tally.totals.sm_cycles.items())},
        }
    return found


def energy_joules(tallies: Iterable[Tally]) -> str | None:
    known = [tally.energy_mj for tally in tallies if tally.energy_mj is not None]
    return f"{sum(known) // 1000}.{sum(known) % 1000:03d}" if known else None


def energy_uncounted(tallies: Iterable[Tally]) -> str:
    """The job's device time of which no counter told the energy, so that a partial sum is never taken for the whole.

    A tally's energy can be of time that an earlier one left open, so only the sum is not below zero.
    """
    return seconds(max(0, sum(tally.job_ns - tally.energy_ns for tally in tallies)))
