"""Counts, durations, energy and times as ledgers write them, and read back. Pure."""

from __future__ import annotations

import re
from typing import Any, TypeGuard

_COUNT = re.compile("0|[1-9][0-9]{0,39}")
_SIGNED = re.compile("0|-?[1-9][0-9]{0,39}")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,39})\.([0-9]+)")


def is_whole(value: Any, *, signed: bool = False) -> TypeGuard[int]:
    """Whether `value` is an int, which a bool is not, and not below zero unless `signed`."""
    return isinstance(value, int) and not isinstance(value, bool) and (signed or value >= 0)


def whole_number(text: Any, *, signed: bool = False) -> int:
    """A count; only a time on a clock may be `signed`. Raises TypeError or ValueError on anything else."""
    if not (_SIGNED if signed else _COUNT).fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a {'whole number' if signed else 'count'}")
    return int(text)


def seconds(duration_ns: int) -> str:
    """Nanoseconds as exact decimal seconds."""
    sign = "-" if duration_ns < 0 else ""
    whole, rest = divmod(abs(duration_ns), 1_000_000_000)
    return f"{sign}{whole}.{rest:09d}"


def joules(energy_mj: int | None) -> str | None:
    """Millijoules as exact decimal joules; None: not known."""
    return None if energy_mj is None else f"{energy_mj // 1000}.{energy_mj % 1000:03d}"


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


_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?Z", re.ASCII)


def span_seconds(begin: str, end: str) -> int:
    """Seconds from one RFC 3339 time in UTC to another, fractions cut off; 0 if the clock went back between them.

    Raises ValueError for other text.
    """
    return max(0, _seconds(end) - _seconds(begin))


def _seconds(text: str) -> int:
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.60} is no time in UTC such as 2026-11-02T10:00:00Z")
    year, month, day, hour, minute, second = (int(part) for part in found.groups())
    return _days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second


def _days(year: int, month: int, day: int) -> int:
    """Days in the Gregorian calendar since 1 March of year 0: with years that begin in March the leap day is last."""
    shifted = year - (month < 3)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400 + of_year
