"""The part of a journal that a ledger seals: its first complete records, identified by their size in bytes.

A journal may grow while it is sealed; what follows is not part of the seal.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flopsd.core.ledger.statement import JournalFacts
from flopsd.errors import JournalDamagedError, JournalError
from flopsd.journal.framing import GENESIS, JournalLine, looks_like_records, read_lines
from flopsd.journal.journal import read_journal
from flopsd.system.progress import Progress, no_progress
from flopsd.system.regular_files import open_regular


@dataclass(frozen=True, slots=True)
class Prefix:
    """Complete records from the beginning of a journal. `left_out_bytes` after them are not one, for `reason`."""

    data: bytes
    facts: JournalFacts
    left_out_bytes: int = 0
    reason: str = ""

    def lines(self) -> Iterator[JournalLine]:
        return read_lines(io.BytesIO(self.data))


def read_durable(path: Path) -> bytes:
    """The bytes of a file that may be growing, synced to disk first: a power cut must not remove from the journal what
    is sealed. Raises JournalError."""
    try:
        with path.open("rb") as file:
            data = file.read()
            _sync(file.fileno())
    except OSError as fault:
        raise JournalError(f"cannot read the journal {path}: {fault.strerror}") from fault
    return data


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as fault:
        # A file system that answers this does not lose data in a power cut.
        if fault.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):
            raise


def longest_prefix(data: bytes) -> Prefix:
    """The longest valid prefix of a journal's bytes.

    Raises JournalDamagedError if records follow the damage: then the file was altered, not cut by a crash.
    """
    head, count, size, reason = GENESIS, 0, 0, ""
    try:
        for line in read_lines(io.BytesIO(data)):
            head, count, size = line.head, line.number, line.end
    except JournalDamagedError as fault:
        if looks_like_records(io.BytesIO(data[size:])):
            raise
        reason = str(fault)
    whole = data[:size]
    facts = JournalFacts(hashlib.sha256(whole).hexdigest(), size, count, head.hex())
    return Prefix(whole, facts, len(data) - size, reason)


def sealed_part(path: Path, size_bytes: int, progress: Progress = no_progress) -> tuple[JournalFacts, int]:
    """The identity of the first `size_bytes` of a journal, and the number of records of the same chain that follow.

    The whole file is read. Raises JournalDamagedError if its chain breaks anywhere, JournalError if it is unreadable.
    """
    head, count, further = GENESIS, 0, 0
    for line in read_journal(path):
        progress("checking the chain of the journal", line.end, size_bytes)
        if line.end <= size_bytes:
            head, count = line.head, line.number
        else:
            further += 1
    digest, left = hashlib.sha256(), size_bytes
    with open_regular(path) as file:
        while chunk := file.read(min(left, 1 << 20)):
            digest.update(chunk)
            left -= len(chunk)
    return JournalFacts(digest.hexdigest(), size_bytes - left, count, head.hex()), further
