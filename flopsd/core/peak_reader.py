"""Reader of a peak table from parsed YAML. Pure. The head of `config/peaks.yaml` explains the fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.field_reader import words_of
from flopsd.core.model import PPM, Evidence
from flopsd.core.part import INTEGER_FORMATS, Energy, Margin, Part
from flopsd.core.peaks import InstanceType, PeakTable
from flopsd.core.values import is_whole, shown
from flopsd.errors import PeakTableError

_MOST_TFLOP_PER_S = 10**9
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)


def peak_table_from(data: Mapping[str, Any], sha256: str) -> PeakTable:
    """A table from the parsed YAML. Raises PeakTableError, which names the row and the fault."""
    try:
        if data["schema"] != "flopsd-peaks/1":
            raise PeakTableError(f"peak table has schema {shown(data['schema'])}, this flopsd reads 'flopsd-peaks/1'")
        parts = [_part_of_row(number, row) for number, row in enumerate(data["accelerators"], start=1)]
        table = PeakTable(
            sha256=sha256,
            parts={part.id: part for part in parts},
            margins={Evidence(name): _margin(entry) for name, entry in data["margins"].items()},
            cores_per_sm={
                (int(r["nvml_arch"]), str(r.get("compute_capability", ""))): _positive(r["cores"], "cores")
                for r in data["cores_per_sm"]
            },
            unrated_times_fp32={
                name: _positive(row["times_fp32"], f"times_fp32 of {name}")
                for name, row in data["unrated_pipe_bounds"].items()
            },
            instances={
                name: InstanceType(
                    name,
                    row["accelerator"],
                    None if row["count"] is None else _positive(row["count"], f"count of {name}"),
                    row.get("status", "published"),
                )
                for name, row in data["sagemaker_instances"].items()
            },
        )
    except _MALFORMED as fault:
        raise PeakTableError(
            f"peak table is malformed: {words_of(fault)}", hint="compare it with the packaged config/peaks.yaml"
        ) from fault
    _check(parts, table)
    return table


def _part_of_row(number: int, row: Mapping[str, Any]) -> Part:
    try:
        return _part(row)
    except _MALFORMED as fault:
        name = shown(row["id"]) if isinstance(row, Mapping) and "id" in row else number
        raise ValueError(f"row {name} of accelerators: {words_of(fault)}") from fault


def _part(row: Mapping[str, Any]) -> Part:
    rates = row.get("flop_per_cycle_per_sm", {})
    clocks = row.get("clocks_mhz", {})
    gpm = row.get("gpm")
    return Part(
        id=row["id"],
        vendor=row["vendor"],
        names=_texts(row.get("names", []), "names"),
        pci_device_ids=tuple(int(i, 16) for i in row.get("pci_device_ids", ())),
        sm_count=row.get("sm_count"),
        tensor_flop_per_cycle=dict(rates.get("tensor", {})),
        disputed_tensor_flop_per_cycle=dict(row.get("disputed_flop_per_cycle_per_sm", {}).get("tensor", {})),
        vector_flop_per_cycle=dict(rates.get("vector", {})),
        tensor_ref_mhz=clocks.get("tensor_ref"),
        vector_ref_mhz=clocks.get("vector_ref"),
        vector_clocked_tensor_formats=_texts(
            row.get("tensor_formats_at_vector_ref", []), "tensor_formats_at_vector_ref"
        ),
        status=row["status"],
        sources=_texts(row["sources"], "sources"),
        gpm=gpm if isinstance(gpm, bool) else None,
        chip_flop_per_s=_whole_flop(row.get("peak_dense_tflop_per_s_per_chip", {})),
        has_integer_tensor=row.get("integer_tensor") is not False,
        chip_ceiling_flop_per_s=_chip_ceiling(row, integers=False),
        chip_ceiling_integer_per_s=_chip_ceiling(row, integers=True),
        cores_per_chip=row.get("cores_per_chip"),
        margins={
            (Evidence(evidence), name): _margin(entry)
            for evidence, formats in row.get("margins", {}).items()
            for name, entry in formats.items()
        },
        energy={name: _energy(name, entry, rates["tensor"]) for name, entry in row.get("energy", {}).items()},
    )


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{name} is a list of texts, not {shown(value)}")
    return tuple(value)


def _positive(value: object, what: str) -> int:
    if not is_whole(value) or value == 0:
        raise ValueError(f"{what} is a whole number above 0, not {shown(value)}")
    return value


def _margin(entry: Mapping[str, Any]) -> Margin:
    if not is_whole(entry["ppm"]) or entry["ppm"] > PPM:
        raise ValueError(f"a margin is parts per million, at most a million: {shown(entry['ppm'])}")
    return Margin(entry["ppm"], str(entry["source"]))


def _energy(name: str, entry: Mapping[str, Any], tensor: Mapping[str, int]) -> Energy:
    low, high = entry["low_fj_per_flop"], entry["high_fj_per_flop"]
    if name not in tensor or name in INTEGER_FORMATS:
        raise ValueError(f"energy is stated for {name!r}, which is no floating-point format of the row's tensor cores")
    if not is_whole(low) or not is_whole(high) or not 0 < low <= high:
        bounds = f"{shown(low)}, {shown(high)}"
        raise ValueError(f"energy is stated as whole femtojoules for each FLOP, from low to high: {bounds}")
    return Energy(low, high, str(entry["source"]))


def _whole_flop(tflop_per_s: Mapping[str, float]) -> dict[str, int]:
    if bad := [value for value in tflop_per_s.values() if not 0 < value < _MOST_TFLOP_PER_S]:
        raise ValueError(f"TFLOP/s of a chip are above 0 and below {_MOST_TFLOP_PER_S}, not {bad}")
    return {name: round(value * 1000) * 1_000_000_000 for name, value in tflop_per_s.items()}


def _chip_ceiling(row: Mapping[str, Any], *, integers: bool) -> int | None:
    return max(
        (
            flop_per_s
            for kind in ("dense", "sparse")
            for name, flop_per_s in _whole_flop(row.get(f"peak_{kind}_tflop_per_s_per_chip", {})).items()
            if (name in INTEGER_FORMATS) is integers
        ),
        default=None,
    )


def _check(parts: list[Part], table: PeakTable) -> None:
    seen: dict[str | int, str] = {}
    for part in parts:
        keys: list[str | int] = [part.id, *part.names, *part.pci_device_ids]
        for key in keys:
            if seen.setdefault(key, part.id) != part.id:
                raise PeakTableError(f"peak table: {key!r} belongs to both {seen[key]!r} and {part.id!r}")
        tensor = (*part.tensor_flop_per_cycle.values(), *part.disputed_tensor_flop_per_cycle.values())
        rates = (*tensor, *part.vector_flop_per_cycle.values())
        if bad := [rate for rate in rates if not is_whole(rate) or rate == 0]:
            raise PeakTableError(
                f"peak table: row {part.id!r} has rates that are not positive integers: {shown(bad[0])}"
            )
        sizes = (part.sm_count, part.tensor_ref_mhz, part.vector_ref_mhz, part.cores_per_chip)
        if bad := [size for size in sizes if size is not None and (not is_whole(size) or size == 0)]:
            raise PeakTableError(
                f"peak table: row {part.id!r} has sizes that are not positive integers: {shown(bad[0])}"
            )
        if not all(isinstance(text, str) for text in (part.id, part.vendor, part.status)):
            raise PeakTableError(f"peak table: row {part.id!r} has an id, a vendor or a status that is not text")
    if len(table.parts) != len(parts):
        raise PeakTableError("peak table: two rows share an id")
    for instance in table.instances.values():
        if not isinstance(name := instance.accelerator, str) or name not in table.parts:
            raise PeakTableError(f"peak table: {instance.name} names the unknown accelerator {shown(name)}")
