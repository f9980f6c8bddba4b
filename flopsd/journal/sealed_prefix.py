"""The part of a journal that a ledger seals: its first complete records, identified by their size in bytes.

A journal may grow while it is sealed; later records are not part of the seal. It is read once, a line at a time: a run
of months has a journal that is larger than the memory of its meter.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from flopsd.core.ledger.segments import JournalFacts
from flopsd.errors import JournalDamagedError, JournalError
from flopsd.journal.framing import GENESIS, JournalLine, looks_like_records, read_lines
from flopsd.journal.reading import UNREADABLE, read_journal
from flopsd.system.bounded_streams import FirstBytes
from flopsd.system.progress import Progress, no_progress
from flopsd.system.regular_files import open_regular
from flopsd.system.sha256 import fastest

Take = Callable[[JournalLine], object]  # keeps any fault in a line to itself


class Prefix(NamedTuple):
    """Complete records from the beginning of a journal. The `left_out_bytes` after them are no record, for `reason`."""

    facts: JournalFacts
    left_out_bytes: int = 0
    reason: str = ""


class _Lines:
    """The lines from the beginning of a journal, as far as they were read."""

    def __init__(self, *takes: Take) -> None:
        self.last = JournalLine(b"", 0, GENESIS, 0)
        self._takes, self._digest = takes, fastest()(b"")

    def add(self, line: JournalLine) -> None:
        self.last = line
        self._digest.update(line.framed())
        for take in self._takes:
            take(line)

    def facts(self) -> JournalFacts:
        return JournalFacts(self._digest.hexdigest(), self.last.end, self.last.number, self.last.head.hex())


def durable_prefix(path: Path, *takes: Take) -> Prefix:
    """Return the longest valid prefix of a file that may be growing, as it is now, synced to disk: a power cut must not
    remove sealed records. `takes` get its lines. Raises what `longest_prefix` raises, JournalError."""
    try:
        with open_regular(path) as file, FirstBytes.now_in(file) as now:
            found = longest_prefix(now, *takes)
            _sync(file.fileno())
    except OSError as fault:
        raise JournalError(f"cannot read the journal {path}: {fault.strerror}", hint=UNREADABLE) from fault
    return found


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as fault:
        # A file system that gives one of these errors does not lose data in a power cut.
        if fault.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):
            raise


def longest_prefix(file: IO[bytes], *takes: Take) -> Prefix:
    """Return the longest valid prefix of a journal; `takes` get its lines. Raises JournalDamagedError if records follow
    the damage: then the file was altered, not cut by a crash."""
    read, reason = _Lines(*takes), ""
    try:
        for line in read_lines(file):
            read.add(line)
    except JournalDamagedError as fault:
        file.seek(read.last.end)
        if looks_like_records(file):
            raise
        reason = str(fault)
    return Prefix(read.facts(), file.seek(0, os.SEEK_END) - read.last.end, reason)


def sealed_part(path: Path, size_bytes: int, take: Take, progress: Progress = no_progress) -> tuple[JournalFacts, int]:
    """Return the identity of the complete records in the first `size_bytes` of a journal, and the number of records of
    the same chain that follow. `take` gets the former. The whole file is read. Raises JournalDamagedError if its chain
    breaks anywhere, JournalError if it is unreadable."""
    read, further = _Lines(take), 0
    for line in read_journal(path):
        progress("reading the journal", line.end, size_bytes)
        if line.end > size_bytes:
            further += 1
        else:
            read.add(line)
    return read.facts(), further
