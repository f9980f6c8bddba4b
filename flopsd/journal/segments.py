"""Closed segments on disk: the journals of a rotated run that are not sealed, or not copied, yet.

A kill in the middle of a rotation leaves the journal that ended, or a begun journal with or without the ended one. The
run must continue in the begun journal if that is complete, since the daemon does so if a disk refuses the last step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flopsd.core.ledger.segments import Continued, SegmentFacts
from flopsd.core.ledger.tally_records import Record
from flopsd.errors import JournalError
from flopsd.journal.framing import JournalLine
from flopsd.journal.head import Head, KnownJournal
from flopsd.journal.reading import read_live
from flopsd.journal.state_dir import StateDir, names_in
from flopsd.system.atomic_files import sync_path
from flopsd.system.file_presence import exists
from flopsd.system.regular_files import open_regular

ENDING = ".journal.jsonl"
BETWEEN_SEGMENTS = (
    "a merge misses the next segment until it begins: start the daemon of that run here once more, and stop it; the "
    "time until then is a gap"
)
_BEGIN = b'{"h":"'


def closed_name(segment: SegmentFacts) -> str:
    """Return the file name of a closed segment. Segments of several runs can lie in one folder."""
    return f"{segment.number:04d}-{segment.head_sha256[:16]}{ENDING}"


class ClosedSegment(NamedTuple):
    """A segment that ended. `is_moved`: it is in the folder of closed segments already, or is not needed there."""

    facts: SegmentFacts
    is_moved: bool

    @property
    def to_move(self) -> str | None:
        """The file name that the segment still has to get; None: it has it."""
        return None if self.is_moved else closed_name(self.facts)


def closed_segments(state: StateDir) -> list[Path]:
    """Return closed segments in the order of their numbers, which have four digits or more. Raises JournalError if the
    folder cannot be listed."""
    names = names_in(state.segments, "the closed segments in")
    closed = (name for name in names if name[:4].isdigit() and name.endswith(ENDING))
    return [state.segments / name for name in sorted(closed, key=lambda name: (len(name), name))]


def newest_closed(state: StateDir) -> Path | None:
    """Return the closed segment that no other continues; of several runs, the one written last. Within a run the times
    of files do not decide: a clock may be set back, and a restored folder has other times. Raises JournalError."""
    closed = closed_segments(state)
    before = {closed_name(one.before) for one in map(_continued_by, closed) if one is not None}
    ends = (path for path in closed if path.name not in before)
    return max(ends, key=lambda path: path.stat().st_mtime_ns, default=None)


def ends_with_closed(state: StateDir) -> bool:
    """Whether a daemon was killed after it closed a segment and before it began the next. Raises JournalError."""
    return bool(closed_segments(state)) and not state.has_journal()


def continued_by(journal: Path) -> Continued | None:
    """Return what a journal continues, by its first record; None: nothing, or there is no record. Raises KeyError,
    TypeError or ValueError for a record that no daemon writes."""
    first = first_record(journal)
    return None if first is None or "continues" not in first else Continued.from_record(first["continues"])


def _continued_by(journal: Path) -> Continued | None:
    """As `continued_by`; None also for a file that cannot be read, or that no daemon writes."""
    try:
        return continued_by(journal)
    except (JournalError, KeyError, TypeError, ValueError, AttributeError):
        return None


def first_record(journal: Path) -> Record | None:
    """Return the first record; None if there is none. Raises JournalError for a file that cannot be read."""
    return next((line.record() for line in read_live(journal)), None)


def begins_otherwise(path: Path) -> bool:
    """Whether a file that can be read begins as no journal does."""
    try:
        with open_regular(path) as file:
            begin = file.read(len(_BEGIN))
    except OSError:
        return False
    return not _BEGIN.startswith(begin)


def heads_in_chain(state: StateDir) -> Iterator[tuple[str, Head]]:
    """Yield the file names of the segments that the journal continues, the last first, and what each must contain. The
    journal names the segment before it, and that names the one before."""
    journal, number = state.journal, None
    while True:
        continued = _continued_by(journal)
        if continued is None or (number is not None and continued.before.number != number - 1):
            return  # the first segment, or a file that is not the segment it is named after
        before, number = continued.before, continued.before.number
        yield closed_name(before), Head(before.records, before.head_sha256)
        journal = state.segments / closed_name(before)


def settle_next(state: StateDir, known: KnownJournal | None) -> None:
    """Finish a rotation that a kill interrupted, if the journal of the next segment has all that it begins with: what
    is `known` of it, or a checkpoint. Otherwise remove it: all that counts is in the journal that ended. After
    JournalError nothing is lost, and it can be called again."""
    begun = state.next_journal
    try:
        if not exists(begun):
            return
        if not _is_whole(state, begun, known):
            begun.unlink()
            return
        sync_path(begun)  # the daemon does not sync it before it takes over
        if (continued := continued_by(begun)) is not None:
            state.move_to_segments(closed_name(continued.before))
        os.replace(begun, state.journal)
        sync_path(state.path)
    except OSError as fault:
        raise JournalError(
            f"cannot finish the interrupted rotation of {state.journal}: {fault.strerror}",
            hint="check that disk or file server, and start again: what was metered is in that folder",
        ) from fault


def _is_whole(state: StateDir, begun: Path, known: KnownJournal | None) -> bool:
    if known is not None:
        return any(_head(line) == known.head for line in read_live(begun))
    continued = _continued_by(begun)
    if continued is None or not _is_there(state, continued.before):
        return False
    return any(line.kind() == "checkpoint" for line in read_live(begun))


def _is_there(state: StateDir, ended: SegmentFacts) -> bool:
    """Whether the segment `ended` is the journal, or a closed one."""
    if not state.has_journal():
        return exists(state.segments / closed_name(ended))
    return any(_head(line) == Head(ended.records, ended.head_sha256) for line in read_live(state.journal))


def _head(line: JournalLine) -> Head:
    return Head(line.number, line.head.hex())
