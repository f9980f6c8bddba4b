"""The peak table: maps a device to its part and the rates of its pipes. Pure.

`peak_reader.py` reads a table from parsed YAML. Devices match by exact NVML name or exact PCI device id, never by part
of a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flopsd.core.dataclass import dataclass
from flopsd.core.model import UNIDENTIFIED, ChipLimits, Device, Evidence, Limits, Pipe, Precision
from flopsd.core.part import FORMAT_OF_VECTOR, Margin, Part, Rates
from flopsd.core.values import sum_if_all_known
from flopsd.errors import UnknownDeviceError

T = TypeVar("T")
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
        return self._once(self._pipe_rates, part, evidence, pipe, precision)

    def _pipe_rates(self, part: Part, evidence: Evidence, pipe: Pipe, precision: Precision | None) -> PipeRates:
        return PipeRates(
            part.rates(pipe, precision),
            part.integer_rates(pipe, precision),
            *self.bounds(part, pipe, precision),
            self.margin_ppm(evidence, part, part.formats(pipe, precision)),
            part.may_be_integer(pipe, precision),
        )

    def _once(self, compute: Callable[..., T], part: Part, *key: Any) -> T:
        """`compute(part, *key)`, cached at the part."""
        known: tuple[PeakTable, T] | None = part.known.get(key)
        if known is not None and known[0] is self:
            return known[1]
        found = compute(part, *key)
        if len(part.known) >= MAX_KNOWN:
            part.known.clear()
        part.known[key] = self, found
        return found

    def ceilings_per_cycle(self, part: Part, precision: Precision | None) -> tuple[int | None, int | None]:
        """The most FLOP and integer operations per SM-cycle, with every pipe running. None: not known."""
        return self._once(self._ceilings_per_cycle, part, precision)

    def _ceilings_per_cycle(self, part: Part, precision: Precision | None) -> tuple[int | None, int | None]:
        bound = self.integer_bound(part, Pipe.TENSOR_IMMA, precision)
        return self.ceiling_flop_per_cycle(part, precision), bound

    def bounds(self, part: Part, pipe: Pipe, precision: Precision | None) -> tuple[int | None, int | None]:
        """`bound` and `integer_bound` of a pipe: the most FLOP and the most integer operations per SM-cycle."""
        return self._once(self._bounds, part, pipe, precision)

    def _bounds(self, part: Part, pipe: Pipe, precision: Precision | None) -> tuple[int | None, int | None]:
        return self.bound(part, pipe, precision), self.integer_bound(part, pipe, precision)

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

    def fits(self, part: Part, device: Device) -> bool:
        """Whether the part's row is among `rows_of` the device."""
        both = device.model in part.names and device.pci_device_id in part.pci_device_ids
        return both or part.id in self.rows_of(device)

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
        if len(found) == 1 and not (by_name and by_pci and not by_name & by_pci):
            return self.parts[found.pop()]
        why = device.evidence_reason or "the driver does not identify it"
        hint = device.evidence_fix or "`nvidia-smi -q` or `neuron-ls`, and `dmesg`, may show why"
        if device.model != UNIDENTIFIED:
            what = f"matches more than one row: {sorted(by_name | by_pci)}" if found else "is not in the peak table"
            if not found and by_pci:
                what = f"is ambiguous: the id is that of {', '.join(sorted(by_pci))}, the name another chip's"
            pci = "no PCI id" if device.pci_device_id is None else f"PCI id 0x{device.pci_device_id:04x}"
            why = f"{device.model!r} with {pci} {what}"
            hint = "add a row with its exact name to a copy of config/peaks.yaml and pass --peaks FILE"
        raise UnknownDeviceError(
            f"device {device.index} ({device.uid}): {why}",
            hint=f"{hint}; until then its time is a gap without a ceiling and no total has an upper bound",
        )

    def limits(self, device: Device, part: Part) -> Limits | ChipLimits | None:
        """What the device cannot exceed; None where its SM count or clock is not known."""
        if part.chip_ceiling_flop_per_s is not None:
            return ChipLimits(part.chip_ceiling_flop_per_s, part.chip_ceiling_integer_per_s)
        sm_count = device.sm_count if device.sm_count is not None else part.sm_count
        clocks = [c for c in (device.sm_clock_max_mhz, part.tensor_ref_mhz, part.vector_ref_mhz) if c]
        if sm_count is None or not clocks:
            return None
        return self._once(self._limits, part, sm_count, max(clocks))

    def _limits(self, part: Part, sm_count: int, sm_clock_max_mhz: int) -> Limits:
        both = self.ceiling_flop_per_cycle(part, None), self.integer_bound(part, Pipe.TENSOR, None)
        return Limits(sm_count, sm_clock_max_mhz, sum_if_all_known(both))

    def margin_ppm(self, evidence: Evidence, part: Part | None = None, formats: tuple[str, ...] = ()) -> int:
        """The widest margin among the formats that the work may have; a format's margin is the part's own, if any."""
        known = {} if part is None else part.margins
        found = [known.get((evidence, name), self.margins[evidence]).ppm for name in formats]
        return max(found, default=self.margins[evidence].ppm)


def _chips(name: str) -> set[str]:
    return set(_CHIP.findall(name))
