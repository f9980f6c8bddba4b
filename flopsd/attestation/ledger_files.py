"""Write the files of a ledger so that a reader always finds files that match.

Several files cannot be replaced at once. A ledger matches every journal that begins with its sealed part, so the longer
journal is written first and the ledger last: in between, the older ledger lies next to a longer journal.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flopsd.core.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from flopsd.core.untrusted import parse_json
from flopsd.core.values import is_digest
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.system.atomic_files import remove_unfinished, replace_file
from flopsd.system.clock import NS_PER_S, Clock, file_stamp
from flopsd.system.regular_files import open_regular

LEDGER_MODE = 0o644  # to be handed on, whatever the umask of the job
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


def disclosed_secrets(ledger: Path) -> list[bytes]:
    """The secrets that a ledger discloses: who seals its journal again, or a continued one, knows them from here only.
    They need no trust, since a journal names its own by their SHA-256."""
    try:
        with open_regular(ledger) as file:
            envelope = parse_envelope(file.read(MAX_ENVELOPE_BYTES + 1))
        secrets = parse_json(envelope.payload, "the payload")["predicate"]["method"]["codeSecrets"]
        return [bytes.fromhex(secret) for secret in secrets if is_digest(secret)]
    except (OSError, NotVerifiedError, LookupError, TypeError):
        return []


BESIDE = (journal_beside, public_key_beside, peaks_beside)


def write_ledger_files(ledger: Path, new: LedgerFiles, clock: Clock, *, only_longer: bool = False) -> None:
    """Write the files of `ledger`, the ledger itself last. Existing files of another run or key are kept under another
    name. Raises LedgerError if the existing ledger covers more, or with `only_longer` as much; OSError.
    """
    if ledger.is_dir():
        raise LedgerError(f"{ledger} is a folder", hint=f"give --ledger a file, such as {ledger / 'ledger.json'}")
    ledger.parent.mkdir(parents=True, exist_ok=True)
    for path in (ledger, *(where(ledger) for where in BESIDE)):
        remove_unfinished(path)
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
    replace_file(journal_beside(ledger), new.journal, LEDGER_MODE)
    if new.peaks is not None:
        replace_file(peaks_beside(ledger), new.peaks, LEDGER_MODE)
    replace_file(public_key_beside(ledger), new.public_key, LEDGER_MODE)
    replace_file(ledger, new.ledger, LEDGER_MODE)


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
    kept = _unused(ledger, f"until-{file_stamp(clock.wall_ns())}")
    for where in BESIDE:
        data = _read(where(ledger))
        if data is not None:
            replace_file(where(kept), data, LEDGER_MODE)
    os.rename(ledger, kept)
    peaks_beside(ledger).unlink(missing_ok=True)


def _unused(ledger: Path, word: str) -> Path:
    """A name of which no file exists yet: the wall clock may step back to a time that a kept ledger has."""
    kept, number = ledger.with_name(f"{ledger.stem}-{word}{ledger.suffix}"), 1
    while any(os.path.lexists(path) for path in (kept, *(where(kept) for where in BESIDE))):
        kept, number = ledger.with_name(f"{ledger.stem}-{word}-{number}{ledger.suffix}"), number + 1
    return kept


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
