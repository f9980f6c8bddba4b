"""Whether a merged ledger has all segments of rotated runs: each names the journal that it continues. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.notes import Note, note
from flopsd.errors import LedgerError

NumberedSegment = tuple[int, Mapping[str, Any] | None]  # of the child with that number; None: it is a whole run
IDENTITY = ("sha256", "headSha256", "bytes", "records")  # of a journal


def chains_of(segments: Iterable[NumberedSegment]) -> dict[int, str]:
    """The chain of journals of each child that is a segment, by the child's number: the SHA-256 of its first one."""
    first: dict[str, str] = {}
    parts = [(number, segment) for number, segment in segments if segment is not None]
    for _, segment in sorted(parts, key=lambda part: int(part[1]["number"])):
        own, before = segment["journal"]["sha256"], segment["continues"]
        first[own] = own if before is None else first.get(before["sha256"], own)
    return {number: first[segment["journal"]["sha256"]] for number, segment in parts}


@dataclass(frozen=True, slots=True)
class _Segment:
    who: Mapping[str, str]
    ledger: str
    segment: Mapping[str, Any]

    @property
    def number(self) -> int:
        return int(self.segment["number"])


@dataclass(slots=True)
class SegmentCheck:
    """The segments among the children of a job, by the SHA-256 of their journals."""

    _here: dict[str, _Segment] = field(default_factory=dict)
    _continued_by: dict[str, _Segment] = field(default_factory=dict)

    def add(self, segment: Mapping[str, Any] | None, who: Mapping[str, str], ledger: str) -> None:
        """Add the segment of an entry; None: the entry is a whole run. Raises LedgerError for a fork."""
        if segment is None:
            return
        one = _Segment(who, ledger, segment)
        self._here[segment["journal"]["sha256"]] = one
        if segment["continues"] is None:
            return
        before = segment["continues"]["sha256"]
        other = self._continued_by.setdefault(before, one)
        if other is not one:
            said = " ".join(f"{name} {value}" for name, value in who.items())
            raise LedgerError(
                f"FORK: {other.ledger} and {ledger} both continue segment {segment['continues']['number']} of {said}: "
                "they are two histories of one run",
                hint="at most one of them is true for its time; a state folder that was copied or restored forks like "
                "this",
                code="segments_part",
            )

    def missing(self) -> Iterator[Note]:
        """Notes on each absent segment that another one names. Raises LedgerError for an impossible sequence."""
        for digest, after in self._continued_by.items():
            named, before = after.segment["continues"], self._here.get(digest)
            if before is None:
                yield note("no_segment_before", **after.who, segment=str(named["number"]), ledger=after.ledger)
                continue
            found = {"number": before.number, **{name: before.segment["journal"][name] for name in IDENTITY}}
            fits = before.who.get("node") == after.who.get("node") and dict(named) == found
            if not before.segment["isContinued"] or not fits:
                raise LedgerError(
                    f"{after.ledger} cannot continue {before.ledger}: the journal of that ledger is not the closed "
                    f"segment {named['number']} that it names",
                    hint="one of the two was altered",
                    code="segments_part",
                )
        for digest, one in self._here.items():
            if one.segment["isContinued"] and digest not in self._continued_by:
                yield note("no_segment_after", **one.who, segment=str(one.number + 1), ledger=one.ledger)
