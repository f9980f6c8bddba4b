"""Number formats for people: the one notation for FLOP, rates, shares, times and energy. Pure.

All functions compute with exact numbers, never floats, and return ASCII, so that any terminal can show it;
`report/html/kit.py` typesets it for a page. JSON holds the exact numbers instead.
"""

from __future__ import annotations

from enum import Enum
from fractions import Fraction

FIGURES = 3  # significant digits of a FLOP count, a rate, a multiple
FACTOR = 100  # a ratio this far from 1 is shown as a factor, not as a percentage
DAY_S = 86_400
YEAR_S = 31_556_952  # mean year of the Gregorian calendar
LONGEST_S = 10_000 * YEAR_S  # longer times are not told apart
_DURATIONS = (("ms", Fraction(1, 1000), Fraction(999, 1000)), ("s", 1, 120), ("min", 60, 7200), ("h", 3600, 2 * DAY_S),
              ("days", DAY_S, 730 * DAY_S), ("years", YEAR_S, LONGEST_S))  # fmt: skip
_JOULES = (("J", 1), ("Wh", 3600), ("kWh", 3_600_000), ("MWh", 3_600_000_000))


class Towards(Enum):
    """Direction of rounding. A lower bound rounds down and an upper bound up, so that the rounded bound still holds."""

    NEAREST = "nearest"  # half to even
    DOWN = "down"
    UP = "up"


def divided(numerator: int, denominator: int, towards: Towards) -> int:
    """The quotient of two ints, rounded to an int."""
    if towards is Towards.NEAREST:
        return round(Fraction(numerator, denominator))
    return numerator // denominator if towards is Towards.DOWN else -(-numerator // denominator)


def significant(number: Fraction | int, figures: int, towards: Towards = Towards.NEAREST) -> tuple[int, int]:
    """`(digits, exponent)` so that number ~ digits x 10^exponent, with `figures` digits; (0, 0) for zero. Raises
    ValueError for a negative number or `figures` below 1."""
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
    """The exponent of the largest power of ten that is not above `number`. Raises ValueError unless it is positive."""
    exact = Fraction(number)
    if exact <= 0:
        raise ValueError("only a positive number has an order of magnitude")
    guess = len(str(exact.numerator)) - len(str(exact.denominator))
    return guess if exact >= Fraction(10) ** guess else guess - 1


def scientific(number: Fraction | int, figures: int, towards: Towards = Towards.NEAREST) -> str:
    """In the Guidelines' notation: `2.3x10^25`; `0` for zero."""
    digits, exponent = significant(number, figures, towards)
    if digits == 0:
        return "0"
    text = str(digits)
    return f"{text[0]}{'.' + text[1:] if len(text) > 1 else ''}x10^{exponent + len(text) - 1}"


def plain(number: Fraction | int, figures: int, towards: Towards = Towards.NEAREST) -> str:
    """Without a power of ten if that is short: `0.012`, `370`; otherwise as `scientific`."""
    digits, exponent = significant(number, figures, towards)
    if digits and not -9 <= exponent <= 6 - figures:
        return scientific(number, figures, towards)
    if exponent >= 0:
        return str(digits * 10**exponent)
    whole, part = divmod(digits, 10**-exponent)
    return f"{whole}.{part:0{-exponent}d}"


def flop_number(count: Fraction | int, towards: Towards = Towards.NEAREST, figures: int = FIGURES) -> str:
    """A FLOP count without its unit: `1.23x10^24`; whole powers of ten and counts below a thousand are exact."""
    exact = Fraction(count)
    if exact < 1000:
        return str(exact) if exact.denominator == 1 else plain(exact, figures, towards)
    exponent = magnitude(exact)
    return f"10^{exponent}" if exact == 10**exponent else scientific(exact, figures, towards)


def format_flop(count: Fraction | int | None, towards: Towards = Towards.NEAREST) -> str:
    """`1.23x10^24 FLOP`. None is "unknown", so that a missing figure never looks like zero."""
    return "unknown" if count is None else f"{flop_number(count, towards)} FLOP"


def format_rate(flop_per_s: int | None) -> str:
    """`812 TFLOP/s`, `1.23 PFLOP/s`; below a thousandth of a TFLOP/s with a power of ten."""
    if flop_per_s is None:
        return "unknown"
    for prefix, size, least in (("P", 10**15, 10**15), ("T", 10**12, 10**9)):
        if flop_per_s >= least:
            return f"{_digits(Fraction(flop_per_s, size))} {prefix}FLOP/s"
    return f"{flop_number(flop_per_s)} FLOP/s"


def format_percent(share: Fraction | int, towards: Towards = Towards.NEAREST) -> str:
    """`62.3 %`, with about three digits and at most four decimals."""
    percent = 100 * Fraction(share)
    steps = 1 if percent >= 100 else 10 if percent >= 10 else 100 if 10 * percent >= 1 else 10_000
    return f"{_decimal(percent, steps, towards)} %"


def format_share(part: Fraction | int, threshold: Fraction, towards: Towards = Towards.NEAREST) -> str:
    """A share of a threshold: `1/660,000`, `62.3 %`, `4.21 times`. With commas, since no line may end in a number."""
    share = part / threshold
    if share and share * FACTOR < 1:
        opposite = {Towards.DOWN: Towards.UP, Towards.UP: Towards.DOWN}.get(towards, towards)
        return f"1/{_digits(1 / share, opposite, 2).replace(' ', ',')}"
    return format_percent(share, towards) if share < 2 else f"{_digits(share, towards)} times"


def share_at_most(part: Fraction | int, threshold: Fraction, of: str = "the threshold") -> str:
    """An upper bound on a share: `at most 1/660,000 of the threshold`, `at most 4.21 times the threshold`."""
    return f"at most {_share_of(format_share(part, threshold, Towards.UP), of)}"


def share_at_least(part: Fraction | int, threshold: Fraction) -> str:
    """A lower bound on a share of the threshold: `at least 4.21 times the threshold`."""
    return f"at least {_share_of(format_share(part, threshold, Towards.DOWN), 'the threshold')}"


def _share_of(share: str, whole: str) -> str:
    return f"{share} {whole}" if share.endswith("times") else f"{share} of {whole}"


def format_duration(seconds: Fraction | int, towards: Towards = Towards.NEAREST) -> str:
    """`52 s`, `5.6 min`, `3.2 h`, `12 days`: two digits, or all digits before the decimal point."""
    exact = abs(Fraction(seconds))
    if exact == 0:
        return "0 s"
    for unit, size, limit in _DURATIONS:
        if exact < limit:
            amount = exact / size
            text = _decimal(amount, 10 if amount < 10 else 1, towards)
            if text == "0" and towards is not Towards.DOWN:
                return "under 0.1 ms"
            return f"{'-' if seconds < 0 else ''}{text} {unit}"
    return "over 10 000 years"


def format_energy(joules: Fraction | int) -> str:
    """Joules, or watt-hours for larger amounts: `25.2 J`, `2.1 kWh`."""
    unit, size = next((known for known in reversed(_JOULES) if joules >= known[1]), _JOULES[0])
    return f"{_digits(Fraction(joules) / size)} {unit}"


def format_usd(amount: Fraction | int, towards: Towards = Towards.NEAREST, figures: int = FIGURES) -> str:
    """`1 980 USD`, `98.3 USD`."""
    return f"{_digits(Fraction(amount), towards, figures)} USD"


def grouped(count: int) -> str:
    """`1 234 567`."""
    return f"{count:,}".replace(",", " ")


def _digits(number: Fraction, towards: Towards = Towards.NEAREST, figures: int = FIGURES) -> str:
    """`figures` digits, without a power of ten below 10^9: `0.0152`, `4.21`, `660 000`."""
    digits, exponent = significant(number, figures, towards)
    if digits == 0:
        return "0"
    if exponent >= 0:
        whole = digits * 10**exponent
        return grouped(whole) if whole < 10**9 else scientific(number, figures, towards)
    return _decimal(number, 10**-exponent, towards)


def _decimal(number: Fraction, steps: int, towards: Towards) -> str:
    """`number` rounded to a multiple of 1/`steps` (a power of ten), without trailing zeros."""
    scaled = number * steps
    whole, part = divmod(divided(scaled.numerator, scaled.denominator, towards), steps)
    decimals = f"{part:0{len(str(steps)) - 1}d}".rstrip("0") if part else ""
    return f"{grouped(whole)}.{decimals}" if decimals else grouped(whole)
