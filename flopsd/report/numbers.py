"""Numbers for a report, each with its exact value. Lower bounds are rounded down, upper bounds up."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from flopsd.core.dataclass import dataclass
from flopsd.core.figures import Figures
from flopsd.core.model import PPM
from flopsd.core.policy.guidelines import MARGIN_PPM
from flopsd.core.rounding import Towards, flop_number, format_duration, format_energy, format_percent

NO_UPPER_BOUND = "no upper bound is known"
NO_MEASURED = "no measured figure"
NOTHING_MEASURED = "nothing was measured"
IN_OTHER_ROWS = "in the time of other rows"


@dataclass(frozen=True, slots=True)
class Amount:
    """A number as shown, and its exact value."""

    text: str
    exact: str


@dataclass(frozen=True, slots=True)
class Interval:
    """Figures as shown. `measured`: None if nothing was measured. `high`: None if no upper bound is known."""

    low: Amount
    measured: Amount | None
    high: Amount | None
    is_in_other_rows: bool = False  # a process counted it in the time of other rows, which hold its bound

    @property
    def ends(self) -> str:
        """From the lower to the upper bound: `1.53x10^15 to 1.16x10^16 FLOP`."""
        return self.ends_in("FLOP")

    def ends_in(self, unit: str) -> str:
        if self.high is None:
            return f"at least {self.low.text} {unit}; {NO_UPPER_BOUND}"
        if self.is_in_other_rows:
            return f"at least {self.low.text} {unit}, {IN_OTHER_ROWS}"
        return f"{self.low.text} to {self.high.text} {unit}"

    def facts(self, absent: str, middle: str = "measured") -> list[tuple[str, str]]:
        """The three figures, always together; `absent` replaces a middle figure that does not exist."""
        return [
            (middle, absent if self.measured is None else f"{self.measured.text} FLOP"),
            ("at least", f"{self.low.text} FLOP"),
            ("at most", NO_UPPER_BOUND if self.high is None else f"{self.high.text} FLOP"),
        ]


@dataclass(frozen=True, slots=True)
class OnlyIf:
    """The only base models that could put a run above a rule. `width`: the width of their range of compute, in FLOP."""

    words: str
    width: int


@dataclass(frozen=True, slots=True)
class Distance:
    """The upper bound of a run as a fraction of the lowest possible threshold of a rule, which is `lowest` FLOP."""

    at_most: Fraction
    lowest: Fraction
    with_base: bool  # whether the base model's compute is in it


def flop(value: int | Fraction, towards: Towards = Towards.NEAREST) -> Amount:
    return Amount(flop_number(value, towards), f"{value} FLOP")


def interval(figures: Figures) -> Interval:
    low, measured, high = figures.low_flop, figures.measured_flop, figures.high_flop
    return Interval(
        flop(low, Towards.DOWN),
        None if measured is None else flop(measured),
        None if high is None else flop(high, Towards.UP),
        high is not None and high < low,
    )


def figures_text(figures: Figures, absent: str = "no single figure") -> str:
    """`3.25x10^15 FLOP (1.53x10^15 to 1.16x10^16 FLOP)`; `absent` replaces a figure that does not exist."""
    value = interval(figures)
    return f"{absent if value.measured is None else value.measured.text + ' FLOP'} ({value.ends})"


def coverage_words(share: Fraction | None, job: Fraction, elsewhere: Fraction, *, is_open: bool, here: str = "") -> str:
    """`96.1 % of 6.5 min of device time`. `share`: None if there is no time; `job`, `elsewhere`: device time in seconds
    that was this job's, and that was not; `is_open`: whether gaps are of unknown length; `here`: what is covered."""
    most, least = ("at most ", "at least ") if is_open else ("", "")
    known = "unknown:" if share is None else f"{most}{format_percent(share, Towards.DOWN)} of"
    more = (
        f" ({format_duration(elsewhere)} more is not counted: another job's or device's, as the daemon states)"
        if elsewhere
        else ""
    )
    return f"{known} {least}{format_duration(job)} of device time{here}{more}"


def beyond_margin(figures: Figures) -> str:
    """A note if the interval is wider than an estimate's may be and there is a point figure; else empty."""
    point, high = figures.measured_flop, figures.high_flop
    if not point or (high is not None and max(high - point, point - figures.low_flop) * PPM <= MARGIN_PPM * point):
        return ""
    return f"the bounds are wider than the {percent(MARGIN_PPM)} either way that paragraph 120 allows an estimate"


def left_out(executed: Figures, guidelines: Figures) -> str:
    """A note on the part of the upper bound that no rule counts, as the settings declare it evaluation; else empty."""
    if executed.high_flop is None or guidelines.high_flop is None or executed.high_flop <= guidelines.high_flop:
        return ""
    most = flop(executed.high_flop - guidelines.high_flop, Towards.UP).text
    return f"up to {most} FLOP that were executed: the settings declare them as evaluation, which no counter shows"


def integers_text(figures: Figures) -> str:
    """Integer operations, which are not FLOP: `3.2x10^15 (3.04x10^15 to 3.36x10^15 integer operations)`."""
    if figures.high_flop == 0:
        return "none"
    value = interval(figures)
    point = "not distinguished by the counters" if value.measured is None else value.measured.text
    return f"{point} ({value.ends_in('integer operations')})"


def integer_facts(may_be_integer: str, figures: Figures) -> list[tuple[str, str]]:
    """Integer operations, and how much of the measured FLOP may be integer operations."""
    rows = [("integers", integers_text(figures))]
    if mixed := int(may_be_integer):
        shown = flop(mixed, Towards.UP).text
        rows.append(("integers", f"{shown} FLOP of what was measured may be integer: no counter distinguishes them"))
    return rows


def percent(ppm: int, towards: Towards = Towards.NEAREST) -> str:
    """Parts per million as percent."""
    return format_percent(Fraction(ppm, PPM), towards)


def duration(seconds: Fraction) -> Amount:
    return Amount(format_duration(seconds), f"{_plain(seconds)} s")


def energy(joules: Fraction) -> Amount:
    return Amount(format_energy(joules), f"{_plain(joules)} J")


PJ_PER_FLOP = " pJ/FLOP"


def fj_per_flop(low: int, high: int | None) -> str:
    """Energy per FLOP from `low` to `high` femtojoules, shown in picojoules."""
    least, *most = (f"{fj // 1000}.{fj % 1000:03d}" for fj in (low, high) if fj is not None)
    if not most:
        return f"at least {least}{PJ_PER_FLOP}"
    return f"{least if most == [least] else f'{least} to {most[0]}'}{PJ_PER_FLOP}"


def _plain(value: Fraction) -> str:
    return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
