"""One row of the peak table: the rates of a part's pipes. Pure.

FLOP are floating-point. Integer operations of the tensor cores are a separate quantity: they have their own counter
(IMMA) where the driver separates them, and are only bounded elsewhere.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import field, replace
from typing import Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Evidence, Pipe, Precision
from flopsd.core.values import ceil_div

TENSOR_PIPES = (Pipe.TENSOR, Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA)
# Tensor formats that share one counter (DCGM#251, #252); the others have their own.
HMMA_FORMATS = ("fp16", "bf16", "tf32", "fp8", "fp6", "fp4")
FORMAT_OF_VECTOR = {Pipe.FP64: "fp64", Pipe.FP32: "fp32", Pipe.FP16: "fp16"}
INTEGER_FORMATS = ("int8", "int4")  # one counter for both
MEASURED_FORMAT = "bf16"


class Margin(NamedTuple):
    """How far a kind of evidence may be off, either way, and the source of that figure."""

    ppm: int
    source: str


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy per FLOP in published runs of a part, in femtojoules, and its source."""

    low_fj: int
    high_fj: int
    source: str


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations per SM-cycle of an active pipe. None: the pipe's rate on this part is not known."""

    low: int | None
    measured: int | None
    high: int | None


_NONE_OF_THEM = Rates(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Part:
    """One row of the table. Rates are dense operations per cycle and SM; integer formats are among them. Clocks are in
    MHz."""

    id: str
    vendor: str
    names: tuple[str, ...]
    pci_device_ids: tuple[int, ...]
    sm_count: int | None
    tensor_flop_per_cycle: Mapping[str, int]
    disputed_tensor_flop_per_cycle: Mapping[str, int]  # from conflicting sources: used for the upper figure only
    vector_flop_per_cycle: Mapping[str, int]
    tensor_ref_mhz: int | None
    vector_ref_mhz: int | None
    vector_clocked_tensor_formats: tuple[str, ...]
    status: str
    sources: tuple[str, ...]
    gpm: bool | None
    has_integer_tensor: bool = True  # False only where a source says that the tensor cores have no integer format
    chip_flop_per_s: Mapping[str, int] = field(default_factory=dict)  # dense peak of the whole chip, by format
    chip_ceiling_flop_per_s: int | None = None  # its fastest floating-point format, sparsity included
    chip_ceiling_integer_per_s: int | None = None  # its fastest integer format; None: not known
    cores_per_chip: int | None = None
    margins: Mapping[tuple[Evidence, str], Margin] = field(default_factory=dict)  # by tensor format, from its own runs
    energy: Mapping[str, Energy] = field(default_factory=dict)  # by the tensor format of the runs
    # Derived values, each with the table that derived it; see `PeakTable.pipe_rates`.
    known: dict[tuple[Any, ...], tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rates(self, pipe: Pipe, precision: Precision | None) -> Rates:
        """FLOP rates of one pipe; `precision` is the declared mix of tensor formats, if any."""
        if pipe in FORMAT_OF_VECTOR:
            rate = self.vector_flop_per_cycle.get(FORMAT_OF_VECTOR[pipe])
            # The FP32 reading covers the FMA pipe, integer work included, so it gives no lower bound of FLOP.
            return Rates(0 if pipe is Pipe.FP32 else rate, rate, rate)
        if pipe is Pipe.TENSOR_IMMA:
            return _NONE_OF_THEM
        if pipe is Pipe.TENSOR_DFMA:
            rate = self.tensor_flop_per_cycle.get("fp64")
            return Rates(rate, rate, rate)
        shares = self.declared(pipe, precision)
        if shares is not None:
            return self._mean_rates(shares, of_integers=False)
        formats = [
            name
            for name in self.tensor_flop_per_cycle
            if name in HMMA_FORMATS or (pipe is Pipe.TENSOR and name not in INTEGER_FORMATS)
        ]
        if not formats:
            return Rates(None, None, None)
        dense = MEASURED_FORMAT if MEASURED_FORMAT in formats else "fp16"
        slowest = min(self.tensor_flop_per_cycle[name] for name in formats)
        return Rates(
            0 if self.may_be_integer(pipe, precision) else slowest,
            self.tensor_flop_per_cycle.get(dense),
            max(map(self._highest_rate, formats)),
        )

    def integer_rates(self, pipe: Pipe, precision: Precision | None) -> Rates:
        """Integer operation rates of one pipe, tensor cores only: no counter shows those of the vector pipes."""
        shares = self.declared(pipe, precision) if pipe is Pipe.TENSOR else None
        if shares is not None:
            return self._mean_rates(shares, of_integers=True)
        if pipe not in (Pipe.TENSOR, Pipe.TENSOR_IMMA) or not self.has_integer_tensor:
            return _NONE_OF_THEM
        known = [self.tensor_flop_per_cycle[name] for name in INTEGER_FORMATS if name in self.tensor_flop_per_cycle]
        disputed = [rate for name, rate in self.disputed_tensor_flop_per_cycle.items() if name in INTEGER_FORMATS]
        fastest = max((*known, *disputed), default=None)
        if pipe is Pipe.TENSOR:
            return Rates(0, None, fastest)
        return Rates(min(known, default=None), self.tensor_flop_per_cycle.get("int8"), fastest)

    def may_be_integer(self, pipe: Pipe, precision: Precision | None) -> bool:
        """Whether the FLOP measured by a pipe's counter may be integer operations, which it does not distinguish."""
        if pipe is Pipe.TENSOR:
            return self.has_integer_tensor and self.declared(pipe, precision) is None
        return pipe is Pipe.FP32

    def count_may_be_integer(self, precision: Precision | None) -> bool:
        """The same for the vendor's own count, which does not separate formats."""
        known = {*self.tensor_flop_per_cycle, *self.chip_flop_per_s} - {*INTEGER_FORMATS}
        return self.has_integer_tensor and not _has_formats(known, precision)

    def formats(self, pipe: Pipe, precision: Precision | None) -> tuple[str, ...]:
        """The tensor formats that a pipe's work may have; none for a vector pipe."""
        if (declared := self.declared(pipe, precision)) is not None and pipe in (Pipe.TENSOR, Pipe.TENSOR_HMMA):
            return tuple(name for name, _ in declared.shares_ppm)
        of_pipe = {Pipe.TENSOR_HMMA: HMMA_FORMATS, Pipe.TENSOR_IMMA: INTEGER_FORMATS, Pipe.TENSOR_DFMA: ("fp64",)}
        counted = of_pipe.get(pipe, tuple(self.tensor_flop_per_cycle) if pipe is Pipe.TENSOR else ())
        return tuple(name for name in counted if name in self.tensor_flop_per_cycle)

    def declares(self, precision: Precision | None) -> bool:
        """Whether a declaration fits this part: the part has every format in it."""
        return _has_formats(self.tensor_flop_per_cycle or self.chip_flop_per_s, precision)

    def declared(self, pipe: Pipe | None, precision: Precision | None) -> Precision | None:
        """The part of a declaration that concerns a pipe, or all tensor work: the shares of the formats counted there.
        None if it does not fit this part or names none of those formats."""
        if precision is None or not _has_formats(self.tensor_flop_per_cycle, precision):
            return None
        counted = HMMA_FORMATS if pipe is Pipe.TENSOR_HMMA else tuple(self.tensor_flop_per_cycle)
        shares = tuple((name, ppm) for name, ppm in precision.shares_ppm if name in counted)
        return replace(precision, shares_ppm=shares) if shares else None

    def _highest_rate(self, name: str) -> int:
        return max(self.tensor_flop_per_cycle[name], self.disputed_tensor_flop_per_cycle.get(name, 0))

    def _mean_rates(self, precision: Precision, *, of_integers: bool) -> Rates:
        """The mean rates over the declared shares, the highest rounded up; formats of the other kind add nothing."""
        whole = sum(ppm for _, ppm in precision.shares_ppm)
        counted = [(name, ppm) for name, ppm in precision.shares_ppm if (name in INTEGER_FORMATS) is of_integers]
        declared = sum(self.tensor_flop_per_cycle[name] * ppm for name, ppm in counted) // whole
        return Rates(declared, declared, ceil_div(sum(self._highest_rate(name) * ppm for name, ppm in counted), whole))

    def datasheet_peaks(self, slice_sm_count: int | None = None) -> list[tuple[Pipe | None, str, int]]:
        """Dense datasheet peaks, the denominators of MFU: (pipe, format, FLOP/s); pipe is None for a whole chip. A peak
        is SMs x rate x reference clock. Hopper and Blackwell have two such clocks: one for low-precision tensor work, a
        higher one for FP64 and vector pipes; neither is the maximum clock. A MIG slice has the peak of its own SMs."""
        found: list[tuple[Pipe | None, str, int]] = [
            (None, name, peak) for name, peak in self.chip_flop_per_s.items() if name not in INTEGER_FORMATS
        ]
        sm_count = slice_sm_count if slice_sm_count is not None else self.sm_count
        if sm_count is None:
            return found
        for name, rate in self.tensor_flop_per_cycle.items():
            mhz = self.vector_ref_mhz if name in self.vector_clocked_tensor_formats else self.tensor_ref_mhz
            if mhz is not None and name not in INTEGER_FORMATS:
                pipe = Pipe.TENSOR_HMMA if name in HMMA_FORMATS else Pipe.TENSOR_DFMA
                found.append((pipe, name, sm_count * rate * mhz * 1_000_000))
        for pipe, name in FORMAT_OF_VECTOR.items():
            if name in self.vector_flop_per_cycle and self.vector_ref_mhz is not None:
                rate = self.vector_flop_per_cycle[name]
                found.append((pipe, name, sm_count * rate * self.vector_ref_mhz * 1_000_000))
        return found


def _has_formats(known: Container[str], precision: Precision | None) -> bool:
    """Whether all formats of a declaration are known ones; false without a declaration."""
    return precision is not None and all(name in known for name, _ in precision.shares_ppm)
