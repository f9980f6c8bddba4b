"""Read a journal, and the pending file beside it, from files that nobody else need have written as they should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flopsd.errors import JournalDamagedError, JournalError
from flopsd.journal.framing import JournalLine, read_lines
from flopsd.journal.head import KnownJournal
from flopsd.system.regular_files import open_regular
from flopsd.system.sha256 import Hashing, sha256

UNREADABLE = "check that disk or file server, and that this user may read the file"


def read_journal(path: Path, hashing: Hashing | None = None) -> Iterator[JournalLine]:
    """Valid lines of a journal file. Raises JournalDamagedError at the first invalid one, JournalError on I/O error."""
    try:
        with open_regular(path) as file:
            yield from read_lines(file, hashing=hashing)
    except OSError as fault:
        raise JournalError(f"cannot read the journal {path}: {fault.strerror}", hint=UNREADABLE) from fault


def read_live(path: Path) -> Iterator[JournalLine]:
    """Valid lines of a journal that may be growing: those before the first incomplete one."""
    try:
        yield from read_journal(path)
    except JournalDamagedError:
        pass  # the daemon is writing this line now, or died in it


def newest_pending(path: Path, head: bytes, known: KnownJournal | None = None) -> Mapping[str, Any] | None:
    """The last good record of the pending file, if it continues the journal that ends with `head`; where the journal is
    `known`, the last one that is."""
    newest: JournalLine | None = None
    try:
        with open_regular(path) as file:
            for line in read_lines(file, head, sha256):
                if known is None or line.head.hex() == known.pending_sha256:
                    newest = line
    except (OSError, JournalDamagedError):
        pass  # torn in its last line, or older than the journal: what is good before it counts
    try:
        return None if newest is None else newest.record()
    except JournalDamagedError:
        return None  # chained, and no record all the same: no daemon wrote it
