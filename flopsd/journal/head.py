"""What a journal must contain to be the one that was written: a point of its chain that is known from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from flopsd.core.values import is_digest
from flopsd.errors import JournalReplacedError
from flopsd.journal.framing import JournalLine

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})", re.ASCII)


class Head(NamedTuple):
    """A point of a journal: the number of records, and the chain hash of the last of them. As text `RECORDS:HASH`."""

    records: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.records}:{self.sha256}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Raises ValueError for what is not a head: a check that cannot be made is never taken for one that passed."""
        match = _HEAD.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r:.100} is not a head of a journal")
        return cls(int(match[1]), match[2])


class KnownJournal(NamedTuple):
    """What the launcher knows of its daemon's journal: its head, the chain hashes of the newest totals in the pending
    file and of what is being written to either, and the run. As text `HEAD PENDING NEXT RUN`, with `-` for none."""

    head: Head
    pending_sha256: str | None
    next_sha256: str | None
    run: str

    def __str__(self) -> str:
        return f"{self.head} {self.pending_sha256 or '-'} {self.next_sha256 or '-'} {self.run}"

    @classmethod
    def parse(cls, text: str) -> KnownJournal:
        """Raises ValueError, as `Head.parse` does."""
        head, *digests, run = [*text.split(" ", 3), *[""] * 3][:4]
        if not run or not all(digest == "-" or is_digest(digest) for digest in digests):
            raise ValueError(f"{text!r:.200} does not describe a journal")
        pending, following = (None if digest == "-" else digest for digest in digests)
        return cls(Head.parse(head), pending, following, run)


KNOWN_BYTES = 1024  # the size of such a text in the launcher's file
NOT_ANY = KnownJournal(Head(1, "0" * 64), None, None, "")  # no journal is this one


class RequiredHead:
    """Whether the lines of a journal, taken one by one, pass through a head; they do if none is required."""

    def __init__(self, head: Head | None) -> None:
        self._head = None if head is None or head.records == 0 else head
        self.is_passed = self._head is None

    def take(self, line: JournalLine) -> None:
        """Take in the next line."""
        if self._head is not None and line.number == self._head.records:
            self.is_passed = line.head.hex() == self._head.sha256

    def require(self, path: Path) -> None:
        """Raises JournalReplacedError unless the lines of `path` passed through the head."""
        if self._head is not None and not self.is_passed:
            raise replaced(path, self._head)


def replaced(path: Path, head: Head) -> JournalReplacedError:
    """Return the error for a journal that does not contain `head`."""
    return JournalReplacedError(
        f"{path} is not the journal that was written: it does not contain record {head.records} with chain hash "
        f"{head.sha256[:16]}…",
        hint="another process put its own file in place; that content is not this run's and is not signed",
    )
