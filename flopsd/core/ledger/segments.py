"""Segments: the journals of a rotated run. Each is complete in itself; all but the first name their predecessor. Pure.

The first `begin` of such a journal has `continues`. The daemon continues from the totals of earlier segments that it
repeats; no figure of a ledger rests on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Phase
from flopsd.core.ledger.device_records import DeviceEntry, device_entry, device_record
from flopsd.core.ledger.tally_records import Record, count, tally_from_record
from flopsd.core.phases import remainder, sum_of
from flopsd.core.tally import Tally
from flopsd.core.values import added, is_digest

MOST_STARTS = 64  # whose counts the next segment repeats individually


class JournalFacts(NamedTuple):
    """The facts that identify a journal file."""

    sha256: str
    size_bytes: int
    records: int
    head_sha256: str  # chain hash of its last record


class SegmentFacts(NamedTuple):
    """The identity of a closed segment: its number, which counts from 1, and its JournalFacts."""

    number: int
    sha256: str
    size_bytes: int
    records: int
    head_sha256: str

    def for_ledger(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "sha256": self.sha256,
            "headSha256": self.head_sha256,
            "bytes": str(self.size_bytes),
            "records": str(self.records),
        }


@dataclass(frozen=True, slots=True)
class RatedCount:
    """What one daemon start counted of one device under one rating. `start` is numbered over all segments."""

    start: int
    entry: DeviceEntry
    tally: Tally
    phase: Phase | None  # declared by the settings of that daemon start


class Continued(NamedTuple):
    """The segment that a journal continues, and sums over all earlier segments."""

    before: SegmentFacts
    records: int
    daemon_starts: int  # offset from an incarnation number to that of the daemon start in the run
    counted: tuple[RatedCount, ...]

    def for_journal(self) -> dict[str, Any]:
        before = self.before
        return {
            "segment": before.number,
            "bytes": before.size_bytes,
            "records": before.records,
            "sha256": before.sha256,
            "head_sha256": before.head_sha256,
            "run": {
                "records": self.records,
                "daemon_starts": self.daemon_starts,
                "devices": [_record(number, one) for number, one in enumerate(self.counted)],
            },
        }

    @classmethod
    def from_record(cls, record: Record) -> Continued:
        """The inverse of `for_journal`. Raises KeyError, TypeError or ValueError."""
        run, sha256, head_sha256 = record["run"], record["sha256"], record["head_sha256"]
        if len(record) != 6 or len(run) != 3:
            raise ValueError("'continues' lacks a member or has an unknown one")
        number, size, records = (count(record[name]) for name in ("segment", "bytes", "records"))
        if not (is_digest(sha256) and is_digest(head_sha256)) or min(number, size, records) < 1:
            raise ValueError("'continues' needs a number, bytes and records, each at least 1, and two digests")
        counted = tuple(_counted(one) for one in run["devices"])
        before = SegmentFacts(number, sha256, size, records, head_sha256)
        return cls(before, count(run["records"]), count(run["daemon_starts"]), counted)


def segment_text(number: int) -> str:
    """The caveat for every figure of a segment's ledger."""
    return f"segment {number} of a rotated run; the run's compute is the sum of all its segments: merge them"


def sum_counts(parts: Iterable[RatedCount]) -> tuple[RatedCount, ...]:
    """One sum per daemon start, device and rating, in order of first appearance and with the last description: as in a
    run that is not rotated. If there are many daemon starts the oldest are combined into one."""
    listed = list(parts)
    oldest = max((part.start for part in listed), default=0) - MOST_STARTS
    found: dict[tuple[object, ...], RatedCount] = {}
    for part in listed:
        entry, start = part.entry, max(part.start, oldest)
        key = (start, entry.device.uid, entry.part_id, entry.precision, part.phase)
        known = found.get(key)
        tally = part.tally if known is None else sum_of(known.tally, part.tally)
        found[key] = replace(part, start=start, tally=_without_absolutes(tally))
    return tuple(found.values())


def _without_absolutes(tally: Tally) -> Tally:
    return replace(tally, begin_ns=0, watermark_ns=tally.span_ns, counters={}, energy_at_ns=0, totals=None, totals_ns=0)


def _record(number: int, one: RatedCount) -> dict[str, Any]:
    phase = None if one.phase is None else one.phase.value
    return {**device_record(one.start, number, one.entry, one.tally), "phase": phase}


def _counted(record: Record) -> RatedCount:
    phase = None if record["phase"] is None else Phase(record["phase"])
    tally = _without_absolutes(tally_from_record(record, 0))
    remainder(tally)  # raises ValueError for phases that account for more than there is
    return RatedCount(count(record["incarnation"]), device_entry(record), tally, phase)


def work_since(
    work: Mapping[str, Mapping[str, int]], before: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """The growth of counters by phase since they stood at `before`, without those that did not grow."""
    grown = {
        phase: {
            name: value - known
            for name, value in counters.items()
            if value > (known := before.get(phase, {}).get(name, 0))
        }
        for phase, counters in work.items()
    }
    return {phase: counters for phase, counters in grown.items() if counters}


def added_work(
    one: Mapping[str, Mapping[str, int]], other: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """The sums of counters by phase."""
    return {phase: added(one.get(phase, {}), other.get(phase, {})) for phase in {**one, **other}}
