"""Write the files of a ledger so that a reader always finds files that match.

Several files cannot be replaced at once. A ledger matches every journal that begins with its sealed part, so the longer
journal is written first and the ledger last: in between, the older ledger lies next to a longer journal.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flopsd.errors import LedgerError
from flopsd.system.atomic_files import replace_file
from flopsd.system.clock import NS_PER_S, Clock, file_stamp

LOCK_SECONDS, POLL_SECONDS = 5.0, 0.05


@dataclass(frozen=True, slots=True)
class LedgerFiles:
    """The contents of the files of one ledger; no peak table if it is a packaged one."""

    ledger: bytes
    journal: bytes
    public_key: bytes
    peaks: bytes | None = None


def journal_beside(ledger: Path) -> Path:
    """The path of a ledger's journal: the ledger's stem with `.journal.jsonl`."""
    return ledger.parent / f"{ledger.stem}.journal.jsonl"


def public_key_beside(ledger: Path) -> Path:
    return ledger.parent / f"{ledger.stem}.pub"


def peaks_beside(ledger: Path) -> Path:
    """The path of a ledger's peak table if it is not a packaged one."""
    return ledger.parent / f"{ledger.stem}.peaks.yaml"


def write_ledger_files(ledger: Path, new: LedgerFiles, clock: Clock, *, only_longer: bool = False) -> None:
    """Write the files of `ledger`, the ledger itself last. Existing files of another run or key are kept under another
    name. Raises LedgerError if the existing ledger covers more, or with `only_longer` as much; OSError.
    """
    if ledger.is_dir():
        raise LedgerError(f"{ledger} is a folder", hint=f"give --ledger a file, such as {ledger / 'ledger.json'}")
    ledger.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(ledger)
    beside = _read(journal_beside(ledger))
    if ledger.exists() and beside is not None:
        known, wanted = len(beside), len(new.journal)
        if beside.startswith(new.journal) and (known > wanted or only_longer):
            raise LedgerError(
                f"{ledger} already covers {known} bytes of this journal, and this seal only {wanted}",
                hint="nothing was changed; to seal an older state of the run, give --ledger another file name",
            )
    if ledger.exists() and not _continues(ledger, beside, new):
        _move_aside(ledger, clock)
    replace_file(journal_beside(ledger), new.journal)
    if new.peaks is not None:
        replace_file(peaks_beside(ledger), new.peaks)
    replace_file(public_key_beside(ledger), new.public_key)
    replace_file(ledger, new.ledger)


@contextmanager
def ledger_files_lock(lock: Path | None, clock: Clock) -> Iterator[None]:
    """Wait a few seconds at most for another process that writes ledger files: no ledger may be lost to a lock."""
    fd = -1
    try:
        if lock is not None:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        pass  # a full or read-only disk; writing the files reports that
    try:
        deadline_ns, never = clock.boottime_ns() + round(LOCK_SECONDS * NS_PER_S), threading.Event()
        while fd >= 0 and not _locked(fd) and clock.boottime_ns() < deadline_ns:
            clock.wait(never, POLL_SECONDS)
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _continues(ledger: Path, beside: bytes | None, new: LedgerFiles) -> bool:
    """Whether the existing ledger matches the new files too, until it is replaced."""
    key, peaks = _read(public_key_beside(ledger)), _read(peaks_beside(ledger))
    return (
        beside is not None
        and new.journal.startswith(beside)
        and key == new.public_key
        and (peaks is None or new.peaks is None or peaks == new.peaks)
    )


def _move_aside(ledger: Path, clock: Clock) -> None:
    """Rename the files of another run's or key's ledger, with the time until which they were here."""
    kept = ledger.with_name(f"{ledger.stem}-until-{file_stamp(clock.wall_ns())}{ledger.suffix}")
    for where in (journal_beside, public_key_beside, peaks_beside):
        data = _read(where(ledger))
        if data is not None:
            replace_file(where(kept), data)
    os.rename(ledger, kept)
    peaks_beside(ledger).unlink(missing_ok=True)


def _remove_unfinished(ledger: Path) -> None:
    """Remove the unfinished files of a process that was killed while sealing."""
    names = {path.name for path in (ledger, *(f(ledger) for f in (journal_beside, public_key_beside, peaks_beside)))}
    for path in ledger.parent.glob(".*"):
        match = re.fullmatch(r"\.(.+)\.[0-9]+", path.name)
        if match and match[1] in names:
            path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
