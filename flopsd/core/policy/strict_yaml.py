"""Strict reading of parsed YAML: every problem is named, none is guessed away. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flopsd.core.flop import parse_flop

MAX_TEXT = 1200
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,59}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping of the file being read. What is wrong with it goes to `problems`; a stand-in value is returned."""

    raw: object
    where: str
    problems: list[str]

    def get(self, key: str) -> Any:
        return self.raw.get(key) if isinstance(self.raw, Mapping) else None

    def has(self, key: str) -> bool:
        return isinstance(self.raw, Mapping) and key in self.raw

    def wrong(self, key: str, what: str) -> None:
        self.problems.append(f"{self.where}: {key}: {what}")

    def only(self, *known: str) -> None:
        if not isinstance(self.raw, Mapping):
            self.problems.append(f"{self.where}: expected a mapping with {', '.join(known)}")
            return
        for key in self.raw:
            if key not in known:
                self.problems.append(f"{self.where}: {str(key)[:60]}: unknown; known are {', '.join(known)}")

    def entry(self, key: str) -> Entry:
        return Entry(self.get(key), f"{self.where}: {key}", self.problems)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
            self.wrong(key, f"expected a text of at most {MAX_TEXT} characters")
            return ""
        joined = " ".join(value.split())
        if not joined.isprintable():
            self.wrong(key, "holds characters that cannot be printed")
        return joined

    def name(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or not _ID.fullmatch(value):
            self.wrong(key, "expected small letters, digits and hyphens")
            return ""
        return value

    def one_of(self, key: str, known: Sequence[str], default: str | None = None) -> str:
        value = self.get(key)
        if value is None and default is not None:
            return default
        if value not in known:
            self.wrong(key, f"expected one of {', '.join(known)}, not {value!r:.60}")
            return known[0]
        return str(value)

    def some_of(self, key: str, known: Sequence[str]) -> tuple[str, ...]:
        value = self.get(key)
        if value is None and not self.has(key):
            return ()
        if not isinstance(value, list) or not value or any(item not in known for item in value):
            self.wrong(key, f"expected a list out of {', '.join(known)}")
            return ()
        return tuple(value)

    def flag(self, key: str) -> bool | None:
        value = self.get(key)
        if not isinstance(value, bool) and self.has(key):
            self.wrong(key, "expected true or false")
        return value if isinstance(value, bool) else None

    def count(self, key: str, most: int) -> int:
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            self.wrong(key, f"expected a whole number from 1 to {most}")
            return 1
        return value

    def flop(self, key: str) -> int | None:
        if not self.has(key):
            return None
        try:
            return parse_flop(self.get(key))
        except ValueError as fault:
            self.wrong(key, str(fault))
            return None

    def fraction(self, key: str) -> Fraction | None:
        """An exact positive fraction from text such as "1e25/3". A number of YAML may have lost digits already."""
        if not self.has(key):
            return None
        value = self.get(key)
        try:
            if not isinstance(value, str):
                raise ValueError("write it as text, such as '1e25/3'")
            numerator, slash, denominator = value.partition("/")
            found = Fraction(parse_flop(numerator), parse_flop(denominator) if slash else 1)
            if found <= 0:
                raise ValueError("must be greater than 0")
        except (ValueError, ZeroDivisionError) as fault:
            self.wrong(key, str(fault))
            return None
        return found
