"""The events in an export of a log service, in JSON, one at a time and in bounded memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, NoReturn

from flopsd.errors import NotVerifiedError

CHUNK, MAX_EVENT = 1 << 20, 1 << 22  # characters; CloudWatch takes events of at most a mebibyte
LEAST_EVENT, UNJUDGED_EVENTS = 48, 100_000  # least mean characters of an event, required above so many events
LIST_KEYS = ("events", "logEvents")  # get-log-events and filter-log-events; subscriptions
_NOT_SPACE = re.compile(r"[^ \t\r\n]")


class LogEvents:
    """The objects of a JSON document, of concatenated documents or of JSON Lines, one at a time. A list named in
    LIST_KEYS is read element by element, every other value whole."""

    def __init__(self, text: IO[str], first: str, name: str) -> None:
        self._text, self._buffer, self._at, self._name = text, first, 0, name
        self._before, self._objects = 0, 0  # characters before the buffer; objects so far
        self._decode = json.JSONDecoder(object_pairs_hook=self._unique).raw_decode

    def objects(self) -> Iterator[Mapping[str, Any]]:
        """Every object. Raises NotVerifiedError if the file is not JSON or is truncated."""
        while (char := self._peek()) != "":
            if char == "{":
                yield from self._members()
            elif char == "[":
                yield from self._elements(whole=False)
            else:
                self._refuse("it continues with text that is not JSON")

    def _elements(self, *, whole: bool) -> Iterator[Mapping[str, Any]]:
        self._at += 1
        while (char := self._peek()) != "]":
            if char == "{" and not whole:
                yield from self._members()
            elif isinstance(value := self._value(), dict):
                yield self._counted(value)
            if self._peek() == ",":
                self._at += 1
            elif self._peek() != "]":
                self._refuse("a list is truncated")
        self._at += 1

    def _members(self) -> Iterator[Mapping[str, Any]]:
        self._at += 1
        found: list[tuple[str, Any]] = []
        begin = self._before + self._at
        while self._peek() != "}":
            key = self._value() if self._peek() == '"' else self._refuse("an object is truncated")
            if self._peek() != ":":
                self._refuse("an object is truncated")
            self._at += 1
            if key in LIST_KEYS and self._peek() == "[":
                before = self._before + self._at
                yield from self._elements(whole=True)
                begin += self._before + self._at - before  # its elements are objects of their own
            else:
                found.append((key, self._value()))
            if self._before + self._at - begin > MAX_EVENT:
                self._refuse(f"an object has more than {MAX_EVENT} characters")
            if self._peek() == ",":
                self._at += 1
            elif self._peek() != "}":
                self._refuse("an object is truncated")
        self._at += 1
        yield self._counted(self._unique(found))

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while (found := _NOT_SPACE.search(self._buffer, self._at)) is None:
            self._at = len(self._buffer)
            if not self._more():
                return ""
        self._at = found.start()
        return found[0]

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
                if end == len(self._buffer) and self._more():
                    continue  # a number at the end of the buffer may continue
                self._at = end
                return value
            except RecursionError:
                self._refuse("it is nested too deeply")
            except ValueError as fault:
                if len(self._buffer) - self._at > MAX_EVENT or not self._more():
                    self._refuse(str(fault)[:80])

    def _more(self) -> bool:
        chunk = self._text.read(CHUNK)
        if chunk:
            self._before += self._at
            self._buffer, self._at = self._buffer[self._at :] + chunk, 0
        return bool(chunk)

    def _counted(self, event: dict[str, Any]) -> dict[str, Any]:
        """Count an object. Refuse too many small ones: compressed, they cost the sender far less than the reader."""
        self._objects += 1
        if self._objects > max(UNJUDGED_EVENTS, (self._before + self._at) // LEAST_EVENT):
            self._refuse(f"its {self._objects} objects have less than {LEAST_EVENT} characters on average")
        return event

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            self._refuse("an object has the same key twice")
        return found

    def _refuse(self, why: str) -> NoReturn:
        raise NotVerifiedError(
            f"the log {self._name} starts as JSON but is not valid JSON: {why}", hint="export it again, completely"
        )
