"""FLOP numbers as exact integers: reading them, and showing them to people."""

from __future__ import annotations

import re
from decimal import Decimal

from flopsd.core.rounding import Towards, divided

_NUMBER = re.compile(r"[0-9]{1,60}(?:\.[0-9]{1,60})?(?:[eE]\+?[0-9]{1,2})?", re.ASCII)
_PREFIXES = (("R", 27), ("Y", 24), ("Z", 21), ("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3))


def parse_flop(value: object) -> int:
    """An exact FLOP count from an int or from text such as "1e25" or "989.4e12".

    Raises ValueError for floats (they have lost digits already), negatives and fractions of a FLOP.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is not an exact count: write it as a whole number or as text like '1e25'")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is negative")
        return value
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{value!r} is not a count like '33' or '1e25'")
    number = Decimal(value)
    whole = int(number)
    if number != whole:
        raise ValueError(f"{value!r} is not a whole number")
    return whole


def format_flop(flop: int | None, unit: str = "FLOP", towards: Towards = Towards.NEAREST) -> str:
    """A count for people with three decimals and an SI prefix. A lower end is rounded down, an upper end up.

    `None` is shown as "unknown": a missing figure never looks like zero.
    """
    if flop is None:
        return "unknown"
    for prefix, exponent in _PREFIXES:
        if flop >= 10**exponent:
            whole, part = divmod(divided(flop, 10 ** (exponent - 3), towards), 1000)
            return f"{whole}.{part:03} {prefix}{unit}"
    return f"{flop} {unit}"


def ceil_div(numerator: int, denominator: int) -> int:
    """The quotient of two ints, rounded towards plus infinity."""
    return -(-numerator // denominator)
