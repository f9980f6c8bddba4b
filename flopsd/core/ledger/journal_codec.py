"""Tallies and devices as plain JSON, ints and strings only, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flopsd.core.model import Device, Evidence, GapReason, Pipe, Precision, Tally, Totals
from flopsd.core.phases import split_bucket

Record = Mapping[str, Any]
# By value: a journal has millions of them, and calling the enumeration takes five times as long.
_EVIDENCE = {one.value: one for one in Evidence}
_REASON = {one.value: one for one in GapReason}
_PIPE, _PIPES = {one.value: one for one in Pipe}, tuple(Pipe)


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """A device as one incarnation saw it."""

    device: Device
    source: str
    part_id: str | None
    begin_ns: int
    precision: Precision | None = None  # declared for this device, else for the run


def tally_record(number: int, tally: Tally) -> dict[str, Any]:
    """One device's running totals as JSON."""
    return {"number": number, **_totals_record(tally)}


def _totals_record(tally: Tally) -> dict[str, Any]:
    record: dict[str, Any] = {
        "to_ns": tally.watermark_ns,
        "observed_ns": dict(tally.observed_ns),  # its keys are text, as all enumerations of the model are
        "gap_ns": dict(tally.gap_ns),
    }
    optional = {
        "sm_cycles": _by_evidence(tally.active_sm_cycles),
        "busy_sm_cycles": tally.busy_sm_cycles,
        "recovered_ns": dict(tally.recovered_ns),
        "unread_ns": dict(tally.unread_ns),
        "uncertainty_sm_cycles": _by_evidence(tally.uncertainty_sm_cycles),
        "square_sum": _by_evidence(tally.square_sum),
        "energy_ns": tally.energy_ns,
        "counters": dict(tally.counters),
        "phases": {name: _totals_record(share) for name, share in tally.phases.items()},
    }
    record |= {name: amount for name, amount in optional.items() if amount}
    if Evidence.COUNT in tally.observed_ns or tally.counted_flop:
        record["counted_flop"] = tally.counted_flop
    if tally.totals is not None:
        # A list, since it is the longest part of the journal: origin, when, elapsed, then each pipe in Pipe's order.
        counters = [tally.totals.sm_cycles.get(pipe) for pipe in _PIPES]
        record["running"] = [tally.totals.origin, tally.totals_ns, tally.totals.elapsed_sm_cycles, *counters]
    if tally.energy_mj is not None:
        record["energy_mj"] = tally.energy_mj
    if "energy_mj" in tally.counters and tally.energy_at_ns != tally.watermark_ns:
        record["energy_at_ns"] = tally.energy_at_ns
    return record


def tally_from_record(record: Record, begin_ns: int) -> Tally:
    """The inverse of `tally_record`. Raises KeyError, TypeError or ValueError on anything else."""
    counters = {name: count(value) for name, value in record.get("counters", {}).items()}
    return Tally(
        begin_ns=begin_ns,
        watermark_ns=count(record["to_ns"], signed=True),  # a gap that began before the boot lies below zero
        active_sm_cycles=_from_evidence(record.get("sm_cycles", {})),
        counted_flop=count(record.get("counted_flop", 0)),
        busy_sm_cycles=count(record.get("busy_sm_cycles", 0)),
        observed_ns={_EVIDENCE[name]: count(ns) for name, ns in record["observed_ns"].items()},
        gap_ns={_REASON[name]: count(ns) for name, ns in record["gap_ns"].items()},
        recovered_ns={_EVIDENCE[name]: count(ns) for name, ns in record.get("recovered_ns", {}).items()},
        uncertainty_sm_cycles=_from_evidence(record.get("uncertainty_sm_cycles", {})),
        square_sum=_from_evidence(record.get("square_sum", {})),
        unread_ns={_PIPE[name]: count(ns) for name, ns in record.get("unread_ns", {}).items()},
        energy_mj=None if "energy_mj" not in record else count(record["energy_mj"]),
        energy_ns=count(record.get("energy_ns", 0)),
        energy_at_ns=count(record.get("energy_at_ns", record["to_ns"]), signed=True) if "energy_mj" in counters else 0,
        counters=counters,
        totals=_totals(record["running"]) if "running" in record else None,
        totals_ns=count(record["running"][1], signed=True) if "running" in record else 0,
        phases={name: _share_from(name, share) for name, share in record.get("phases", {}).items()},
    )


def _share_from(name: str, record: Record) -> Tally:
    split_bucket(name)
    if {"phases", "running", "counters", "energy_at_ns", "number"} & record.keys():
        raise ValueError(f"the share of phase {name!r:.80} has what no share has")
    return tally_from_record(record, 0)


def _by_evidence(cycles: Mapping[tuple[Evidence, Pipe], int]) -> dict[Evidence, dict[Pipe, int]]:
    found: dict[Evidence, dict[Pipe, int]] = {}
    for (evidence, pipe), amount in cycles.items():
        found.setdefault(evidence, {})[pipe] = amount
    return found


def _from_evidence(record: Record) -> dict[tuple[Evidence, Pipe], int]:
    return {
        (_EVIDENCE[evidence], _PIPE[pipe]): count(cycles)
        for evidence, pipes in record.items()
        for pipe, cycles in pipes.items()
    }


def _totals(record: Sequence[Any]) -> Totals:
    origin, _, elapsed, *counters = record
    cycles = {pipe: count(amount) for pipe, amount in zip(_PIPES, counters, strict=True) if amount is not None}
    return Totals(str(origin), count(elapsed), cycles)


def count(value: object, *, signed: bool = False) -> int:
    """`value`, if it is a whole number, and not below zero unless `signed`. Raises ValueError."""
    if type(value) is not int or (value < 0 and not signed):  # called for every number of a journal: no bool, quickly
        raise ValueError(f"{value!r:.80} is not a count")
    return value


def device_record(incarnation: int, number: int, entry: DeviceEntry, start: Tally) -> dict[str, Any]:
    """A device as JSON, with the absolute counter values in `start` that its counting goes on from."""
    device = entry.device
    return {
        **tally_record(number, start),
        "kind": "device",
        "incarnation": incarnation,
        "uuid": device.uid,
        "index": device.index,
        "vendor": device.vendor,
        "parent": device.parent,
        **_identity(entry),
        **_evidence(entry),
    }


def evidence_record(
    incarnation: int, number: int, ns: int, entry: DeviceEntry, *, identified: bool = False
) -> dict[str, Any]:
    """What changed of a device, as JSON; `identified`: what it is was not known before."""
    changed = {"kind": "evidence", "incarnation": incarnation, "number": number, "ns": ns, **_evidence(entry)}
    return {**changed, "identity": _identity(entry)} if identified else changed


def _identity(entry: DeviceEntry) -> dict[str, Any]:
    identity = {name: getattr(entry.device, name) for name in IDENTITY}
    return {**identity, "peak_row": entry.part_id, "precision": precision_record(entry.precision)}


def _evidence(entry: DeviceEntry) -> dict[str, Any]:
    device = entry.device
    return {
        "source": entry.source,
        "evidence": device.evidence.value,
        "evidence_reason": device.evidence_reason,
        "evidence_fix": device.evidence_fix,
        "shared_with": device.shared,
    }


def evidence_from_record(record: Record) -> dict[str, Any]:
    return {
        "evidence": Evidence(record["evidence"]),
        "evidence_reason": text(record["evidence_reason"]),
        "evidence_fix": text(record["evidence_fix"]),
        "shared": _text_or_none(record["shared_with"]),
    }


def text(value: object) -> str:
    """`value`, if it is text. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is not text")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else text(value)


def _count_or_none(value: object) -> int | None:
    return None if value is None else count(value)


def device_entry(record: Record) -> DeviceEntry:
    """The inverse of `device_record`."""
    device = Device(
        uid=text(record["uuid"]),
        index=count(record["index"]),
        vendor=text(record["vendor"]),
        parent=_text_or_none(record["parent"]),
        **_identity_from_record(record),
        **evidence_from_record(record),
    )
    begin_ns = count(record["to_ns"], signed=True)
    part_id, precision = _text_or_none(record["peak_row"]), _precision(record["precision"])
    return DeviceEntry(device, text(record["source"]), part_id, begin_ns, precision)


def identified(entry: DeviceEntry, record: Record) -> DeviceEntry:
    """`entry` as an `identity` describes it. Raises ValueError where it is rated already, and as `device_entry`."""
    if entry.part_id is not None:
        raise ValueError(f"device {entry.device.uid} is identified twice")
    device = replace(entry.device, **_identity_from_record(record))
    part_id, precision = _text_or_none(record["peak_row"]), _precision(record["precision"])
    return replace(entry, device=device, part_id=part_id, precision=precision)


def _identity_from_record(record: Record) -> dict[str, Any]:
    return {name: read(record[name]) for name, read in IDENTITY.items()}


# What a device is, by the fields of `Device` and of a record, with how each is read.
IDENTITY: Mapping[str, Callable[[object], Any]] = {
    "model": text,
    "serial": _text_or_none,
    "pci_bus_id": _text_or_none,
    "pci_device_id": _count_or_none,
    "sm_count": _count_or_none,
    "sm_clock_max_mhz": _count_or_none,
    "driver": _text_or_none,
}


def precision_record(precision: Precision | None) -> dict[str, Any] | None:
    """A declaration as JSON: shares in parts per million, and whose it is."""
    if precision is None:
        return None
    return {"shares_ppm": dict(precision.shares_ppm), "declared_by": precision.declared_by}


def _precision(record: Record | None) -> Precision | None:
    if record is None:
        return None
    shares = tuple(sorted((text(name), count(ppm)) for name, ppm in record["shares_ppm"].items()))
    return Precision(shares, text(record["declared_by"]))
