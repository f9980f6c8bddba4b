"""The part of a journal that a ledger seals: its first bytes, whole records all of them.

A journal grows while it is sealed, so what is sealed is named by its size, and what comes behind is not part of it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flopsd.core.ledger.journal_codec import Record
from flopsd.core.ledger.statement import JournalFacts
from flopsd.errors import JournalDamagedError, JournalError
from flopsd.journal.framing import GENESIS, looks_like_records, read_lines
from flopsd.journal.journal import read_journal


@dataclass(frozen=True, slots=True)
class Prefix:
    """Whole records from the beginning of a journal. `left_out_bytes` behind them are not one: `reason`."""

    data: bytes
    facts: JournalFacts
    left_out_bytes: int = 0
    reason: str = ""

    def records(self) -> Iterator[Record]:
        return (line.record() for line in read_lines(io.BytesIO(self.data)))


def read_durable(path: Path) -> bytes:
    """The bytes of a file that may be growing, once they are on its disk: a power cut must not take back from
    the journal what was sealed. Raises JournalError."""
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
        if fault.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):  # nothing there can be lost by a power cut
            raise


def longest_prefix(data: bytes) -> Prefix:
    """The longest valid prefix of a journal's bytes.

    Raises JournalDamagedError where records stand behind the damage: that file was altered, not torn.
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


def sealed_part(path: Path, size_bytes: int) -> tuple[JournalFacts, int]:
    """What identifies the first `size_bytes` of a journal, and how many records of the same chain follow.

    The whole file is read: one whose chain breaks anywhere is refused. Raises JournalDamagedError, JournalError.
    """
    head, count, further = GENESIS, 0, 0
    for line in read_journal(path):
        if line.end <= size_bytes:
            head, count = line.head, line.number
        else:
            further += 1
    digest, left = hashlib.sha256(), size_bytes
    with path.open("rb") as file:
        while chunk := file.read(min(left, 1 << 20)):
            digest.update(chunk)
            left -= len(chunk)
    return JournalFacts(digest.hexdigest(), size_bytes - left, count, head.hex()), further
