"""Rounding to significant figures on exact numbers, never through a float. Pure."""

from __future__ import annotations

from enum import Enum
from fractions import Fraction


class Towards(Enum):
    """Which way. A lower end goes down and an upper end up, so that what is told still holds."""

    NEAREST = "nearest"  # half to even
    DOWN = "down"
    UP = "up"


def divided(numerator: int, denominator: int, towards: Towards) -> int:
    """The quotient of two ints as a whole number."""
    if towards is Towards.NEAREST:
        return round(Fraction(numerator, denominator))
    return numerator // denominator if towards is Towards.DOWN else -(-numerator // denominator)


def significant(number: Fraction | int, figures: int, towards: Towards = Towards.NEAREST) -> tuple[int, int]:
    """`(digits, exponent)` with number ~ digits x 10^exponent and `figures` digits; (0, 0) for zero.

    Raises ValueError for a negative number or no figures.
    """
    exact = Fraction(number)
    if exact < 0 or figures < 1:
        raise ValueError("expected a number that is not negative, and one figure at least")
    if exact == 0:
        return 0, 0
    exponent = magnitude(exact) - figures + 1
    scaled = exact / Fraction(10) ** exponent
    digits = divided(scaled.numerator, scaled.denominator, towards)
    if digits == 10**figures:
        return 10 ** (figures - 1), exponent + 1
    return digits, exponent


def magnitude(number: Fraction | int) -> int:
    """The exponent of the highest power of ten that is not above `number`. Raises ValueError unless it is positive."""
    exact = Fraction(number)
    if exact <= 0:
        raise ValueError("only a positive number has an order of magnitude")
    guess = len(str(exact.numerator)) - len(str(exact.denominator))
    return guess if exact >= Fraction(10) ** guess else guess - 1


def scientific(number: Fraction | int, figures: int, towards: Towards = Towards.NEAREST) -> str:
    """`2.3x10^25`, as the Guidelines write it; `0` for zero."""
    digits, exponent = significant(number, figures, towards)
    if digits == 0:
        return "0"
    text = str(digits)
    return f"{text[0]}{'.' + text[1:] if len(text) > 1 else ''}x10^{exponent + len(text) - 1}"


def plain(number: Fraction | int, figures: int, towards: Towards = Towards.NEAREST) -> str:
    """The same without a power of ten where that is short: `0.012`, `370`; else as `scientific`."""
    digits, exponent = significant(number, figures, towards)
    if digits and not -9 <= exponent <= 6 - figures:
        return scientific(number, figures, towards)
    if exponent >= 0:
        return str(digits * 10**exponent)
    whole, part = divmod(digits, 10**-exponent)
    return f"{whole}.{part:0{-exponent}d}"
