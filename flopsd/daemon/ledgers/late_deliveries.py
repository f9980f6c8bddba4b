"""Delivers, alongside the metering, the ledgers of this state folder that a destination still lacks, also those of
earlier runs and daemon starts. A child process does it, with the bytes that were sealed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from flopsd.daemon.ledgers.child import ChildProcess, Ended
from flopsd.errors import StorageError
from flopsd.journal.delivery_note import Delivery, read_deliveries
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.file_presence import exists

log = logging.getLogger("flopsd")
LOOK_SECONDS, IDLE_SECONDS = 10.0, 660.0
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 60.0, 3600.0


class LateDeliveries:
    """Starts `command` while the note of deliveries has pending ones. One thread calls it."""

    def __init__(
        self, command: Sequence[str], note: Path, clock: Clock, all_delivered: Callable[[], object] = lambda: None, *,
        files: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """`all_delivered` is called when nothing is pending any more. `files`: open files that the child inherits."""
        self.child = ChildProcess(command, "the copying process", clock, idle_seconds=IDLE_SECONDS, files=files)
        self._note, self._clock, self._on_all = note, clock, all_delivered
        self._look_ns = self._due_ns = clock.boottime_ns()
        self._backoff_seconds = FIRST_BACKOFF_SECONDS
        self._seen: object = None
        self._fault = ""
        self.undelivered: int | None = None  # ledgers; None: not known. Safe to read from any thread

    def each_tick(self) -> None:
        """Look at the note; start, reap or kill the child."""
        now_ns = self._clock.boottime_ns()
        if (ended := self.child.ended()) is not None:
            self._look()
            self._ended(ended)
        elif now_ns >= self._look_ns and not self.child.is_busy:
            self._look_ns = now_ns + round(LOOK_SECONDS * NS_PER_S)
            self._look()
            if self._pending and now_ns >= self._due_ns:
                self.child.start()
            elif self._fault and self.undelivered == 0:
                self._all_delivered()  # by an operator, with `flopsd copy`

    def _look(self) -> None:
        try:
            there = self._note.stat() if exists(self._note) else None
            seen = None if there is None else (there.st_ino, there.st_size, there.st_mtime_ns)
            if seen == self._seen and self.undelivered is not None:
                return
            ledgers = [one for one in read_deliveries(self._note) if one.undelivered]
        except (OSError, StorageError) as fault:
            if self.undelivered is not None or self._seen is None:
                log.error("%s", fault)
            self._seen, self._pending, self.undelivered = fault, False, None
            return
        self._seen, self.undelivered = seen, len(ledgers)
        self._pending = any(place.state is Delivery.PENDING for one in ledgers for place in one.undelivered)

    def _ended(self, ended: Ended) -> None:
        if ended.code != 0 and not self._pending:
            log.error("%s; flopsd does not try this again", ended.err)
        elif ended.code != 0:
            self._retry_later(ended.err)
        elif self._pending:  # it had no time for all of them: the next child continues
            self._due_ns = self._clock.boottime_ns() + round(FIRST_BACKOFF_SECONDS * NS_PER_S)
        else:
            self._all_delivered()

    def _all_delivered(self) -> None:
        level = logging.WARNING if self._fault else logging.INFO
        log.log(level, "every ledger that was still to be copied is delivered now")
        self._fault, self._backoff_seconds = "", FIRST_BACKOFF_SECONDS
        self._on_all()

    def _retry_later(self, why: str) -> None:
        self._due_ns = self._clock.boottime_ns() + round(self._backoff_seconds * NS_PER_S)
        if not self._fault:
            log.error(
                "%s; metering goes on, and the same bytes are delivered again, first in %d s, later every %d s",
                why,
                self._backoff_seconds,
                LONGEST_BACKOFF_SECONDS,
            )
        self._fault = why
        self._backoff_seconds = min(2 * self._backoff_seconds, LONGEST_BACKOFF_SECONDS)
