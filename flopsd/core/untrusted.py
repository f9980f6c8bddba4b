"""JSON and YAML from outside: parsed so that no two readers differ, then read field by field, by type. Pure.

A field of another type is reported with its path: `path.to.key: must be a count, is true`. A bool is never a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NoReturn, TypeVar

from flopsd.core.values import is_whole, parse_flop
from flopsd.errors import NotVerifiedError

MAX_VALUES = 4_000_000  # objects, lists and members of one JSON text: what a reader must hold at once
_LONG_TEXT = 16_384  # bytes
MAX_DEPTH = 100  # objects and lists in each other
_WHITE_SPACE = " \t\n\r"
_AS_BRACES, _NO_STRUCTURE = bytes.maketrans(b"[]", b"{}"), bytes(one for one in range(256) if one not in b'{}[]"')
_OPENED = ord("{")
MAX_SHOWN = 60  # characters of a value or a key in a message
_ZEROS, _MANY_DIGITS = bytes.maketrans(b"123456789", b"000000000"), b"0" * 40
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that is half a character
Report = Callable[[str], object]
_R = TypeVar("_R", bound="FieldReader")


class _RefusedError(Exception):
    """JSON that is valid, and not read alike by all."""


def _refuse(text: str) -> NoReturn:
    raise _RefusedError(f"the number {text[:40]!r}, not a whole number of at most 40 digits", "json_number")


def _whole(text: str) -> int:
    return int(text) if len(text) <= 40 else _refuse(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the key {twice[:80]!r} twice", "json_duplicate_member")
    return found


# Making a decoder takes as long as a short text.
_decoder, _decoder_long = (
    json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse, parse_int=whole, object_pairs_hook=_unique)
    for whole in (int, _whole)
)


def _decode(text: str, decoder: Any) -> Any:
    """As `decoder.decode`, which looks for white space with two regular expressions."""
    try:
        parsed, end = decoder.scan_once(text, 0)
    except StopIteration:
        return decoder.decode(text)  # white space before it, or no JSON
    if end == len(text) or not text[end:].strip(_WHITE_SPACE):
        return parsed
    return decoder.decode(text)  # raises


def refuse_too_many_values(data: bytes, what: str, path: str = "") -> None:
    """Raises NotVerifiedError for JSON of more parts than one reader must hold."""
    if len(data) > MAX_VALUES and sum(map(data.count, (b"{", b"[", b","))) > MAX_VALUES:
        raise NotVerifiedError(f"{what} has more than {MAX_VALUES} parts", code="json_too_many_values", path=path)


def parse_json(data: bytes, what: str, path: str = "", *, within: int = 0) -> Any:
    """JSON that no two readers can read differently; `path` is for the error. `within`: how many objects and lists it
    stands in.

    Raises NotVerifiedError for duplicate keys, floats, NaN, huge integers, lone surrogates, non-UTF-8, and for
    what would take more memory than it is worth.
    """

    def refused(text: str, code: str) -> NotVerifiedError:
        return NotVerifiedError(f"{what} {text}", code=code, path=path)

    refuse_too_many_values(data, what, path)
    if _is_deep(data, MAX_DEPTH - within):
        raise refused("is nested too deeply", "json_too_deep")
    # Most texts have no number near the limit, and looking at each number of a record would take as long as all the
    # rest. A text as long as a ledger has few numbers: its counts are text.
    long = len(data) > _LONG_TEXT or _MANY_DIGITS in data.translate(_ZEROS)
    try:
        text = data.decode("utf-8")
        parsed = _decode(text, _decoder_long if long else _decoder)
        if "\\u" in text and _SURROGATE.search(text):
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # one without its other half cannot be encoded
    except _RefusedError as fault:
        raise refused(f"contains {fault.args[0]}", fault.args[1]) from fault
    except UnicodeError as fault:
        code = "json_not_utf8" if isinstance(fault, UnicodeDecodeError) else "json_surrogate"
        raise refused("is not valid UTF-8 text", code) from fault
    except json.JSONDecodeError as fault:
        raise refused(f"is not JSON: {fault}", "json_malformed") from fault
    return parsed


def _is_deep(data: bytes, most: int) -> bool:
    """Whether JSON has more than `most` objects and lists in each other."""
    if b"\\" in data:
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    structure = data.translate(_AS_BRACES, _NO_STRUCTURE)
    if structure.count(b"{") <= most:  # those in texts included
        return False
    # Two quotes side by side, a text without brackets for one, change nothing of what is within the others.
    quoted = structure.replace(b'""', b"").split(b'"')
    braces = left = b"".join(quoted[::2])
    for _ in range(most):
        if not left:
            return False
        left = left.replace(b"{}", b"")
    depth = 0
    for one in braces:  # it is deep, or no JSON, which the decoder finds out unless it is deep first
        depth += 1 if one == _OPENED else -1
        if not 0 <= depth <= most:
            break
    return depth > most


def collecting(problems: list[str], where: str) -> Report:
    """A `Report` that adds each problem to the list, prefixed with the file or entry it is about."""
    return lambda problem: problems.append(f"{where}: {problem}")


def raising(error: Callable[[str], Exception]) -> Report:
    """A `Report` that raises on the first problem."""

    def report(problem: str) -> NoReturn:
        raise error(problem)

    return report


class FieldReader:
    """The fields of one mapping. `report` is called with every problem; if it returns, so does the getter, with a
    stand-in value, so that all problems can be collected in one pass. A null field counts as missing.
    """

    def __init__(self, value: Any, path: str, report: Report) -> None:
        """`path` locates the mapping in its document: empty for the document itself."""
        self.path, self.report = path, report
        self._fields: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        if not isinstance(value, Mapping):
            kind = "text" if isinstance(value, str) else _found(value)  # a text may be a secret in the wrong place
            report(f"{path}{': ' if path else ''}must be a mapping, is {kind}")
            self.report = lambda _: None  # its missing fields are no further problems

    def __contains__(self, key: str) -> bool:
        return self._fields.get(key) is not None

    @property
    def mapping(self) -> Mapping[str, Any]:
        """All fields, unchecked."""
        return self._fields

    def raw(self, key: str) -> Any:
        """A field, unchecked; None if it is missing."""
        return self._fields.get(key)

    def problem(self, key: str, text: str) -> None:
        """Report a problem with a field."""
        self.report(f"{self.at(key)}: {text}")

    def wrong(self, key: str, expected: str) -> None:
        """Report that a field is not what it must be."""
        self.problem(key, f"must be {expected}, is {_found(self.raw(key))}")

    def at(self, key: str) -> str:
        """The path of a field."""
        return f"{self.path}.{_name(key)}" if self.path else _name(key)

    def only(self, *known: str, null: bool = False) -> None:
        """Report every field that is not `known`, and unless `null` every one without a value."""
        for key, value in self._fields.items():
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
        """A list of texts; empty if it is missing."""
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
        """A list of known texts, not an empty one; empty if it is missing."""
        value = self.raw(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not value or any(item not in known for item in value):
            self.wrong(key, f"a list from {', '.join(known)}")
            return ()
        return tuple(value)

    def flag(self, key: str) -> bool | None:
        """None if it is missing."""
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

    def maybe_flop(self, key: str) -> int | None:
        """A count of FLOP, as a whole number or as text such as "1e25"; None if it is missing."""
        if key not in self:
            return None
        try:
            return parse_flop(self.raw(key))
        except ValueError as fault:
            self.problem(key, str(fault))
            return None

    def fraction(self, key: str) -> Fraction:
        """An exact positive fraction from text such as "1e25/3". Only text: a number of YAML may have lost digits."""
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
        """Name and value of each field of a mapping of mappings; none if it is missing."""
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


def shown(value: Any) -> str:
    """A value in a message: bounded, printable, in the words of JSON and YAML."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return repr(value)[:MAX_SHOWN]


def _found(value: Any) -> str:
    return "missing" if value is None else shown(value)


def _name(key: Any) -> str:
    text = str(key)[:MAX_SHOWN]
    return text if text.isprintable() else repr(text)
