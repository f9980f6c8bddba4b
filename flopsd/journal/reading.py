"""Reads a journal and the pending file next to it, which any other process may have written or damaged."""

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
    """Yield valid lines of a journal. Raises JournalDamagedError at an invalid line, JournalError on I/O errors."""
    try:
        with open_regular(path) as file:
            yield from read_lines(file, hashing=hashing)
    except OSError as fault:
        raise JournalError(f"cannot read the journal {path}: {fault.strerror}", hint=UNREADABLE) from fault


def read_live(path: Path) -> Iterator[JournalLine]:
    """Yield the valid lines of a journal that may be growing: those before the first incomplete one."""
    try:
        yield from read_journal(path)
    except JournalDamagedError:
        pass  # the daemon is writing this line now, or died in it


def newest_pending(path: Path, head: bytes, known: KnownJournal | None = None) -> Mapping[str, Any] | None:
    """Return the last good record of the pending file, if it continues the journal that ends with `head`. If the
    journal is `known`, return only a known record."""
    newest: JournalLine | None = None
    try:
        with open_regular(path) as file:
            for line in read_lines(file, head, sha256):
                if known is None or line.head.hex() in (known.pending_sha256, known.next_sha256):
                    newest = line
    except (OSError, JournalDamagedError):
        pass  # torn in its last line, or older than the journal: the good lines before that count
    try:
        return None if newest is None else newest.record()
    except JournalDamagedError:
        return None  # in the chain, but not a record: no daemon wrote it
