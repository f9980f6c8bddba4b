"""Exact numbers, durations, digests and times in the notation of ledgers and settings, written and parsed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeGuard, TypeVar, cast

K = TypeVar("K")
T = TypeVar("T", int, Fraction)
_NUMBER = re.compile(r"[0-9]{1,60}(?:\.[0-9]{1,60})?(?:[eE]\+?[0-9]{1,2})?", re.ASCII)
_COUNT = re.compile("0|[1-9][0-9]{0,39}")
_SIGNED = re.compile("0|-?[1-9][0-9]{0,39}")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,39})\.([0-9]+)")
_DIGEST = re.compile("[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?Z")
NS_PER_S = 1_000_000_000
MAX_SHOWN = 60  # characters of a value or a key in a message
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether `value` is an int (not a bool) and not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def shown(value: object) -> str:
    """A value for a message: bounded, printable, in the notation of JSON and YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return repr(value)[:MAX_SHOWN]


def parse_flop(value: object) -> int:
    """An exact FLOP count from an int or from text such as "1e25" or "989.4e12". Raises ValueError for floats (which
    have already lost digits), negative numbers and fractions of a FLOP."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{shown(value)} is not an exact count: write it as a whole number or as text like '1e25'")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is negative")
        return value
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a count like '33' or '1e25'")
    number = Decimal(value)
    whole = int(number)
    if number != whole:
        raise ValueError(f"{shown(value)} is not a whole number")
    return whole


def ceil_div(numerator: int, denominator: int) -> int:
    """The quotient of two ints, rounded towards plus infinity."""
    return -(-numerator // denominator)


def added(*parts: Mapping[K, int]) -> dict[K, int]:
    """The sum of the values of each key."""
    found = dict(parts[0]) if parts else {}
    for part in parts[1:]:
        for key, value in part.items():
            found[key] = found.get(key, 0) + value
    return found


def most(numbers: Iterable[T | None]) -> T | None:
    """The largest of at least one number; None if any of them is None (not known)."""
    listed = list(numbers)
    return None if None in listed else max(number for number in listed if number is not None)


def sum_if_all_known(numbers: Iterable[int | None]) -> int | None:
    """The sum; None if any number is None (not known)."""
    listed = list(numbers)
    return None if None in listed else sum(cast("list[int]", listed))


def sum_of_known(numbers: Iterable[int | None]) -> int | None:
    """The sum of the numbers that are known; None if none is."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def is_digest(text: object) -> bool:
    """Whether `text` is a SHA-256 in ledger notation: 64 lower-case hex digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def is_timestamp(text: object) -> bool:
    """Whether `text` is a time in ledger notation: RFC 3339, UTC with `Z`, on an existing day."""
    try:
        utc_ns(text)
    except ValueError:
        return False
    return True


def utc_ns(text: object) -> int:
    """Nanoseconds since the Unix epoch of a time in ledger notation. Raises ValueError."""
    found = _TIMESTAMP.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{shown(text)} is not a time in UTC such as 2026-11-02T10:00:00Z")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    try:
        since = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc) - _EPOCH
    except ValueError as fault:
        raise ValueError(f"{text!r} is not a time that exists: {fault}") from None
    return (since.days * 86400 + since.seconds) * NS_PER_S + int((found[7] or "").ljust(9, "0"))


def text_or_none(number: int | None) -> str | None:
    """A count in ledger notation; None: not known."""
    return None if number is None else str(number)


def whole_number(text: object, *, signed: bool = False) -> int:
    """Parse a count of at most 40 digits; only times on a clock may be `signed`. Raises ValueError on anything else."""
    if not isinstance(text, str) or not (_SIGNED if signed else _COUNT).fullmatch(text):
        raise ValueError(f"{shown(text)} is not a {'whole number' if signed else 'count'}")
    return int(text)


def seconds(duration_ns: int) -> str:
    """Nanoseconds as exact decimal seconds."""
    if duration_ns < 0:
        return f"-{seconds(-duration_ns)}"
    return f"{duration_ns // NS_PER_S}.{duration_ns % NS_PER_S:09d}"


def joules(energy_mj: int | None) -> str | None:
    """Millijoules as exact decimal joules; None: not known."""
    return None if energy_mj is None else f"{energy_mj // 1000}.{energy_mj % 1000:03d}"


def nanoseconds(text: Any) -> int:
    """A duration in seconds with nine decimals, the inverse of `seconds`. Raises TypeError or ValueError."""
    return _scaled(text, 9)


def millijoules(text: Any) -> int:
    """Joules with three decimals, as millijoules. Raises TypeError or ValueError."""
    return _scaled(text, 3)


def _scaled(text: Any, decimals: int) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None or len(match[2]) != decimals:
        raise ValueError(f"{text[:80]!r} is not an amount with {decimals} decimals")
    return int(match[1] + match[2])


def span_seconds(begin: str, end: str) -> int:
    """Whole seconds from one RFC 3339 time in UTC to another, the fractions of both cut off; 0 if the clock went back
    in between. Raises ValueError for other text."""
    return max(0, utc_ns(end) // NS_PER_S - utc_ns(begin) // NS_PER_S)


def short_flop(flop: int) -> str:
    """An exact count in few characters, such as 1e23."""
    digits = str(flop).rstrip("0") or "0"
    zeros = len(str(flop)) - len(digits)
    return f"{digits}e{zeros}" if zeros > 3 else str(flop)
