"""Read the fields of a ledger by type. A malformed field is refused with its path, never guessed at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from flopsd.core.field_reader import FieldReader, Report, raising
from flopsd.core.figures import Figures
from flopsd.core.model import ACCOUNTED_ELSEWHERE, UNBOUNDED
from flopsd.core.values import is_whole, utc_ns, whole_number
from flopsd.errors import LedgerError
from flopsd.report.terminal import one_line
from flopsd.settings.words import say
from flopsd.system.clock import rfc3339

MAX_TEXT, MAX_MEMBERS = 2000, 500
_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]{0,39})\.([0-9]{1,9})", re.ASCII)


class LedgerObject(FieldReader):
    """One JSON object of a ledger. Getters raise LedgerError if a member is missing or has another type; `maybe_`
    getters return None if it is null or not in this kind of ledger."""

    def __init__(self, value: Any, path: str, report: Report | None = None) -> None:
        super().__init__(value, path, report or raising(lambda problem: LedgerError(problem, hint=HINT)))
        if len(self.mapping) > MAX_MEMBERS:
            self.report(f"{path} has {len(self.mapping)} members, more than {MAX_MEMBERS}")

    def text(self, key: str) -> str:
        """One printable line."""
        return line(super().text(key))

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(map(line, super().texts(key)))

    def words(self, key: str, member: str) -> str:
        """A code or a note in words, from the table of words for `member`."""
        entry = self.object(key).note() if isinstance(self.raw(key), Mapping) else super().text(key)
        return line(say(member, entry))

    def all_words(self, key: str, member: str) -> tuple[str, ...]:
        """A list of codes or of notes in words."""
        listed = self.raw(key)
        if isinstance(listed, list) and any(isinstance(one, Mapping) for one in listed):
            return tuple(line(say(member, one.note())) for one in self.objects(key))
        return tuple(line(say(member, code)) for code in super().texts(key))

    def note(self) -> dict[str, Any]:
        """This object as a note: a code, and parameters that are texts or lists of texts."""
        named = {n: self.texts(n) if isinstance(self.raw(n), list) else self.text(n) for n in self.mapping}
        return {**named, "code": self.text("code")}

    def items(self, key: str) -> Iterator[tuple[str, LedgerObject]]:
        """The printable name and the value of each member of a map; none if there is no map."""
        return ((line(name), found) for name, found in super().items(key))

    def count(self, key: str) -> int:
        """A count: a decimal string, or one of the few JSON integers in a ledger."""
        value = self.raw(key)
        if is_whole(value):
            return value
        try:
            return whole_number(value)
        except ValueError:
            self.wrong(key, "a count")
            raise

    def maybe_count(self, key: str) -> int | None:
        return self.count(key) if key in self else None

    def decimal(self, key: str, *, signed: bool = False) -> Fraction:
        """A number in a decimal string, such as seconds or joules; negative only if `signed`."""
        match = _DECIMAL.fullmatch(self.matching(key, _DECIMAL, "a number with decimals in a text"))
        assert match is not None
        if match[1] and not signed:
            self.wrong(key, "a number that is not negative")
        amount = Fraction(int(match[2] + match[3]), 10 ** len(match[3]))
        return -amount if match[1] else amount

    def maybe_decimal(self, key: str) -> Fraction | None:
        return self.decimal(key) if key in self else None

    def moment_ns(self, key: str) -> int:
        """A time in UTC, in Unix nanoseconds."""
        try:
            return utc_ns(self.raw(key))
        except ValueError:
            self.wrong(key, "a time in UTC")
            raise

    def utc(self, key: str) -> str:
        """A time in UTC, in flopsd's own form."""
        return rfc3339(self.moment_ns(key))

    def figures(self, key: str | None = None, middle: str = "measured") -> Figures:
        """Low, measured and high of the member, or of this object itself."""
        found = self if key is None else self.object(key)
        return Figures(found.count("low"), found.maybe_count(middle), found.maybe_count("high"))


def is_complete(predicate: Mapping[str, Any]) -> bool:
    """Whether the ledger is complete for certain. A node's ledger always is."""
    return (predicate.get("completeness") or {"complete": True})["complete"] is True


def may_be_longer(gap_seconds_by_reason: Mapping[str, Any]) -> bool:
    """Whether there are gaps of unknown length: their seconds are the least that they can have."""
    return any(reason.value in gap_seconds_by_reason for reason in UNBOUNDED)


def job_seconds(coverage: Mapping[str, Any]) -> Fraction:
    """Device time in seconds that was this job's."""
    elsewhere = [Fraction(coverage["gapSecondsByReason"].get(reason.value, 0)) for reason in ACCOUNTED_ELSEWHERE]
    return Fraction(coverage["spanSeconds"]) - sum(elsewhere)


def contradiction_text(entry: LedgerObject) -> str:
    return f"{entry.text('name')}: {line(say('declared.contradictions', entry.note()))}"


HINT = "this is not what flopsd writes: ask whoever gave you the ledger, and verify it with --key"


def line(text: object) -> str:
    """A text of a ledger as one printable line of at most MAX_TEXT characters."""
    found = one_line(str(text)[: MAX_TEXT + 1])
    return found if len(found) <= MAX_TEXT else f"{found[:MAX_TEXT]}… (cut)"
