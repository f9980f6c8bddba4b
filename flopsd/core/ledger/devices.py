"""Devices as a ledger lists them: identity, peak row, figures, times, and work by phase, evidence, pipe and format."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from flopsd.core.figures import UNDECLARED, Rating, Row, figures_json, sum_figures, takes_a_declaration
from flopsd.core.ledger.coverage import times_for_ledger
from flopsd.core.ledger.run_view import DeviceView, RunView
from flopsd.core.model import Device, Tally
from flopsd.core.values import joules, seconds

_HEX_RUN = re.compile("[0-9a-fA-F]{8}")


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
        "executed": figures_json(view.figures),
        "energyJoules": joules(view.energy_mj),
        "energyUncountedSeconds": seconds(view.energy_unknown_ns),
        **times_for_ledger(view),
        "counters": _counters(view.tallies[-1]),
        "work": _work((_declarer(one.rating, row), row) for one in view.rated for row in one.rows),
    }


def _declarer(rating: Rating, row: Row) -> str | None:
    """Who declared the format that a row is counted in; None where it is not declared."""
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
    """Absolute counters as last read, to check against another source. `running` are those behind the evidence
    `cycles`; their `origin` has their scale."""
    found: dict[str, Any] = {name: str(value) for name, value in sorted(tally.counters.items())}
    if tally.totals is not None:
        found["running"] = {
            "origin": tally.totals.origin,
            "elapsedSmCycles": str(tally.totals.elapsed_sm_cycles),
            "smCycles": {pipe.value: str(cycles) for pipe, cycles in sorted(tally.totals.sm_cycles.items())},
        }
    return found


def lasting_name(device: Device, node: str) -> str:
    """A device's name among all machines: `neuron0` is one on every machine, a UUID or serial is not."""
    if device.serial is not None or _HEX_RUN.search(device.uid):
        return device.uid
    return f"{node}/{device.uid}"
