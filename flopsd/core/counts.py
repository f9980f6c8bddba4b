"""Amounts as ledgers write them, read back. Pure."""

from __future__ import annotations

import re
from typing import Any

_COUNT = re.compile("0|[1-9][0-9]{0,39}")
_SIGNED = re.compile("0|-?[1-9][0-9]{0,39}")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,39})\.([0-9]+)")


def whole_number(text: Any, *, signed: bool = False) -> int:
    """A count; only a time on a clock may be `signed`. Raises TypeError or ValueError on anything else."""
    if not (_SIGNED if signed else _COUNT).fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a {'whole number' if signed else 'count'}")
    return int(text)


def nanoseconds(text: Any) -> int:
    """A duration in seconds with nine decimals, the inverse of `seconds`. Raises TypeError or ValueError."""
    return _scaled(text, 9)


def millijoules(text: Any) -> int:
    """Joules with three decimals. Raises TypeError or ValueError."""
    return _scaled(text, 3)


def _scaled(text: Any, decimals: int) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None or len(match[2]) != decimals:
        raise ValueError(f"{text[:80]!r} is not an amount with {decimals} decimals")
    amount: int = int(match[1]) * 10**decimals + int(match[2])
    return amount
