"""FLOP numbers as exact integers."""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(r"[0-9]{1,60}(?:\.[0-9]{1,60})?(?:[eE]\+?[0-9]{1,2})?", re.ASCII)


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


def ceil_div(numerator: int, denominator: int) -> int:
    """The quotient of two ints, rounded towards plus infinity."""
    return -(-numerator // denominator)
