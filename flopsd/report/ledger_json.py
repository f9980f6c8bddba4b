"""The members of a ledger by type. What is not as a ledger has it is refused by its place, never guessed at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

from flopsd.core.envelope import is_timestamp, parse_count
from flopsd.core.model import Figures
from flopsd.errors import LedgerError
from flopsd.report.ledger_text import one_line
from flopsd.system.clock import NS_PER_S

MAX_TEXT = 2000
_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]{0,29})\.([0-9]{1,9})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class LedgerObject:
    """One JSON object of a ledger. Getters raise LedgerError where a member is missing or of another type;
    those that begin with `maybe_` give None where it is null or, as in an older ledger, not there."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise LedgerError(f"{path} is not an object", hint=HINT)
        self._members, self.path = value, path

    def __contains__(self, name: str) -> bool:
        return self._members.get(name) is not None

    @property
    def mapping(self) -> Mapping[str, Any]:
        """All of it, for code that reads it by itself."""
        return self._members

    def names(self) -> tuple[str, ...]:
        """The names as they stand: to look up with, not to show."""
        return tuple(self._members)

    def raw(self, name: str) -> Any:
        """The member as JSON has it; null where it is not there."""
        return self._members.get(name)

    def text(self, name: str) -> str:
        """One printable line."""
        value = self._needed(name)
        if not isinstance(value, str):
            raise self.fault(name, "a text")
        return line(value)

    def maybe_text(self, name: str) -> str | None:
        return self.text(name) if name in self else None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where there is none."""
        found = self._list(name)
        if not all(isinstance(value, str) for value in found):
            raise self.fault(name, "a list of texts")
        return tuple(line(value) for value in found)

    def flag(self, name: str) -> bool | None:
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            raise self.fault(name, "true, false or null")
        return value

    def count(self, name: str) -> int:
        """A count in a decimal string, or one of the few whole numbers that a ledger holds."""
        value = self._needed(name)
        try:
            return value if isinstance(value, int) and not isinstance(value, bool) else parse_count(value)
        except ValueError:
            raise self.fault(name, "a count") from None

    def maybe_count(self, name: str) -> int | None:
        return self.count(name) if name in self else None

    def fraction(self, name: str) -> Fraction:
        """An exact fraction, `N` or `N/D`, above zero."""
        value = self._needed(name)
        above, _, below = value.partition("/") if isinstance(value, str) else ("", "", "")
        try:
            found = Fraction(parse_count(above), parse_count(below or "1"))
        except (ValueError, ZeroDivisionError):
            raise self.fault(name, "a fraction") from None
        if found <= 0:
            raise self.fault(name, "a fraction above zero")
        return found

    def decimal(self, name: str) -> Fraction:
        """A decimal text such as seconds or joules."""
        value = self._needed(name)
        match = _DECIMAL.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise self.fault(name, "a number with decimals in a text")
        amount = Fraction(int(match[2] + match[3]), 10 ** len(match[3]))
        return -amount if match[1] else amount

    def maybe_decimal(self, name: str) -> Fraction | None:
        return self.decimal(name) if name in self else None

    def moment_ns(self, name: str) -> int:
        """A time in UTC, in nanoseconds since the Unix epoch."""
        value = self._needed(name)
        if not is_timestamp(value):
            raise self.fault(name, "a time in UTC")
        whole, _, rest = value[:-1].partition(".")
        try:
            moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        except ValueError:
            raise self.fault(name, "a time in UTC") from None
        return (moment - _EPOCH) // timedelta(seconds=1) * NS_PER_S + int(rest.ljust(9, "0") or "0")

    def figures(self, name: str | None = None, middle: str = "measured") -> Figures:
        """Low, measured and high of the member, or of this object itself."""
        told = self if name is None else self.object(name)
        return Figures(told.count("low"), told.maybe_count(middle), told.maybe_count("high"))

    def object(self, name: str) -> LedgerObject:
        return LedgerObject(self._needed(name), f"{self.path}.{line(name)}")

    def maybe_object(self, name: str) -> LedgerObject | None:
        return self.object(name) if name in self else None

    def objects(self, name: str) -> Iterator[LedgerObject]:
        """The objects of a list, one by one; none where there is no list."""
        for at, value in enumerate(self._list(name)):
            yield LedgerObject(value, f"{self.path}.{name}[{at}]")

    def items(self, name: str) -> Iterator[tuple[str, LedgerObject]]:
        """Name and object of each member of a map; none where there is no map."""
        found = self.maybe_object(name)
        for key in () if found is None else found.names():
            assert found is not None
            yield line(key), found.object(key)

    def _list(self, name: str) -> list[Any]:
        value = self.raw(name)
        if value is not None and not isinstance(value, list):
            raise self.fault(name, "a list")
        return value or []

    def _needed(self, name: str) -> Any:
        value = self.raw(name)
        if value is None:
            raise LedgerError(f"{self.path} has no {line(name)}", hint=HINT)
        return value

    def fault(self, name: str, wanted: str) -> LedgerError:
        """The error that says that a member is not as a ledger has it."""
        return LedgerError(f"{self.path}.{line(name)} is not {wanted}", hint=HINT)


HINT = "this is not what flopsd writes: ask whoever gave you the ledger, and verify it with --key"


def line(text: object) -> str:
    """A text of a ledger as one printable line of bearable length."""
    found = one_line(str(text)[: MAX_TEXT + 1])
    return found if len(found) <= MAX_TEXT else f"{found[:MAX_TEXT]}… (cut)"
