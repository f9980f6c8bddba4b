"""Positions in charts, without drawing. Horizontal positions are percentages of the width, so that a chart is as wide
as its page and its letters keep their size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from flopsd.core.dataclass import dataclass
from flopsd.core.rounding import flop_number

_MARGIN = 3.0  # percent left free on each side
_MAX_TICKS = 6
_MIN_WIDTH = 0.6
WIDTH, HEIGHT = 1000, 300  # the coordinates of a growth chart


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across a chart, with its label."""

    at: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale of powers of ten that the rules of a report share. `low`, `high`: exponents."""

    low: int
    high: int

    @property
    def ticks(self) -> tuple[Mark, ...]:
        step = math.ceil((self.high - self.low) / _MAX_TICKS)
        exponents = range(-(-self.low // step) * step, self.high + 1, step)
        return tuple(Mark(self.at(Fraction(10) ** exponent), f"10^{exponent}") for exponent in exponents)

    def at(self, value: int | Fraction) -> float:
        """The position of `value` in percent of the width; a value outside the scale is at its edge."""
        share = (logarithm(value) - self.low) / (self.high - self.low) if value > 0 else 0.0
        return round(_MARGIN + (100 - 2 * _MARGIN) * min(1.0, max(0.0, share)), 2)


@dataclass(frozen=True, slots=True)
class RuleChart:
    """One rule's chart: a bar from low to high, a mark at measured, the threshold as a line or band."""

    bar_from: float
    bar_width: float
    from_zero: bool
    open_from: float | None  # where the solid bar ends if there is no upper bound
    measured: float | None
    threshold_from: float
    threshold_to: float
    threshold_label: str
    threshold_anchor: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Band:
    """A period of time, in percent of the width."""

    at: float
    width: float


@dataclass(frozen=True, slots=True)
class Strip:
    """The time of one device: `spans` accounted for elsewhere or without a daemon, and `gaps` in its readings."""

    name: str
    spans: tuple[Band, ...]
    gaps: tuple[Band, ...]
    text: str


@dataclass(frozen=True, slots=True)
class GrowthChart:
    """Compute over time, in coordinates of WIDTH x HEIGHT: paths of the band between low and high, and of measured."""

    band: str
    unbounded: bool
    line: str
    gaps: tuple[Band, ...]
    ticks: tuple[Mark, ...]
    times: tuple[Mark, ...]
    rows: tuple[tuple[str, str, str, str], ...]  # the same as a table: time, low, measured, high
    description: str


def logarithm(value: int | Fraction) -> float:
    """log10 of a positive number of any size."""
    exact = Fraction(value)
    return math.log10(exact.numerator) - math.log10(exact.denominator)


def axis_of(values: Iterable[int | Fraction]) -> Axis | None:
    """An axis that holds all positive `values`; None if there are none."""
    logarithms = [logarithm(value) for value in values if value > 0]
    if not logarithms:
        return None
    low, high = math.floor(min(logarithms) - 0.3), math.ceil(max(logarithms) + 0.3)
    if high - low < 3:
        low, high = low - 1, high + 1
    return Axis(low, high)


def width_of(begin: float, end: float) -> float:
    """The width from `begin` to `end`, at least wide enough to be visible."""
    return round(max(_MIN_WIDTH, end - begin), 2)


def anchor_at(at: float) -> str:
    """The text anchor that keeps a label at `at` within the chart."""
    return "start" if at < 40 else "end" if at > 60 else "middle"


def bands(spans: Iterable[tuple[int, int]], begin: int, end: int) -> tuple[Band, ...]:
    """Periods of time, cut to `begin` and `end`, with overlapping or adjacent ones merged."""
    length, joined = end - begin, list[list[int]]()
    for first, last in sorted((max(begin, first), min(end, last)) for first, last in spans):
        if first >= last:
            continue
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    found = []
    for first, last in joined:
        at, width = 100 * (first - begin) / length, max(0.2, 100 * (last - first) / length)
        found.append(Band(round(min(at, 100 - width), 3), round(width, 3)))
    return tuple(found)


def linear_ticks(top: int) -> tuple[int, ...]:
    """Zero and at most five round steps up to `top`."""
    if top <= 0:
        return (0,)
    raw = max(top // 4, -(-top // 5))  # the second is larger only for small numbers
    size = 10 ** (len(str(raw)) - 1)
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    return tuple(range(0, top + 1, step))


def height_of(value: int, top: int) -> float:
    """The distance of `value` from the upper edge, in the coordinates of a growth chart."""
    return round(HEIGHT - HEIGHT * (value / top), 1) if top > 0 else float(HEIGHT)


def round_number(value: int) -> str:
    """A number with its significant digits and a power of ten."""
    digits = len(str(value).rstrip("0")) or 1
    return flop_number(value, figures=digits)


def height_marks(top: int) -> tuple[Mark, ...]:
    """Horizontal lines of a growth chart, in percent of its height."""
    return tuple(Mark(round(100 * height_of(v, top) / HEIGHT, 2), f"{round_number(v)} FLOP") for v in linear_ticks(top))


def path(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through points; empty without points."""
    return "M" + " L".join(f"{x:g},{y:g}" for x, y in points) if points else ""
