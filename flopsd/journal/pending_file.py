"""The pending file: the totals after every reading, unsynced, in lines that continue the chain of the journal."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flopsd.errors import JournalError
from flopsd.journal.framing import GENESIS, JournalLine, frame
from flopsd.journal.head import KnownJournal
from flopsd.journal.reading import newest_pending
from flopsd.system.regular_files import open_own, write_at

_CLOSED = -1  # in place of a descriptor
TOTALS_HOLD_AFTER = ("sealed", "declaration")  # the kinds of records after which pending totals still hold
MOST_AFTER_TOTALS = 64  # such records in a row


class PendingFile:
    """The pending file, written by one process. Methods raise OSError unless they name another error."""

    def __init__(self, path: Path) -> None:
        self._path, self._fd = path, _CLOSED
        self._head, self._size = GENESIS, 0
        self._kept_sha256: str | None = None  # of the newest line, if later records of the journal keep it valid
        self.is_repeated = False  # whether its content is in the journal too: `close` then empties it

    @property
    def newest_sha256(self) -> str | None:
        """The chain hash of the newest totals that the journal does not have; None: there are none."""
        return self._head.hex() if self._size else self._kept_sha256

    def open(self) -> None:
        if self._fd == _CLOSED:
            self._fd = open_own(self._path)

    def newest(
        self, head: bytes, last: deque[tuple[bytes, JournalLine]], known: KnownJournal | None
    ) -> Mapping[str, Any] | None:
        """Return the newest totals that continue the journal, which ends with `head`, or that its `last` lines keep
        valid, each given with the head before it. If the journal is `known`, return only the known totals."""
        newest = newest_pending(self._path, head, known)
        while newest is None and last and last[-1][1].kind() in TOTALS_HOLD_AFTER:
            newest = newest_pending(self._path, last.pop()[0], known)
        return newest

    def follow(self, head: bytes, record: Mapping[str, Any]) -> None:
        """Note that the journal has another record, and ends with `head`. Totals that the record keeps valid stay until
        the next note: the launcher may not know of the record yet, and recovery then cuts it."""
        self._kept_sha256 = self.newest_sha256 if record.get("kind") in TOTALS_HOLD_AFTER else None
        self._head, self._size, self.is_repeated = head, 0, self._kept_sha256 is None

    def write(self, record: Mapping[str, Any], announce: Callable[[bytes], None]) -> None:
        """Append totals, or replace content that the journal has or that later records keep valid: a kill leaves one
        or the other. `announce` is called before, with their chain hash. Raises JournalError."""
        line, head = frame(self._head, record)
        try:
            announce(head)
            if self._size == 0:
                self._open_again()
            write_at(self._fd, line, self._size)
            if self._size == 0:
                os.ftruncate(self._fd, len(line))
        except OSError as fault:
            raise JournalError(f"cannot write {self._path}: {fault.strerror}") from fault
        self._head, self._size = head, self._size + len(line)
        self._kept_sha256, self.is_repeated = None, False

    def empty(self, head: bytes) -> None:
        """Empty the file, to continue the journal that ends with `head`."""
        self._head, self._size = head, 0
        self._open_again()
        os.ftruncate(self._fd, 0)

    def _open_again(self) -> None:
        """Open the file, also if another process removed the open one."""
        if self._fd != _CLOSED and not os.fstat(self._fd).st_nlink:
            os.close(self._fd)
            self._fd = _CLOSED
        self.open()

    def close(self) -> None:
        if self._fd != _CLOSED:
            if self.is_repeated:
                with suppress(OSError):
                    os.ftruncate(self._fd, 0)
            os.close(self._fd)
        self._fd = _CLOSED
