"""Puts a ledger and what belongs to it in place, so that a reader at any moment finds files that fit together.

Several files cannot be replaced at once. A ledger fits every journal that begins with its sealed part, so the longer
journal goes first and the ledger last: in between, the older ledger stands beside a journal that goes on.
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
from flopsd.system.clock import NS_PER_S, Clock, rfc3339

LOCK_SECONDS, POLL_SECONDS = 5.0, 0.05


@dataclass(frozen=True, slots=True)
class LedgerFiles:
    """The contents of the files of one ledger; no peak table where it is a packaged one."""

    ledger: bytes
    journal: bytes
    public_key: bytes
    peaks: bytes | None = None


def journal_beside(ledger: Path) -> Path:
    """Where the journal of a ledger lies: the ledger's stem with `.journal.jsonl`."""
    return ledger.parent / f"{ledger.stem}.journal.jsonl"


def public_key_beside(ledger: Path) -> Path:
    return ledger.parent / f"{ledger.stem}.pub"


def peaks_beside(ledger: Path) -> Path:
    """Where the peak table of a ledger lies when it is not a packaged one."""
    return ledger.parent / f"{ledger.stem}.peaks.yaml"


def write_ledger_files(ledger: Path, exhibits: LedgerFiles, clock: Clock, *, only_longer: bool = False) -> None:
    """Write the files of `ledger`, itself last. What stands there and is no earlier state of them is kept under
    another name. Raises LedgerError where what stands there covers more, or with `only_longer` as much; OSError.
    """
    if ledger.is_dir():
        raise LedgerError(f"{ledger} is a folder", hint=f"--ledger names a file, such as {ledger / 'ledger.json'}")
    ledger.parent.mkdir(parents=True, exist_ok=True)
    _sweep(ledger)
    beside = _read(journal_beside(ledger))
    if ledger.exists() and beside is not None:
        known, wanted = len(beside), len(exhibits.journal)
        if beside.startswith(exhibits.journal) and (known > wanted or only_longer):
            raise LedgerError(
                f"{ledger} lies beside {known} bytes of this very journal already; these are {wanted}",
                hint="nothing was changed; give --ledger another place for an older state of the run",
            )
    if ledger.exists() and not _continues(ledger, beside, exhibits):
        _put_aside(ledger, clock)
    replace_file(journal_beside(ledger), exhibits.journal)
    if exhibits.peaks is not None:
        replace_file(peaks_beside(ledger), exhibits.peaks)
    replace_file(public_key_beside(ledger), exhibits.public_key)
    replace_file(ledger, exhibits.ledger)


@contextmanager
def placing_lock(lock: Path | None, clock: Clock) -> Iterator[None]:
    """Wait for whoever is placing files just now, a few seconds at most: a lock must not cost a ledger."""
    fd = -1
    try:
        if lock is not None:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        pass  # a full or read-only disk; placing will say so itself
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


def _continues(ledger: Path, beside: bytes | None, exhibits: LedgerFiles) -> bool:
    """Whether the ledger that stands there fits the new files too, until it is replaced."""
    key, peaks = _read(public_key_beside(ledger)), _read(peaks_beside(ledger))
    return (
        beside is not None
        and exhibits.journal.startswith(beside)
        and key == exhibits.public_key
        and (peaks is None or exhibits.peaks is None or peaks == exhibits.peaks)
    )


def _put_aside(ledger: Path, clock: Clock) -> None:
    """Another run's ledger, or another key's: keep it, complete, under a name that tells until when it stood here."""
    stamp = rfc3339(clock.wall_ns()).replace(":", "").replace("-", "").replace(".", "")
    kept = ledger.with_name(f"{ledger.stem}-until-{stamp}{ledger.suffix}")
    for where in (journal_beside, public_key_beside, peaks_beside):
        data = _read(where(ledger))
        if data is not None:
            replace_file(where(kept), data)
    os.rename(ledger, kept)
    peaks_beside(ledger).unlink(missing_ok=True)


def _sweep(ledger: Path) -> None:
    """Remove what a sealer that was killed left of its unfinished files."""
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
