"""Numbers as flopsd writes them for people, read back."""

from __future__ import annotations

from fractions import Fraction

from flopsd.core.rounding import DAY_S, YEAR_S

_SECONDS = {
    "ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600), "days": Fraction(DAY_S),
    "years": Fraction(YEAR_S),
}  # fmt: skip


def value(text: str) -> Fraction:
    """`1.23x10^24`, `10^24` or `660 000`."""
    mantissa, power, exponent = text.replace(" ", "").rpartition("10^")
    if not power:
        return Fraction(exponent)
    return Fraction(mantissa.removesuffix("x") or "1") * Fraction(10) ** int(exponent)


def seconds_in(text: str) -> Fraction:
    """`under 0.1 ms` is read as its bound."""
    number, _, unit = text.removeprefix("under ").rpartition(" ")
    return value(number) * _SECONDS[unit]
