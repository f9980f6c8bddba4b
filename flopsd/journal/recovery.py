"""What recovery cut from a journal, and where it is kept."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from flopsd.core.dataclass import dataclass
from flopsd.core.notes import Note, note, notes_for_ledger
from flopsd.journal.framing import looks_like_records
from flopsd.journal.head import Head
from flopsd.system.sha256 import sha256

NOT_OURS = "not-ours.journal.jsonl"  # the name of a file that another process put in the journal's place


@dataclass(frozen=True, slots=True)
class Recovery:
    """What recovery cut from the end of a journal, and what else is unknown about the time before."""

    cut_bytes: int
    cut_sha256: str
    reasons: tuple[Note, ...]
    kept_as: str | None  # the file that holds what was cut; None: a line that a crash cut short

    def for_journal(self) -> dict[str, Any]:
        return {
            "cutBytes": str(self.cut_bytes),
            "cutSha256": self.cut_sha256,
            "reasons": notes_for_ledger(self.reasons),
            "keptAs": self.kept_as,
        }


def with_added_reason(recovery: Recovery | None, reason: Note) -> Recovery:
    """Return `recovery` with one more reason, which is the only one if nothing was cut."""
    if recovery is None:
        return Recovery(0, sha256(b"").hexdigest(), (reason,), None)
    return replace(recovery, reasons=(*recovery.reasons, reason))


def journal_lost(size_bytes: int, head: Head, kept_as: str | None) -> Recovery:
    """Return what the first `begin` records in a journal that replaces a lost one, of which `head` is known."""
    reason = note("journal_replaced", records=str(head.records), head=head.sha256)
    return Recovery(size_bytes, head.sha256, (reason,), kept_as)


def cut_rest(path: Path, fd: int, size: int, reason: Note, aside: Path) -> Recovery:
    """Cut what follows the first `size` bytes off the journal at `path`, which is open as `fd`. If that may be records,
    first copy it durably to the new file `aside`. Raises OSError."""
    with path.open("rb") as file:
        file.seek(size)
        kept = aside if looks_like_records(file) else None
        file.seek(size)
        digest, count = _copy_rest(file, kept)
    os.ftruncate(fd, size)
    os.fsync(fd)
    return Recovery(count, digest, (reason,), None if kept is None else kept.name)


def _copy_rest(file: IO[bytes], to: Path | None) -> tuple[str, int]:
    """Return SHA-256 and size of the rest of `file`, copied durably to the new file `to`, if given."""
    digest, count = sha256(b""), 0
    with open(os.devnull if to is None else to, "wb" if to is None else "xb") as copy:
        if to is not None:
            os.fchmod(copy.fileno(), 0o600)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            count += copy.write(chunk)
        copy.flush()
        if to is not None:
            os.fsync(copy.fileno())
    return digest.hexdigest(), count
