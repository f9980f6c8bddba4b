"""Conversion of devices to plain JSON (ints and strings only) and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.tally_records import EVIDENCE, Record, count, tally_record, text
from flopsd.core.model import Device, Precision
from flopsd.core.tally import Tally


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """A device as seen by one daemon start."""

    device: Device
    source: str
    part_id: str | None
    begin_ns: int
    precision: Precision | None = None  # declared for this device, otherwise for the run


def device_record(incarnation: int, number: int, entry: DeviceEntry, start: Tally) -> dict[str, Any]:
    """A device as JSON, with the absolute counter values in `start` from which counting continues."""
    device = entry.device
    return {
        "number": number,
        **tally_record(start),
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
    """The changes of a device as JSON; `identified`: its identity was not known before."""
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
        "evidence": EVIDENCE[record["evidence"]],
        "evidence_reason": text(record["evidence_reason"]),
        "evidence_fix": text(record["evidence_fix"]),
        "shared": _text_or_none(record["shared_with"]),
    }


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
    part_id, precision = _text_or_none(record["peak_row"]), precision_from_record(record["precision"])
    return DeviceEntry(device, text(record["source"]), part_id, begin_ns, precision)


def identified(entry: DeviceEntry, record: Record) -> DeviceEntry:
    """`entry` with the identity in `record`. Raises ValueError if it was rated already, and as `device_entry`."""
    if entry.part_id is not None:
        raise ValueError(f"device {entry.device.uid} is identified twice")
    device = replace(entry.device, **_identity_from_record(record))
    part_id, precision = _text_or_none(record["peak_row"]), precision_from_record(record["precision"])
    return replace(entry, device=device, part_id=part_id, precision=precision)


def _identity_from_record(record: Record) -> dict[str, Any]:
    return {name: read(record[name]) for name, read in IDENTITY.items()}


# The identity of a device: names of fields, the same in `Device` and records, and the reader of each.
IDENTITY: Mapping[str, Callable[[object], Any]] = {
    "model": text, "serial": _text_or_none, "pci_bus_id": _text_or_none, "pci_device_id": _count_or_none,
    "sm_count": _count_or_none, "sm_clock_max_mhz": _count_or_none, "driver": _text_or_none,
}  # fmt: skip


def precision_record(precision: Precision | None) -> dict[str, Any] | None:
    """A declaration as JSON: shares in parts per million, and who declared them."""
    if precision is None:
        return None
    return {"shares_ppm": dict(precision.shares_ppm), "declared_by": precision.declared_by}


def precision_from_record(record: Record | None) -> Precision | None:
    if record is None:
        return None
    shares = tuple(sorted((text(name), count(ppm)) for name, ppm in record["shares_ppm"].items()))
    if not shares or any(ppm == 0 for _, ppm in shares):
        raise ValueError("a precision without a format, or with none of one")
    return Precision(shares, text(record["declared_by"]))
