"""The peak table: which device is which part, and what its pipes can do.

Pure: `PeakTable.from_data` takes what config.py read from `config/peaks.yaml`. Devices are matched
by their exact NVML name or by their exact PCI device id, never by a part of a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flopsd.core.model import ChipLimits, Device, Evidence, Limits, Pipe, Precision
from flopsd.core.values import is_whole
from flopsd.errors import PeakTableError, UnknownDeviceError

TENSOR_PIPES = (Pipe.TENSOR, Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA)
# Tensor formats that one counter cannot separate (DCGM#251, #252); the rest have counters of their own.
HMMA_FORMATS = ("fp16", "bf16", "tf32", "fp8", "fp6", "fp4")
_FORMAT_OF_VECTOR = {Pipe.FP64: "fp64", Pipe.FP32: "fp32", Pipe.FP16: "fp16"}
INTEGER_FORMATS = ("int8", "int4")  # one counter for both
_TENSOR_PIPE = {
    **dict.fromkeys(HMMA_FORMATS, Pipe.TENSOR_HMMA),
    **dict.fromkeys(INTEGER_FORMATS, Pipe.TENSOR_IMMA),
    "fp64": Pipe.TENSOR_DFMA,
}
MEASURED_FORMAT = "bf16"
_CHIP = re.compile(r"\b[A-Z]{1,2}[0-9]{1,3}[A-Z]?\b")  # as H100, A10G or GB300; not SXM5 or HBM3


@dataclass(frozen=True, slots=True)
class Margin:
    """How far a kind of evidence may be off, both ways, and the source of that figure."""

    ppm: int
    source: str


@dataclass(frozen=True, slots=True)
class Rates:
    """FLOP per SM-cycle of an active pipe. None: the pipe's rate on this part is not known."""

    low: int | None
    measured: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """One row of the table. Rates are dense FLOP per cycle and SM; clocks are MHz."""

    id: str
    vendor: str
    names: tuple[str, ...]
    pci_device_ids: tuple[int, ...]
    sm_count: int | None
    tensor_flop_per_cycle: Mapping[str, int]
    disputed_tensor_flop_per_cycle: Mapping[str, int]  # from other sources: only the upper figure uses it
    vector_flop_per_cycle: Mapping[str, int]
    tensor_ref_mhz: int | None
    vector_ref_mhz: int | None
    vector_clocked_tensor_formats: tuple[str, ...]
    status: str
    sources: tuple[str, ...]
    gpm: bool | None
    chip_flop_per_s: Mapping[str, int] = field(default_factory=dict)  # dense peak of the whole chip, by format
    chip_ceiling_flop_per_s: int | None = None  # its fastest format, sparsity included
    cores_per_chip: int | None = None

    def rates(self, pipe: Pipe, precision: Precision | None) -> Rates:
        """The three rates of one pipe; `precision` is the declared mix of tensor formats, if any."""
        if pipe in _FORMAT_OF_VECTOR:
            rate = self.vector_flop_per_cycle.get(_FORMAT_OF_VECTOR[pipe])
            # The FP32 reading is the FMA pipe, integer work included: no lower bound of FLOP.
            return Rates(0 if pipe is Pipe.FP32 else rate, rate, rate)
        if pipe is Pipe.TENSOR_IMMA:
            # The Guidelines count every operation alike and are silent on integers.
            return Rates(0, self.tensor_flop_per_cycle.get("int8"), self._highest(*INTEGER_FORMATS))
        if pipe is Pipe.TENSOR_DFMA:
            rate = self.tensor_flop_per_cycle.get("fp64")
            return Rates(rate, rate, rate)
        shares = self.declared(pipe, precision)
        if shares is not None:
            declared = _mix(shares, self.tensor_flop_per_cycle)
            return Rates(declared, declared, -_mix(shares, {n: -rate for n, rate in self._highest_rates().items()}))
        candidates = self.tensor_flop_per_cycle if pipe is Pipe.TENSOR else HMMA_FORMATS
        formats = [name for name in candidates if name in self.tensor_flop_per_cycle]
        if not formats:
            return Rates(None, None, None)
        dense = MEASURED_FORMAT if MEASURED_FORMAT in formats else "fp16"
        return Rates(
            min(self.tensor_flop_per_cycle[name] for name in formats),
            self.tensor_flop_per_cycle.get(dense),
            max(self._highest_rates()[name] for name in formats),
        )

    def declares(self, precision: Precision | None) -> bool:
        """Whether a declaration fits this part: every format in it is one that the part has."""
        return precision is not None and all(name in self.tensor_flop_per_cycle for name, _ in precision.shares_ppm)

    def declared(self, pipe: Pipe | None, precision: Precision | None) -> Precision | None:
        """What a declaration says of a pipe's work, or of all tensor work: the shares of the formats that are counted
        there. None: nothing, since it does not fit this part or names none of them."""
        if precision is None or not self.declares(precision):
            return None
        counted = HMMA_FORMATS if pipe is Pipe.TENSOR_HMMA else tuple(self.tensor_flop_per_cycle)
        shares = tuple((name, ppm) for name, ppm in precision.shares_ppm if ppm and name in counted)
        return replace(precision, shares_ppm=shares) if shares else None

    def _highest(self, *names: str) -> int | None:
        tables = (self.tensor_flop_per_cycle, self.disputed_tensor_flop_per_cycle)
        return max((rates[name] for rates in tables for name in names if name in rates), default=None)

    def _highest_rates(self) -> dict[str, int]:
        return {
            name: max(rate, self.disputed_tensor_flop_per_cycle.get(name, 0))
            for name, rate in self.tensor_flop_per_cycle.items()
        }

    def datasheet_peaks(self, slice_sm_count: int | None = None) -> list[tuple[Pipe | None, str, int]]:
        """Dense datasheet peaks, the denominators of MFU: (pipe, format, FLOP/s); pipe is None for a whole chip.

        SMs x rate x reference clock. Hopper and Blackwell have two of those: one for low-precision tensor
        work, a higher one for FP64 and the vector pipes. The maximum clock is neither peak's. A MIG slice
        has the peak of its own SMs.
        """
        found: list[tuple[Pipe | None, str, int]] = [(None, name, peak) for name, peak in self.chip_flop_per_s.items()]
        sm_count = slice_sm_count if slice_sm_count is not None else self.sm_count
        if sm_count is None:
            return found
        for name, rate in self.tensor_flop_per_cycle.items():
            mhz = self.vector_ref_mhz if name in self.vector_clocked_tensor_formats else self.tensor_ref_mhz
            if mhz is not None:
                found.append((_TENSOR_PIPE[name], name, sm_count * rate * mhz * 1_000_000))
        for pipe, name in _FORMAT_OF_VECTOR.items():
            if name in self.vector_flop_per_cycle and self.vector_ref_mhz is not None:
                rate = self.vector_flop_per_cycle[name]
                found.append((pipe, name, sm_count * rate * self.vector_ref_mhz * 1_000_000))
        return found


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What a SageMaker instance type holds. `count` is None where no source states it."""

    name: str
    accelerator: str
    count: int | None
    status: str


@dataclass(frozen=True, slots=True)
class PeakTable:
    """All rows, with the SHA-256 of the file they came from."""

    sha256: str
    parts: Mapping[str, Part]
    margins: Mapping[Evidence, Margin]
    cores_per_sm: Mapping[tuple[int, str], int]  # (NVML architecture, compute capability or "") -> cores
    unrated_times_fp32: Mapping[str, int]  # format -> bound, as a multiple of the part's FP32 vector rate
    instances: Mapping[str, InstanceType]

    def unrated_bound(self, part: Part, pipe: Pipe) -> int | None:
        """An upper bound for a pipe whose rate the part's row does not state; None where there is none."""
        fp32 = part.vector_flop_per_cycle.get("fp32")
        times = self.unrated_times_fp32.get("int8" if pipe is Pipe.TENSOR_IMMA else pipe.value.removeprefix("tensor_"))
        return fp32 * times if fp32 is not None and times is not None else None

    def ceiling_flop_per_cycle(self, part: Part, precision: Precision | None) -> int | None:
        """FLOP per SM-cycle if every pipe ran at once: what nothing can exceed. None: not known."""
        rates = [part.rates(Pipe.TENSOR, precision).high or 0]
        for pipe, name in _FORMAT_OF_VECTOR.items():
            rate = part.vector_flop_per_cycle.get(name, self.unrated_bound(part, pipe))
            if rate is None:
                return None
            rates.append(rate)
        return sum(rates)

    def resolve(self, device: Device) -> Part:
        """The row of a device.

        Raises UnknownDeviceError when nothing matches exactly, or name and PCI id disagree.
        """
        by_name = {p.id for p in self.parts.values() if device.model in p.names}
        by_pci = {p.id for p in self.parts.values() if device.pci_device_id in p.pci_device_ids}
        # A name that is not in the table may still be that of another chip than its PCI id's.
        by_pci_alone = {row for row in by_pci if _chips(device.model) <= _chips(" ".join(self.parts[row].names))}
        found = by_name & by_pci or by_name or by_pci_alone
        if not found or (by_name and by_pci and not by_name & by_pci) or len(found) > 1:
            pci = "no PCI id" if device.pci_device_id is None else f"PCI id 0x{device.pci_device_id:04x}"
            what = "is not in the peak table" if not found else f"matches more than one row: {sorted(by_name | by_pci)}"
            if not found and by_pci:
                what = f"has another chip's name than {', '.join(sorted(by_pci))}, whose id it is: neither is believed"
            raise UnknownDeviceError(
                f"device {device.index} ({device.uid}): {device.model!r} with {pci} {what}",
                hint="add a row with its exact name to a copy of config/peaks.yaml and pass --peaks FILE; "
                "until then its time is a gap without a ceiling and no total has an upper bound",
            )
        return self.parts[found.pop()]

    def limits(self, device: Device, part: Part) -> Limits | ChipLimits | None:
        """What the device cannot exceed, or None where SMs or clock are unknown."""
        if part.chip_ceiling_flop_per_s is not None:
            return ChipLimits(part.chip_ceiling_flop_per_s)
        sm_count = device.sm_count if device.sm_count is not None else part.sm_count
        clocks = [c for c in (device.sm_clock_max_mhz, part.tensor_ref_mhz, part.vector_ref_mhz) if c]
        if sm_count is None or not clocks:
            return None
        return Limits(sm_count, max(clocks), self.ceiling_flop_per_cycle(part, None))

    def margin_ppm(self, evidence: Evidence) -> int:
        return self.margins[evidence].ppm

    @classmethod
    def from_data(cls, data: Mapping[str, Any], sha256: str) -> PeakTable:
        """A table from the parsed YAML. Raises PeakTableError naming the row and the fault."""
        try:
            if data["schema"] != "flopsd-peaks/1":
                raise PeakTableError(f"peak table has schema {data['schema']!r}, this flopsd reads 'flopsd-peaks/1'")
            parts = [_part(row) for row in data["accelerators"]]
            table = cls(
                sha256=sha256,
                parts={part.id: part for part in parts},
                margins={Evidence(k): Margin(int(v["ppm"]), str(v["source"])) for k, v in data["margins"].items()},
                cores_per_sm={
                    (int(r["nvml_arch"]), str(r.get("compute_capability", ""))): int(r["cores"])
                    for r in data["cores_per_sm"]
                },
                unrated_times_fp32={k: int(v["times_fp32"]) for k, v in data["unrated_pipe_bounds"].items()},
                instances={
                    name: InstanceType(name, row["accelerator"], row["count"], row.get("status", "published"))
                    for name, row in data["sagemaker_instances"].items()
                },
            )
        except (KeyError, TypeError, ValueError) as fault:
            raise PeakTableError(
                f"peak table is malformed: {fault!r}", hint="compare it with the packaged config/peaks.yaml"
            ) from fault
        _check(parts, table)
        return table


def _mix(precision: Precision, rates: Mapping[str, int]) -> int:
    """The mean rate of the declared formats, rounded down."""
    whole = sum(ppm for _, ppm in precision.shares_ppm)
    return sum(rates[name] * ppm for name, ppm in precision.shares_ppm) // whole


def _part(row: Mapping[str, Any]) -> Part:
    rates = row.get("flop_per_cycle_per_sm", {})
    clocks = row.get("clocks_mhz", {})
    gpm = row.get("gpm")
    return Part(
        id=row["id"],
        vendor=row["vendor"],
        names=tuple(row.get("names", ())),
        pci_device_ids=tuple(int(i, 16) for i in row.get("pci_device_ids", ())),
        sm_count=row.get("sm_count"),
        tensor_flop_per_cycle=dict(rates.get("tensor", {})),
        disputed_tensor_flop_per_cycle=dict(row.get("disputed_flop_per_cycle_per_sm", {}).get("tensor", {})),
        vector_flop_per_cycle=dict(rates.get("vector", {})),
        tensor_ref_mhz=clocks.get("tensor_ref"),
        vector_ref_mhz=clocks.get("vector_ref"),
        vector_clocked_tensor_formats=tuple(row.get("tensor_formats_at_vector_ref", ())),
        status=row["status"],
        sources=tuple(row["sources"]),
        gpm=gpm if isinstance(gpm, bool) else None,
        chip_flop_per_s=_whole_flop(row.get("peak_dense_tflop_per_s_per_chip", {})),
        chip_ceiling_flop_per_s=_chip_ceiling(row),
        cores_per_chip=row.get("cores_per_chip"),
    )


def _whole_flop(tflop_per_s: Mapping[str, float]) -> dict[str, int]:
    return {name: round(value * 1000) * 1_000_000_000 for name, value in tflop_per_s.items()}


def _chip_ceiling(row: Mapping[str, Any]) -> int | None:
    dense, sparse = (row.get(f"peak_{kind}_tflop_per_s_per_chip", {}) for kind in ("dense", "sparse"))
    return max((*_whole_flop(dense).values(), *_whole_flop(sparse).values()), default=None)


def _check(parts: list[Part], table: PeakTable) -> None:
    seen: dict[str | int, str] = {}
    for part in parts:
        keys: list[str | int] = [part.id, *part.names, *part.pci_device_ids]
        for key in keys:
            if seen.setdefault(key, part.id) != part.id:
                raise PeakTableError(f"peak table: {key!r} belongs to both {seen[key]!r} and {part.id!r}")
        rates = (*part.tensor_flop_per_cycle.values(), *part.vector_flop_per_cycle.values())
        if bad := [rate for rate in rates if not is_whole(rate) or rate == 0]:
            raise PeakTableError(f"peak table: row {part.id!r} has rates that are no positive integers: {bad}")
    if len(table.parts) != len(parts):
        raise PeakTableError("peak table: two rows share an id")
    for instance in table.instances.values():
        if instance.accelerator not in table.parts:
            raise PeakTableError(f"peak table: {instance.name} names the unknown accelerator {instance.accelerator!r}")


def _chips(name: str) -> set[str]:
    return set(_CHIP.findall(name))
