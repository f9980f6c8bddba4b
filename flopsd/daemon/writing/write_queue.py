"""The queue between writer and journal: records that a full disk refuses are kept, in order, and written later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from flopsd.core.ledger.run_view import RunView
from flopsd.errors import JournalError, JournalReplacedError, UnreadableRecordError
from flopsd.journal.codes import CODE_BYTES
from flopsd.journal.framing import GENESIS, frame
from flopsd.journal.journal import Journal
from flopsd.system.clock import Clock

log = logging.getLogger("flopsd")


class WriteQueue:
    """Appends to the journal. `report` is called before each record or note, which the journal then has as its next,
    and after it. `fault`: why the journal cannot be written now, empty if it can. `is_lost`: whether another process
    replaced the file, so that it can never be written again."""

    def __init__(self, journal: Journal, clock: Clock, report: Callable[[], None] = lambda: None) -> None:
        self._journal, self._clock, self.report = journal, clock, report
        self._unwritten: list[Mapping[str, Any]] = []  # oldest first
        self.last_append_ns: int | None = None
        self.fault = ""
        self.is_lost = False
        self._logged: set[str] = set()  # faults since the last good write: journal and pending file may fail in turn

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._unwritten

    def append(self, record: Mapping[str, Any], *, keep: bool = True) -> bool:
        """Append durably, after all records that were refused before; return whether it is written. A refused record is
        kept, unless `keep` is false. A refused checkpoint is not kept: the next one repeats it with its gaps. Raises
        UnreadableRecordError for a record that can never be written, unless it is a checkpoint."""
        if self.is_lost:
            return False  # everything is written again once a new journal can begin
        try:
            # An unwritable record, if kept, would block all later ones. With a code, the line is at its longest.
            frame(GENESIS, record, lambda head: head[:CODE_BYTES])
        except UnreadableRecordError as fault:
            self.complain(fault)
            if record["kind"] != "checkpoint":
                raise
            return False
        self._unwritten.append(record)
        try:
            while self._unwritten:
                self._journal.append(self._unwritten[0], self.report)
                self._unwritten.pop(0)
                self.report()
        except JournalError as fault:
            self.is_lost = self.is_lost or isinstance(fault, JournalReplacedError)
            if record["kind"] == "checkpoint" or not keep:
                self._unwritten.remove(record)
            self.complain(fault)
            return False
        if self.fault:
            log.warning("the journal can be written again; all that was kept in memory is in it")
        self._logged.clear()
        self.fault, self.last_append_ns = "", self._clock.boottime_ns()
        return True

    def note(self, record: Callable[[], Mapping[str, Any]]) -> None:
        """Make the totals up to now survive a kill, though not a power loss. A pending record must not name a device
        that the journal lacks, so none is written while a record is refused."""
        if self._unwritten or self.is_lost:
            return
        try:
            self._journal.note(record(), self.report)
            self.report()
        except JournalError as fault:
            self.complain(fault)

    def complain(self, fault: JournalError) -> None:
        """Log a fault once."""
        if str(fault) not in self._logged:
            log.error("%s; %s", fault, fault.hint or "metering goes on in memory")
        self._logged.add(str(fault))
        self.fault = str(fault)


def checkpoint_line(view: RunView, journal: Journal, segment: int | None) -> str:
    """Return one line for the platform's log service, where the host cannot change it later. `segment`: the number of
    the journal in a rotated run; None: the run is not rotated."""
    figures, ppm = view.figures, view.coverage_ppm
    fields = {
        "run": view.run,
        "node": view.node,
        **({} if segment is None else {"segment": segment}),
        "incarnation": view.start,
        "records": journal.records,
        "bytes": journal.size_bytes,
        "head": journal.head_sha256,
        "low_flop": figures.low_flop,
        "measured_flop": figures.measured_flop,
        "high_flop": figures.high_flop,
    }
    text = "flopsd-checkpoint " + " ".join(f"{k}={'unknown' if v is None else v}" for k, v in fields.items())
    code = journal.code_of_print(text)
    # The last value of a line may be cut off, so the last one is a value that no verifier reads.
    return f"{text}{'' if code is None else f' code={code}'} coverage_ppm={'unknown' if ppm is None else ppm}"
