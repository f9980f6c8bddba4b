"""Low, measured and high FLOP and integer operations of tallies, row by row. Pure and exact.

Rounding is outward: low down, high up, so that no interval is narrower than what is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import NamedTuple

from flopsd.core.clock_bound import SLOT_MAX_NS, deviation
from flopsd.core.dataclass import dataclass
from flopsd.core.figures import NO_FIGURES, Figures, sum_by_key, sum_figures
from flopsd.core.meter import max_plausible_sm_cycles, max_sm_cycles
from flopsd.core.model import (
    ESTIMATING,
    PPM,
    UNDECLARED_PHASE,
    ChipLimits,
    Evidence,
    Limits,
    Pipe,
    Precision,
)
from flopsd.core.part import Part, Rates
from flopsd.core.peaks import PeakTable, PipeRates
from flopsd.core.phases import remainder, split_bucket
from flopsd.core.tally import Tally
from flopsd.core.values import NS_PER_S, ceil_div

UNDECLARED = "undeclared"
_FIXED_FORMAT: Mapping[Pipe | None, str] = {
    Pipe.TENSOR_IMMA: "int8", Pipe.TENSOR_DFMA: "fp64", Pipe.FP64: "fp64", Pipe.FP32: "fp32", Pipe.FP16: "fp16",
}  # fmt: skip
_SUB_PIPES = frozenset({Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA})
_NOTHING = Figures(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Rating:
    """What converts one device's cycles into FLOP, by `table`. `part` is None for an unknown device."""

    part: Part | None
    limits: Limits | ChipLimits | None
    precision: Precision | None
    table: PeakTable
    # The last row of each pipe with its inputs and rates: between scrapes little changes.
    _last: dict[tuple[Evidence, Pipe], tuple[tuple[int, int, int, int], Row, PipeRates]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _labels: dict[Pipe | None, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    # Of the last length of gaps: for most of a run they do not grow.
    _last_ceilings: dict[int, tuple[int | None, int | None]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )


class Row(NamedTuple):
    """One disjoint share of a total. `pipe` is None where work is only bounded, or counted without regard to pipes."""

    evidence: Evidence
    pipe: Pipe | None
    precision: str
    sm_cycles: int
    duration_ns: int
    figures: Figures
    integers: Figures  # integer operations of the tensor cores
    margin_ppm: int | None = None  # in `figures` and `integers`; None: no margin
    may_be_integer: bool = False  # whether the measured FLOP may be integer operations, which no counter distinguishes
    clock_uncertainty_flop: int = 0  # distance from measured, either way, due to the clock alone
    bucket: str = UNDECLARED_PHASE  # the phase, with the number format where a process declared one
    declared_by: str | None = None  # who declared the format, where a process did
    claimed: Figures | None = None  # FLOP under the format that a process declares

    @property
    def phase(self) -> str:
        return self.bucket.partition("@")[0]


def rows(tally: Tally, rating: Rating) -> list[Row]:
    """The rows of one tally, by phase; they are disjoint and add up to its total. A format that a process declares
    decides the measured figure only. Low and high allow every format that the pipe can have, since whoever trains may
    declare a false one."""
    if not tally.phases:
        return _rows(tally, rating, tally)
    found = []
    for name, share in sorted(tally.phases.items()):
        claimed = split_bucket(name)[1] if rating.precision is None else None
        known = rating.precision or claimed
        by = None if known is None else known.declared_by
        of_share = _rows(share, rating, tally)
        if claimed is not None:
            of_share = list(map(_measured_as, of_share, _rows(share, replace(rating, precision=claimed), tally)))
        found += [row._replace(bucket=name, declared_by=by) for row in of_share]
    return [*found, *_rows(remainder(tally), rating, tally)]


def _measured_as(row: Row, claimed: Row) -> Row:
    """`row` with the measured figures that it has under the format declared by a process."""
    return row._replace(
        precision=claimed.precision,
        figures=row.figures._replace(measured_flop=claimed.figures.measured_flop),
        integers=row.integers._replace(measured_flop=claimed.integers.measured_flop),
        clock_uncertainty_flop=claimed.clock_uncertainty_flop,
        claimed=claimed.figures,
    )


def by_phase(
    tally: Tally, found: Iterable[Row], *, integers: bool = False, claimed: bool = False
) -> dict[str, Figures]:
    """The figures of one tally by phase, in FLOP or in integer operations; `found` are its rows."""
    figures = sum_by_key(
        {row.phase: row.integers if integers else (claimed and row.claimed) or row.figures} for row in found
    )
    left = remainder(tally) if tally.phases else tally
    shares = (*tally.phases.items(), (UNDECLARED_PHASE, left))
    read = {name.partition("@")[0] for name, share in shares if _was_read(share, integers=integers)}
    return {
        phase: _zero_if_read(figures.get(phase, NO_FIGURES), was_read=phase in read, integers=integers)
        for phase in dict.fromkeys((*figures, *sorted(read)))
    }


def _zero_if_read(figures: Figures, *, was_read: bool, integers: bool) -> Figures:
    """Without counted work `measured` is 0 if every pipe was read, and None for integers that could not be read."""
    low, measured, high = figures
    if measured or not (was_read or integers):
        return figures
    return Figures(low, 0 if was_read else None, high)


def _was_read(tally: Tally, *, integers: bool) -> bool:
    """Whether estimating evidence was read, so that nothing counted is a measured zero."""
    if not integers:
        return not tally.observed_ns.keys().isdisjoint(ESTIMATING)
    # Integers count as measured if the counters separated the kinds of tensor work, or saw no tensor work.
    observed_ns = tally.observed_ns
    counted = Evidence.CYCLES in observed_ns or Evidence.ACTIVITY in observed_ns
    if not counted or Evidence.COUNT in observed_ns or Pipe.TENSOR_IMMA in tally.unread_ns:
        return False
    return _integers_apart(tally) or not any(pipe is Pipe.TENSOR for _, pipe in tally.active_sm_cycles)


def _integers_apart(tally: Tally) -> bool:
    return not _SUB_PIPES.isdisjoint([pipe for _, pipe in tally.active_sm_cycles])


def _rows(tally: Tally, rating: Rating, whole: Tally) -> list[Row]:
    """The rows of `tally`, a part of `whole`. A declared mix describes all tensor work, not what counters of other
    tensor pipes leave of it: where `whole` has any, the mix is ignored for TENSOR."""
    mixed = rating.precision is not None and len(rating.precision.shares_ppm) > 1
    of_tensor = replace(rating, precision=None) if mixed and _integers_apart(whole) else rating
    found = [
        _active(evidence, pipe, cycles, tally, of_tensor if pipe is Pipe.TENSOR else rating)
        for (evidence, pipe), cycles in sorted(tally.active_sm_cycles.items())
    ]
    found += [
        _unread(pipe, ns, of_tensor if pipe is Pipe.TENSOR else rating) for pipe, ns in sorted(tally.unread_ns.items())
    ]
    if Evidence.COUNT in tally.observed_ns or tally.counted_flop:
        found.append(_counted(tally, rating))
    if known_ns := tally.known_ns(Evidence.UTILIZATION):
        label, busy = precision_label(None, rating), tally.busy_sm_cycles
        most = _most_busy(tally, rating)
        flop, integers = (Figures(0, None, None if rate is None else most * rate) for rate in _rates(rating))
        found.append(Row(Evidence.UTILIZATION, None, label, busy, known_ns, flop, integers))
    if tally.gap_ns and (unknown_ns := tally.unknown_ns):
        label = precision_label(None, rating)
        highs = _gap_ceilings(unknown_ns, rating) if tally.is_bounded else (None, None)
        flop, integers = Figures(0, None, highs[0]), Figures(0, None, highs[1])
        found.append(Row(Evidence.GAP, None, label, 0, unknown_ns, flop, integers))
    return found


def total_of(found: Iterable[Row], tally: Tally, *, integers: bool = False) -> Figures:
    """The three figures of one tally, in FLOP or in integer operations, from its rows."""
    figures = sum_figures([row.integers for row in found] if integers else [row.figures for row in found])
    return _zero_if_read(figures, was_read=_was_read(tally, integers=integers), integers=integers)


def gap_ceiling_flop(gap_ns: int, rating: Rating) -> int | None:
    """The most FLOP that a device can have done in `gap_ns`; None where no ceiling is known."""
    return _gap_ceilings(gap_ns, rating)[0]


def _gap_ceilings(gap_ns: int, rating: Rating) -> tuple[int | None, int | None]:
    """The same ceiling in FLOP and in integer operations."""
    known = rating._last_ceilings.get(gap_ns)
    if known is None:
        known = _computed_ceilings(gap_ns, rating)
        rating._last_ceilings.clear()
        rating._last_ceilings[gap_ns] = known
    return known


def _computed_ceilings(gap_ns: int, rating: Rating) -> tuple[int | None, int | None]:
    rates: tuple[int | None, int | None]
    match limits := rating.limits:
        case ChipLimits():
            rates, amount, unit = (limits.flop_per_s, limits.integer_per_s), gap_ns, NS_PER_S
        case Limits():
            rates, amount, unit = _rates(rating), gap_ns * limits.sm_count * limits.sm_clock_max_mhz, 1000
        case _:
            return None, None
    flop, integers = rates
    return (
        None if flop is None else ceil_div(amount * flop, unit),
        None if integers is None else ceil_div(amount * integers, unit),
    )


def _rates(rating: Rating) -> tuple[int | None, int | None]:
    """The most FLOP and integer operations per SM-cycle, with every pipe running. None: not known. A declared format
    limits the FLOP only: integers may have been multiplied whatever it says."""
    if rating.part is None:
        return None, None
    return rating.table.ceilings_per_cycle(rating.part, rating.precision)


def _active(evidence: Evidence, pipe: Pipe, cycles: int, tally: Tally, rating: Rating) -> Row:
    part, duration_ns, key = rating.part, tally.known_ns(evidence), (evidence, pipe)
    if part is None:
        unknown = Figures(0, None, None)
        return Row(evidence, pipe, precision_label(pipe, rating), cycles, duration_ns, unknown, unknown)
    doubt, square_sum = tally.uncertainty_sm_cycles.get(key, 0), tally.square_sum.get(key, 0)
    last, made_of = rating._last.get(key), (cycles, doubt, square_sum, duration_ns)
    if last is not None and last[0] == made_of:
        return last[1]
    if square_sum:
        doubt += _deviation(square_sum, duration_ns, rating)
    if last is None:
        rates, label = rating.table.pipe_rates(evidence, part, pipe, rating.precision), _label(pipe, rating)
    else:
        rates, label = last[2], last[1].precision
    row = Row(
        evidence,
        pipe,
        label,
        cycles,
        duration_ns,
        _rated_cycles(cycles, doubt, rates.flop, rates.flop_bound, rates.margin_ppm),
        _rated_cycles(cycles, doubt, rates.integers, rates.integer_bound, rates.margin_ppm),
        rates.margin_ppm,
        rates.may_be_integer,
        doubt * (rates.flop.measured or 0),
    )
    rating._last[key] = made_of, row, rates
    return row


def _rated_cycles(cycles: int, doubt: int, rates: Rates, bound: int | None, margin_ppm: int) -> Figures:
    if bound == 0 and rates.measured == 0:
        return _NOTHING
    low = max(0, cycles - doubt) * rates.low * (PPM - margin_ppm) // PPM if rates.low else 0
    measured = cycles * rates.measured if rates.measured is not None else None
    high = ceil_div((cycles + doubt) * bound * (PPM + margin_ppm), PPM) if bound is not None else None
    return Figures(low, measured, high)


def _counted(tally: Tally, rating: Rating) -> Row:
    """A vendor's count. It does not separate formats: undeclared, all of it may be integer operations."""
    flop, margin, mixed = tally.counted_flop, rating.table.margin_ppm(Evidence.COUNT), True
    if rating.part is not None:
        mixed = rating.part.count_may_be_integer(rating.precision)
    figures = Figures(0 if mixed else _minus_margin(flop, margin), flop, _plus_margin(flop, margin))
    integers = Figures(0, None, figures.high_flop) if mixed else _NOTHING
    return Row(Evidence.COUNT, None, UNDECLARED, 0, tally.known_ns(Evidence.COUNT), figures, integers, margin, mixed)


def _deviation(square_sum: int, known_ns: int, rating: Rating) -> int:
    """How far a sum of random samples of the clock may be off, in SM-cycles; 0 where the clock was not sampled."""
    if not square_sum or not isinstance(rating.limits, Limits):
        return 0
    widest, whole = (max_plausible_sm_cycles(rating.limits, ns) for ns in (SLOT_MAX_NS, known_ns))
    return deviation(square_sum, widest, whole)


def _most_busy(tally: Tally, rating: Rating) -> int:
    """The most SM-cycles in which anything ran: by the maximum clock, or by the sampled one where that is less."""
    busy, sampled = tally.busy_sm_cycles, tally.sampled_busy_sm_cycles
    if not 0 < sampled <= busy or not isinstance(rating.limits, Limits):
        return busy
    doubt = _deviation(tally.clocked_square_sum, tally.known_ns(Evidence.UTILIZATION), rating)
    return busy - sampled + min(sampled, tally.clocked_sm_cycles + doubt)


def _unread(pipe: Pipe, duration_ns: int, rating: Rating) -> Row:
    """The row of a pipe that was not read while the others were: it may have run all the time."""
    highs: list[int | None] = [None, None]
    if (part := rating.part) is not None and isinstance(rating.limits, Limits):
        most, bounds = max_sm_cycles(rating.limits, duration_ns), rating.table.bounds(part, pipe, rating.precision)
        highs = [None if bound is None else most * bound for bound in bounds]
    flop, integers = (Figures(0, None, high) for high in highs)
    return Row(Evidence.GAP, pipe, precision_label(pipe, rating), 0, duration_ns, flop, integers)


def takes_a_declaration(pipe: Pipe | None) -> bool:
    """Whether the format of a pipe's work comes from a declaration; other pipes have a fixed format."""
    return pipe not in _FIXED_FORMAT


def precision_label(pipe: Pipe | None, rating: Rating) -> str:
    """The number format in which a pipe's FLOP are counted: fixed by the pipe, declared, or `undeclared`."""
    if (known := rating._labels.get(pipe)) is None:
        known = rating._labels[pipe] = _label(pipe, rating)
    return known


def _label(pipe: Pipe | None, rating: Rating) -> str:
    if pipe in _FIXED_FORMAT:
        return _FIXED_FORMAT[pipe]
    declared = None if rating.part is None else rating.part.declared(pipe, rating.precision)
    return UNDECLARED if declared is None else declared.label


def _minus_margin(flop: int, margin_ppm: int) -> int:
    return flop * (PPM - margin_ppm) // PPM


def _plus_margin(flop: int, margin_ppm: int) -> int:
    return ceil_div(flop * (PPM + margin_ppm), PPM)
