"""The peak table: maps a device to its part and the rates of its pipes.

Pure: `PeakTable.from_data` takes the data that settings/data_files.py reads from `config/peaks.yaml`. Devices match by
exact NVML name or exact PCI device id, never by part of a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flopsd.core.dataclass import dataclass
from flopsd.core.model import PPM, UNIDENTIFIED, ChipLimits, Device, Evidence, Limits, Pipe, Precision
from flopsd.core.part import FORMAT_OF_VECTOR, INTEGER_FORMATS, Energy, Margin, Part, Rates
from flopsd.core.values import is_whole, sum_if_all_known
from flopsd.errors import PeakTableError, UnknownDeviceError

T = TypeVar("T")
_MOST_TFLOP_PER_S = 10**9
MAX_KNOWN = 256  # cached rates per part: there is no end of declared mixes of formats
_CHIP = re.compile(r"\b[A-Z]{1,2}[0-9]{1,3}[A-Z]?\b")  # such as H100, A10G or GB300; not SXM5 or HBM3


@dataclass(frozen=True, slots=True)
class InstanceType:
    """The accelerators of a SageMaker instance type. `count` is None where no source states it."""

    name: str
    accelerator: str
    count: int | None
    status: str


@dataclass(frozen=True, slots=True)
class PipeRates:
    """Rates of one pipe in FLOP and in integer operations, the upper bound of each, and the margin of both."""

    flop: Rates
    integers: Rates
    flop_bound: int | None
    integer_bound: int | None
    margin_ppm: int
    may_be_integer: bool  # whether measured FLOP may be integer operations


@dataclass(frozen=True, slots=True)
class PeakTable:
    """All rows, with the SHA-256 of their file."""

    sha256: str
    parts: Mapping[str, Part]
    margins: Mapping[Evidence, Margin]  # of parts and formats without runs of their own
    cores_per_sm: Mapping[tuple[int, str], int]  # (NVML architecture, compute capability or "") -> cores
    unrated_times_fp32: Mapping[str, int]  # format -> bound, as a multiple of the part's FP32 vector rate
    instances: Mapping[str, InstanceType]

    def pipe_rates(self, evidence: Evidence, part: Part, pipe: Pipe, precision: Precision | None) -> PipeRates:
        """Everything that converts the cycles of one pipe into operations."""
        return self._once(
            part,
            (evidence, pipe, precision),
            lambda: PipeRates(
                part.rates(pipe, precision),
                part.integer_rates(pipe, precision),
                *self.bounds(part, pipe, precision),
                self.margin_ppm(evidence, part, part.formats(pipe, precision)),
                part.may_be_integer(pipe, precision),
            ),
        )

    def _once(self, part: Part, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """`compute()`, cached at the part."""
        known: tuple[PeakTable, T] | None = part.known.get(key)
        if known is not None and known[0] is self:
            return known[1]
        found = compute()
        if len(part.known) >= MAX_KNOWN:
            part.known.clear()
        part.known[key] = self, found
        return found

    def ceilings_per_cycle(self, part: Part, precision: Precision | None) -> tuple[int | None, int | None]:
        """The most FLOP and integer operations per SM-cycle, with every pipe running. None: not known."""
        return self._once(
            part,
            (precision,),
            lambda: (
                self.ceiling_flop_per_cycle(part, precision),
                self.integer_bound(part, Pipe.TENSOR_IMMA, precision),
            ),
        )

    def bounds(self, part: Part, pipe: Pipe, precision: Precision | None) -> tuple[int | None, int | None]:
        """`bound` and `integer_bound` of a pipe: the most FLOP and the most integer operations per SM-cycle."""
        return self._once(
            part,
            (pipe, precision),
            lambda: (self.bound(part, pipe, precision), self.integer_bound(part, pipe, precision)),
        )

    def bound(self, part: Part, pipe: Pipe, precision: Precision | None) -> int | None:
        """The most FLOP per SM-cycle of a pipe: its rate, or the table's bound for a rate that the part's row does not
        state; None where there is neither."""
        high = part.rates(pipe, precision).high
        return high if high is not None else self._times_fp32(part, pipe.value.removeprefix("tensor_"))

    def integer_bound(self, part: Part, pipe: Pipe, precision: Precision | None) -> int | None:
        """The same for integer operations."""
        high = part.integer_rates(pipe, precision).high
        return high if high is not None else self._times_fp32(part, "int8")

    def ceiling_flop_per_cycle(self, part: Part, precision: Precision | None) -> int | None:
        """FLOP per SM-cycle with every pipe running, which nothing can exceed. None: not known."""
        vectors = (self.bound(part, pipe, precision) for pipe in FORMAT_OF_VECTOR)
        return sum_if_all_known((part.rates(Pipe.TENSOR, precision).high or 0, *vectors))

    def _times_fp32(self, part: Part, name: str) -> int | None:
        fp32, times = part.vector_flop_per_cycle.get("fp32"), self.unrated_times_fp32.get(name)
        return fp32 * times if fp32 is not None and times is not None else None

    def rows_of(self, device: Device) -> set[str]:
        """The ids of the rows with the device's name and PCI id, or with either one where no row has the other."""
        by_name, by_pci = self._rows_by(device)
        return by_name & by_pci if by_name and by_pci else by_name or by_pci

    def _rows_by(self, device: Device) -> tuple[set[str], set[str]]:
        """The ids of the rows with the device's name, and of those with its PCI id."""
        rows = self.parts.values()
        by_name = {row.id for row in rows if device.model in row.names}
        return by_name, {row.id for row in rows if device.pci_device_id in row.pci_device_ids}

    def resolve(self, device: Device) -> Part:
        """The row of a device. Raises UnknownDeviceError if no row matches exactly, or name and PCI id disagree."""
        by_name, by_pci = self._rows_by(device)
        # A name that is not in the table may still belong to a different chip than the PCI id.
        by_pci_alone = {row for row in by_pci if _chips(device.model) <= _chips(" ".join(self.parts[row].names))}
        found = by_name & by_pci or by_name or by_pci_alone
        if not found or (by_name and by_pci and not by_name & by_pci) or len(found) > 1:
            pci = "no PCI id" if device.pci_device_id is None else f"PCI id 0x{device.pci_device_id:04x}"
            what = "is not in the peak table" if not found else f"matches more than one row: {sorted(by_name | by_pci)}"
            if not found and by_pci:
                what = f"is ambiguous: the id is that of {', '.join(sorted(by_pci))}, the name another chip's"
            if device.model == UNIDENTIFIED:
                raise UnknownDeviceError(
                    f"device {device.index} ({device.uid}): the driver does not identify it",
                    hint="`nvidia-smi -q` or `neuron-ls`, and `dmesg`, may show why; until then its time is a gap "
                    "without a ceiling and no total has an upper bound",
                )
            raise UnknownDeviceError(
                f"device {device.index} ({device.uid}): {device.model!r} with {pci} {what}",
                hint="add a row with its exact name to a copy of config/peaks.yaml and pass --peaks FILE; "
                "until then its time is a gap without a ceiling and no total has an upper bound",
            )
        return self.parts[found.pop()]

    def limits(self, device: Device, part: Part) -> Limits | ChipLimits | None:
        """What the device cannot exceed; None where its SM count or clock is not known."""
        if part.chip_ceiling_flop_per_s is not None:
            return ChipLimits(part.chip_ceiling_flop_per_s, part.chip_ceiling_integer_per_s)
        sm_count = device.sm_count if device.sm_count is not None else part.sm_count
        clocks = [c for c in (device.sm_clock_max_mhz, part.tensor_ref_mhz, part.vector_ref_mhz) if c]
        if sm_count is None or not clocks:
            return None
        key = sm_count, max(clocks)

        def computed() -> Limits:
            both = self.ceiling_flop_per_cycle(part, None), self.integer_bound(part, Pipe.TENSOR, None)
            return Limits(*key, sum_if_all_known(both))

        return self._once(part, key, computed)

    def margin_ppm(self, evidence: Evidence, part: Part | None = None, formats: tuple[str, ...] = ()) -> int:
        """The widest margin among the formats that the work may have; a format's margin is the part's own, if any."""
        known = {} if part is None else part.margins
        found = [known.get((evidence, name), self.margins[evidence]).ppm for name in formats]
        return max(found, default=self.margins[evidence].ppm)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], sha256: str) -> PeakTable:
        """A table from the parsed YAML. Raises PeakTableError, which names the row and the fault."""
        try:
            if data["schema"] != "flopsd-peaks/1":
                raise PeakTableError(f"peak table has schema {data['schema']!r}, this flopsd reads 'flopsd-peaks/1'")
            parts = [_part(row) for row in data["accelerators"]]
            table = cls(
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
        except (KeyError, TypeError, ValueError) as fault:
            raise PeakTableError(
                f"peak table is malformed: {fault}{' is missing' if isinstance(fault, KeyError) else ''}",
                hint="compare it with the packaged config/peaks.yaml",
            ) from fault
        _check(parts, table)
        return table


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
        raise ValueError(f"{name} is a list of texts, not {value!r:.60}")
    return tuple(value)


def _positive(value: object, what: str) -> int:
    if not is_whole(value) or value == 0:
        raise ValueError(f"{what} is a whole number above 0, not {value!r}")
    return value


def _margin(entry: Mapping[str, Any]) -> Margin:
    if not is_whole(entry["ppm"]) or entry["ppm"] > PPM:
        raise ValueError(f"a margin is parts per million, at most a million: {entry['ppm']!r}")
    return Margin(entry["ppm"], str(entry["source"]))


def _energy(name: str, entry: Mapping[str, Any], tensor: Mapping[str, int]) -> Energy:
    low, high = entry["low_fj_per_flop"], entry["high_fj_per_flop"]
    if name not in tensor or name in INTEGER_FORMATS:
        raise ValueError(f"energy is stated for {name!r}, which is no floating-point format of the row's tensor cores")
    if not is_whole(low) or not is_whole(high) or not 0 < low <= high:
        raise ValueError(f"energy is stated as whole femtojoules for each FLOP, from low to high: {low!r}, {high!r}")
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
            raise PeakTableError(f"peak table: row {part.id!r} has rates that are not positive integers: {bad}")
        sizes = (part.sm_count, part.tensor_ref_mhz, part.vector_ref_mhz, part.cores_per_chip)
        if bad := [size for size in sizes if size is not None and (not is_whole(size) or size == 0)]:
            raise PeakTableError(f"peak table: row {part.id!r} has sizes that are not positive integers: {bad}")
        if not all(isinstance(text, str) for text in (part.id, part.vendor, part.status)):
            raise PeakTableError(f"peak table: row {part.id!r} has an id, a vendor or a status that is not text")
    if len(table.parts) != len(parts):
        raise PeakTableError("peak table: two rows share an id")
    for instance in table.instances.values():
        if instance.accelerator not in table.parts:
            raise PeakTableError(f"peak table: {instance.name} names the unknown accelerator {instance.accelerator!r}")


def _chips(name: str) -> set[str]:
    return set(_CHIP.findall(name))
