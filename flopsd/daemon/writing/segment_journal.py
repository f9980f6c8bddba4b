"""The journal of the present segment with its write queue, and how the next segment's journal takes its place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flopsd.core.ledger.segments import Continued, RatedCount, SegmentFacts
from flopsd.daemon.writing.write_queue import WriteQueue
from flopsd.errors import JournalError, UnreadableRecordError
from flopsd.journal.codes import CodeKey
from flopsd.journal.framing import GENESIS, frame
from flopsd.journal.journal import Journal
from flopsd.journal.segments import ClosedSegment
from flopsd.system.clock import Clock

log = logging.getLogger("flopsd")


class SegmentJournal:
    """The journals of a run, one after another. A run that is not rotated has only the first."""

    queue: WriteQueue

    def __init__(
        self, journal: Journal, clock: Clock, report: Callable[[], None], codes: Callable[[int], CodeKey] | None
    ) -> None:
        """`report` is called before and after each record. `codes` returns the key for a daemon start of a journal, by
        its number; None: records get no codes."""
        self.journal, self._clock, self._report, self._codes = journal, clock, report, codes
        self.continues: Continued | None = None
        self.utc = ""  # when the segment began
        self.code_secret_sha256: str | None = None  # of this daemon start's codes
        self._closed: ClosedSegment | None = None  # its successor is being begun

    @property
    def number(self) -> int:
        """The number of the segment in its run, from 1."""
        return 1 if self.continues is None else self.continues.before.number + 1

    @property
    def records_before(self) -> int:
        """The number of records in earlier segments."""
        return 0 if self.continues is None else self.continues.records

    @property
    def starts_before(self) -> int:
        return 0 if self.continues is None else self.continues.daemon_starts

    @property
    def is_settled(self) -> bool:
        """Whether the file that is being written is the run's journal already."""
        return self._closed is None

    def append(self, record: Mapping[str, Any]) -> bool:
        return self.queue.append(record)

    def go_on(self, incarnation: int, continues: Continued | None, utc: str) -> None:
        """Begin a daemon start in the present journal."""
        self.continues, self.utc = continues, utc
        self._queue_for(incarnation, self._report)

    def begin_next(self, closed: ClosedSegment, continues: Continued, utc: str) -> None:
        """Write the journal of the next segment from now on. `settle` makes it the run's journal."""
        self._closed, self.continues, self.utc = closed, continues, utc
        self.journal.begin_next()
        self._queue_for(1, lambda: None)

    def close(self, end: Mapping[str, Any], counted: Sequence[RatedCount]) -> SegmentFacts | None:
        """End the journal for the next segment to continue, and return its facts; None if that cannot be done now.
        `counted`: what the next segment has to repeat."""
        try:  # first, since once this journal has ended the next must begin
            frame(GENESIS, Continued(SegmentFacts(1, "", 1, 1, ""), 0, 0, tuple(counted)).for_journal())
        except UnreadableRecordError as fault:
            log.error("the journal cannot be rotated and is continued instead: %s", fault)
            return None
        if not self.queue.is_empty or not self.queue.append(end, keep=False):
            return None
        return SegmentFacts(self.number, *self.journal.facts)

    def settle(self) -> bool:
        """Make the next segment's journal the run's, once all that it begins with is written; return whether it is."""
        if self._closed is None:
            return True
        if not self.queue.is_empty:
            return False
        self._report()  # after a kill in one of the next steps, whoever finds the files must know what to look for
        try:
            self.journal.take_over(self._closed.to_move)
        except OSError as fault:
            if self.journal.is_next:
                self.queue.complain(JournalError(f"cannot begin the next segment of the journal: {fault.strerror}"))
                return False
        self.queue.report = self._report
        log.info("segment %d of the run is closed; the run goes on in segment %d", self.number - 1, self.number)
        self._closed = None
        return True

    def _queue_for(self, incarnation: int, report: Callable[[], None]) -> None:
        key = None if self._codes is None else self._codes(incarnation)
        self.code_secret_sha256 = None if key is None else key.secret_sha256
        self.journal.codes = key
        self.queue = WriteQueue(self.journal, self._clock, report)
