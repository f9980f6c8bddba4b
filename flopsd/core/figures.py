"""From tallies to FLOP: low, measured and high, row by row. Pure and exact.

The rounding is one-sided: low is rounded down and high up, so that no figure is narrower than it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from flopsd.core.clock_bound import SLOT_MAX_NS, deviation
from flopsd.core.meter import max_plausible_sm_cycles, max_sm_cycles
from flopsd.core.model import (
    ESTIMATING,
    NO_FIGURES,
    PPM,
    UNDECLARED_PHASE,
    ChipLimits,
    Evidence,
    Figures,
    Limits,
    Pipe,
    Precision,
    Tally,
)
from flopsd.core.peaks import TENSOR_PIPES, Part, PeakTable
from flopsd.core.phases import remainder, split_bucket
from flopsd.core.values import ceil_div

UNDECLARED = "undeclared"
_FIXED_FORMAT: Mapping[Pipe, str] = {Pipe.TENSOR_IMMA: "int8", Pipe.TENSOR_DFMA: "fp64"}
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Rating:
    """What turns one device's cycles into FLOP. `part` is None for an unknown device."""

    part: Part | None
    limits: Limits | ChipLimits | None
    precision: Precision | None


@dataclass(frozen=True, slots=True)
class Row:
    """One disjoint share of a total. `pipe` is None where work is only bounded or counted whole."""

    evidence: Evidence
    pipe: Pipe | None
    precision: str
    sm_cycles: int
    duration_ns: int
    figures: Figures
    clock_uncertainty_flop: int = 0  # how much of the distance from measured, both ways, comes from the clock alone
    phase: str = UNDECLARED_PHASE
    declared_by: str | None = None  # who declared the format, where a process did


def rows(tally: Tally, rating: Rating, table: PeakTable) -> list[Row]:
    """The rows of one tally, by phase; they are disjoint and their sum is its total."""
    if not tally.phases:
        return _rows(tally, rating, table)
    found = []
    for name, share in sorted(tally.phases.items()):
        phase, precision = split_bucket(name)
        declared = replace(rating, precision=rating.precision or precision)
        by = None if declared.precision is None else declared.precision.declared_by
        found += [replace(row, phase=phase, declared_by=by) for row in _rows(share, declared, table)]
    return [*found, *_rows(remainder(tally), rating, table)]


def by_phase(tally: Tally, found: Iterable[Row]) -> dict[str, Figures]:
    """The figures of one tally by phase; `found` are its rows."""
    figures: dict[str, Figures] = {}
    for row in found:
        figures[row.phase] = figures.get(row.phase, NO_FIGURES) + row.figures
    left = remainder(tally) if tally.phases else tally
    for name, share in (*tally.phases.items(), (UNDECLARED_PHASE, left)):
        phase = name.partition("@")[0]
        known = figures.get(phase, NO_FIGURES)
        if known.measured_flop is None and any(evidence in share.observed_ns for evidence in ESTIMATING):
            figures[phase] = replace(known, measured_flop=0)  # read, and idle
    return figures


def _rows(tally: Tally, rating: Rating, table: PeakTable) -> list[Row]:
    found = [
        _active(evidence, pipe, cycles, tally, rating, table)
        for (evidence, pipe), cycles in sorted(tally.active_sm_cycles.items())
    ]
    found += [_unread(pipe, ns, rating, table) for pipe, ns in sorted(tally.unread_ns.items())]
    if Evidence.COUNT in tally.observed_ns:
        flop, margin = tally.counted_flop, table.margin_ppm(Evidence.COUNT)
        figures = Figures(_less(flop, margin), flop, _more(flop, margin))
        found.append(Row(Evidence.COUNT, None, UNDECLARED, 0, tally.known_ns(Evidence.COUNT), figures))
    label = precision_label(None, rating)
    if Evidence.UTILIZATION in tally.observed_ns:
        rate, known_ns = _ceiling_rate(rating, table), tally.known_ns(Evidence.UTILIZATION)
        figures = Figures(0, None, None if rate is None else tally.busy_sm_cycles * rate)
        found.append(Row(Evidence.UTILIZATION, None, label, tally.busy_sm_cycles, known_ns, figures))
    if tally.unknown_ns:
        figures = Figures(0, None, gap_ceiling_flop(tally.unknown_ns, rating, table))
        found.append(Row(Evidence.GAP, None, label, 0, tally.unknown_ns, figures))
    return found


def total_of(found: Iterable[Row], tally: Tally) -> Figures:
    """The three figures of one tally, from its rows."""
    figures = sum_figures(row.figures for row in found)
    if figures.measured_flop is None and any(e in tally.observed_ns for e in ESTIMATING):
        # Every pipe was read and every pipe was idle: that is a measured zero.
        return Figures(figures.low_flop, 0, figures.high_flop)
    return figures


def sum_figures(parts: Iterable[Figures]) -> Figures:
    """The sum; nothing measured plus nothing measured stays unmeasured, unbounded stays unbounded."""
    whole = NO_FIGURES
    for part in parts:
        whole += part
    return whole


def gap_ceiling_flop(gap_ns: int, rating: Rating, table: PeakTable) -> int | None:
    """What a device could have done at most in `gap_ns`, or None where no ceiling is known."""
    if isinstance(rating.limits, ChipLimits):
        return ceil_div(gap_ns * rating.limits.flop_per_s, NS_PER_S)
    rate = _ceiling_rate(rating, table)
    if rate is None or rating.limits is None:
        return None
    return ceil_div(gap_ns * rating.limits.sm_count * rating.limits.sm_clock_max_mhz * rate, 1000)


def _active(evidence: Evidence, pipe: Pipe, cycles: int, tally: Tally, rating: Rating, table: PeakTable) -> Row:
    label, margin = precision_label(pipe, rating), table.margin_ppm(evidence)
    duration_ns = tally.known_ns(evidence)
    if rating.part is None:
        return Row(evidence, pipe, label, cycles, duration_ns, Figures(0, None, None))
    doubt = tally.uncertainty_sm_cycles.get((evidence, pipe), 0) + _deviation(evidence, pipe, tally, rating)
    rates = rating.part.rates(pipe, rating.precision)
    low = _less(max(0, cycles - doubt) * rates.low, margin) if rates.low is not None else 0
    measured = cycles * rates.measured if rates.measured is not None else None
    bound = rates.high if rates.high is not None else table.unrated_bound(rating.part, pipe)
    high = _more((cycles + doubt) * bound, margin) if bound is not None else None
    return Row(evidence, pipe, label, cycles, duration_ns, Figures(low, measured, high), doubt * (rates.measured or 0))


def _deviation(evidence: Evidence, pipe: Pipe, tally: Tally, rating: Rating) -> int:
    """How far a sum of random samples of the clock may be off, in SM-cycles; 0 where it was not sampled so."""
    square_sum = tally.square_sum.get((evidence, pipe), 0)
    if not square_sum or not isinstance(rating.limits, Limits):
        return 0
    widest, whole = (max_plausible_sm_cycles(rating.limits, ns) for ns in (SLOT_MAX_NS, tally.known_ns(evidence)))
    return deviation(square_sum, widest, whole)


def _unread(pipe: Pipe, duration_ns: int, rating: Rating, table: PeakTable) -> Row:
    """A pipe that was not read while the others were: it may have run all the time."""
    high: int | None = None
    if rating.part is not None and isinstance(rating.limits, Limits):
        known = rating.part.rates(pipe, rating.precision).high
        bound = known if known is not None else table.unrated_bound(rating.part, pipe)
        high = max_sm_cycles(rating.limits, duration_ns) * bound if bound is not None else None
    return Row(Evidence.GAP, pipe, precision_label(pipe, rating), 0, duration_ns, Figures(0, None, high))


def _ceiling_rate(rating: Rating, table: PeakTable) -> int | None:
    return table.ceiling_flop_per_cycle(rating.part, rating.precision) if rating.part is not None else None


def takes_a_declaration(pipe: Pipe | None) -> bool:
    """Whether a declaration gives the format of a pipe's work; other pipes have a fixed one."""
    return pipe is None or (pipe in TENSOR_PIPES and pipe not in _FIXED_FORMAT)


def precision_label(pipe: Pipe | None, rating: Rating) -> str:
    """The format that a pipe's FLOP are counted in: fixed by the pipe, declared, or `undeclared`."""
    if pipe is not None and not takes_a_declaration(pipe):
        return _FIXED_FORMAT.get(pipe, pipe.value)
    declared = None if rating.part is None else rating.part.declared(pipe, rating.precision)
    return UNDECLARED if declared is None else declared.label


def _less(flop: int, margin_ppm: int) -> int:
    return flop * (PPM - margin_ppm) // PPM


def _more(flop: int, margin_ppm: int) -> int:
    return ceil_div(flop * (PPM + margin_ppm), PPM)
