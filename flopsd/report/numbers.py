"""Numbers for people, each with the exact one beside it. Lower ends round down, upper ends round up."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

from flopsd.core.model import Figures

DOWN, NEAREST, UP = ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_CEILING
SIGNIFICANT = 3
TIMES = "\N{MULTIPLICATION SIGN}"
NO_UPPER_BOUND = "no upper bound is known"
GROUP = "\N{NARROW NO-BREAK SPACE}"
TIMES_WORD = " times"
NO_MEASURED = "no measured figure"
NOTHING_MEASURED = "nothing was measured"
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_JOULES_PER_WH = 3600


@dataclass(frozen=True, slots=True)
class Amount:
    """A number as it is shown, and exactly."""

    text: str
    exact: str


@dataclass(frozen=True, slots=True)
class Interval:
    """Figures as they are shown. `measured` is None where nothing was, `high` where no upper bound is known."""

    low: Amount
    measured: Amount | None
    high: Amount | None

    @property
    def ends(self) -> str:
        """From the lower to the upper end, in words."""
        high = NO_UPPER_BOUND if self.high is None else f"{self.high.text} FLOP"
        if self.high is None:
            return f"at least {self.low.text} FLOP; {high}"
        return f"{self.low.text} to {high}"


def power(exponent: int) -> str:
    """`10²³`."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def scientific(value: int | Fraction, rounding: str = NEAREST, digits: int = SIGNIFICANT) -> str:
    """Mantissa and power of ten, no unit; whole numbers below a thousand and whole powers of ten as they are."""
    exact = Fraction(value)
    if exact.denominator == 1 and exact < 1000:
        return str(exact.numerator)
    number = Context(prec=digits, rounding=rounding).divide(Decimal(exact.numerator), Decimal(exact.denominator))
    exponent = number.adjusted()
    mantissa = number.scaleb(-exponent)
    if exact == Fraction(10) ** exponent:
        return power(exponent)
    if exponent < 3 and exact.denominator != 1:
        return f"{number:f}"
    return f"{mantissa:.{digits - 1}f} {TIMES} {power(exponent)}"


def flop(value: int, rounding: str = NEAREST) -> Amount:
    return Amount(scientific(value, rounding), f"{value} FLOP")


def fraction(value: Fraction) -> Amount:
    """An exact fraction, such as a threshold."""
    exact = str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"
    return Amount(scientific(value), f"{exact} FLOP")


def interval(figures: Figures) -> Interval:
    measured, high = figures.measured_flop, figures.high_flop
    return Interval(
        flop(figures.low_flop, DOWN),
        None if measured is None else flop(measured),
        None if high is None else flop(high, UP),
    )


def percent(ppm: int, rounding: str = NEAREST) -> str:
    """Parts per million as per cent, with about three digits."""
    value = Decimal(ppm) / 10_000
    step = Decimal(1) if value >= 100 else Decimal("0.1") if value >= 10 else Decimal("0.01")
    if value < Decimal("0.1"):
        step = Decimal("0.0001")
    shown = value.quantize(step, rounding=rounding)
    text = f"{shown:f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def times(ppm: int, rounding: str = NEAREST) -> str:
    """Parts per million as a multiple, with three digits."""
    number = Context(prec=SIGNIFICANT, rounding=rounding).divide(Decimal(ppm), Decimal(1_000_000))
    text = f"{number:f}" if number < 10**6 else scientific(Fraction(ppm, 1_000_000), rounding)
    return text + TIMES_WORD


def duration(seconds: Fraction) -> Amount:
    """A time in the unit that suits it."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if abs(seconds) < limit:
            return Amount(f"{_short(seconds / size)} {unit}", f"{_plain(seconds)} s")
    return Amount(f"{_short(seconds / 86_400)} days", f"{_plain(seconds)} s")


def energy(joules: Fraction) -> Amount:
    """Joules, or watt-hours where they are many."""
    exact = f"{_plain(joules)} J"
    if joules < _JOULES_PER_WH:
        return Amount(f"{_short(joules)} J", exact)
    for unit, size in (("Wh", 1), ("kWh", 10**3), ("MWh", 10**6)):
        if joules < _JOULES_PER_WH * size * 1000 or unit == "MWh":
            return Amount(f"{_short(joules / (_JOULES_PER_WH * size))} {unit}", exact)
    raise AssertionError("MWh takes the rest")


def grouped(value: int) -> str:
    """`1 234 567`, with spaces that do not break."""
    return f"{value:,}".replace(",", GROUP)


def _short(value: Fraction) -> str:
    """Three significant digits, no exponent."""
    if value == 0:
        return "0"
    number = Context(prec=6, rounding=NEAREST).divide(Decimal(value.numerator), Decimal(value.denominator))
    decimals = max(0, SIGNIFICANT - 1 - number.adjusted())
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plain(value: Fraction) -> str:
    return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
