"""Typed access to the fields of untrusted JSON and YAML. Pure.

A field of a wrong type is reported with its path: `path.to.key: must be a count, is true`. A bool is never a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NoReturn, TypeVar

from flopsd.core.values import MAX_SHOWN, is_whole, parse_flop, shown

MAX_WORDS = 200  # characters of what is wrong with a field
_OF_AN_ENUM = re.compile(r"(.*) is not a valid [A-Z]\w*", re.DOTALL)
_IN_JSON = {"None": "null", "True": "true", "False": "false"}
_OF_PYTHON = re.compile(
    r"could not convert|invalid literal|Exceeds the limit|cannot convert|too many values|not enough values"
    r"|non-hexadecimal|Invalid isoformat|.* codec can't"
)
# The errors that the arithmetic raises on signed fields or chained records that flopsd never writes.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration, RecursionError)
Report = Callable[[str], object]
_R = TypeVar("_R", bound="FieldReader")


def collecting(problems: list[str], where: str) -> Report:
    """A `Report` that adds each problem to the list, prefixed with the file or entry concerned."""
    return lambda problem: problems.append(f"{where}: {problem}")


def raising(error: Callable[[str], Exception]) -> Report:
    """A `Report` that raises on the first problem."""

    def report(problem: str) -> NoReturn:
        raise error(problem)

    return report


class FieldReader:
    """The fields of one mapping. `report` is called with every problem; if it returns, the getter returns a stand-in
    value, so that one pass can collect all problems. A null field counts as missing."""

    def __init__(self, value: Any, path: str, report: Report) -> None:
        """`path` locates the mapping in its document: empty for the document itself."""
        self.path, self.report = path, report
        self.mapping: Mapping[str, Any] = value if isinstance(value, Mapping) else {}  # all fields, unchecked
        if not isinstance(value, Mapping):
            kind = "text" if isinstance(value, str) else _found(value)  # a text may be a misplaced secret
            report(f"{path}{': ' if path else ''}must be a mapping, is {kind}")
            self.report = lambda _: None  # its missing fields are not reported as well

    def __contains__(self, key: str) -> bool:
        return self.mapping.get(key) is not None

    def raw(self, key: str) -> Any:
        """A field, unchecked; None if it is missing."""
        return self.mapping.get(key)

    def problem(self, key: str, text: str) -> None:
        """Report a problem with a field."""
        self.report(f"{self.at(key)}: {text}")

    def wrong(self, key: str, expected: str) -> None:
        """Report that a field does not have the expected form."""
        self.problem(key, f"must be {expected}, is {_found(self.raw(key))}")

    def at(self, key: str) -> str:
        """The path of a field."""
        return f"{self.path}.{_name(key)}" if self.path else _name(key)

    def only(self, *known: str, null: bool = False) -> None:
        """Report every field that is not `known` and, unless `null`, every field without a value."""
        for key, value in self.mapping.items():
            if key not in known:
                self.problem(key, f"unknown; known: {', '.join(known)}")
            elif value is None and not null:
                self.problem(key, "has no value")

    def text(self, key: str) -> str:
        value = self.raw(key)
        if not isinstance(value, str):
            self.wrong(key, "text")
            return ""
        return value

    def maybe_text(self, key: str) -> str | None:
        return self.text(key) if key in self else None

    def line(self, key: str, most: int, *, fold: bool = False) -> str:
        """A text of 1 to `most` printable characters; `fold`: white space, line ends included, counts as one space."""
        value = self.raw(key)
        text = value if isinstance(value, str) else ""
        text = " ".join(text.split()) if fold else text
        if not text.strip() or len(text) > most or not text.isprintable():
            self.wrong(key, f"text of at most {most} printable characters")
            return ""
        return text

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty if the field is missing."""
        value = self._list(key)
        if not all(isinstance(item, str) for item in value):
            self.wrong(key, "a list of texts")
            return ()
        return tuple(value)

    def matching(self, key: str, pattern: re.Pattern[str], expected: str) -> str:
        """A text that matches the whole `pattern`."""
        value = self.raw(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.wrong(key, expected)
            return ""
        return value

    def one_of(self, key: str, known: Sequence[str]) -> str:
        value = self.raw(key)
        if value not in known:
            self.wrong(key, f"one of {', '.join(known)}")
            return known[0]
        return known[known.index(value)]

    def some_of(self, key: str, known: Sequence[str]) -> tuple[str, ...]:
        """A non-empty list of known texts; empty if the field is missing."""
        value = self.raw(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not value or any(item not in known for item in value):
            self.wrong(key, f"a list from {', '.join(known)}")
            return ()
        return tuple(value)

    def flag(self, key: str) -> bool | None:
        """A bool; None if the field is missing."""
        value = self.raw(key)
        if value is not None and not isinstance(value, bool):
            self.wrong(key, "true or false")
            return None
        return value

    def whole(self, key: str, least: int, most: int) -> int:
        """A whole number within the bounds."""
        value = self.raw(key)
        if not is_whole(value) or not least <= value <= most:
            self.wrong(key, f"a whole number from {least} to {most}")
            return least
        return value

    def fraction(self, key: str) -> Fraction:
        """An exact positive fraction from text such as "1e25/3". Only text: a YAML number may have lost digits."""
        value = self.raw(key)
        numerator, slash, denominator = value.partition("/") if isinstance(value, str) else ("", "", "")
        try:
            found = Fraction(parse_flop(numerator), parse_flop(denominator) if slash else 1)
        except (ValueError, ZeroDivisionError):
            found = Fraction(0)
        if found <= 0:
            self.wrong(key, "a positive whole number or fraction as text, such as '1e25/3'")
            return Fraction(1)
        return found

    def object(self: _R, key: str) -> _R:
        """A mapping."""
        return self._child(self.raw(key), self.at(key))

    def maybe_object(self: _R, key: str) -> _R | None:
        return self.object(key) if key in self else None

    def objects(self: _R, key: str) -> Iterator[_R]:
        """The mappings of a list, one by one; none if the list is missing."""
        for at, value in enumerate(self._list(key)):
            yield self._child(value, f"{self.at(key)}[{at}]")

    def items(self: _R, key: str) -> Iterator[tuple[str, _R]]:
        """Name and value of each field of a mapping of mappings; none if the field is missing."""
        fields = self.maybe_object(key)
        if fields is not None:
            yield from ((name, fields.object(name)) for name in fields.mapping)

    def _child(self: _R, value: Any, path: str) -> _R:
        return type(self)(value, path, self.report)

    def _list(self, key: str) -> Sequence[Any]:
        value = self.raw(key)
        if value is not None and not isinstance(value, list | tuple):
            self.wrong(key, "a list")
            return []
        return value or []


def words_of(fault: Exception) -> str:
    """What `fault`, raised by a reader of malformed data, says of that data: bounded, without Python's names."""
    if isinstance(fault, KeyError):
        return f"{shown(fault.args[0])} is missing or not known"
    if not isinstance(fault, ValueError):
        return "a member is of another type than in the format"
    text = str(fault)
    if (enum := _OF_AN_ENUM.fullmatch(text)) is not None:
        text = f"{_IN_JSON.get(enum[1], enum[1])} is not known"
    return "a member has another form than in the format" if _OF_PYTHON.match(text) else text[:MAX_WORDS]


def _found(value: Any) -> str:
    return "missing" if value is None else shown(value)


def _name(key: Any) -> str:
    text = str(key)[:MAX_SHOWN]
    return text if text.isprintable() else repr(text)
