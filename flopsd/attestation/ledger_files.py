"""Write the files of a ledger so that a reader always finds files that match.

Several files cannot be replaced at once. A ledger matches every journal that begins with its sealed part, so the longer
journal is written first and the ledger last: in between, the older ledger lies next to a longer journal.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from flopsd.core.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from flopsd.core.untrusted import parse_json
from flopsd.core.values import is_digest
from flopsd.errors import LedgerError, NotVerifiedError, OtherFileThereError
from flopsd.system.atomic_files import remove_unfinished, sync_folder
from flopsd.system.clock import NS_PER_S, Clock, file_stamp
from flopsd.system.known_files import Content, begin_alike, known_file, put_file, sha256_of, size_of
from flopsd.system.regular_files import open_regular

LEDGER_MODE = 0o644  # to be handed on, whatever the umask of the job
LOCK_SECONDS, POLL_SECONDS = 5.0, 0.05


class LedgerFiles(NamedTuple):
    """The files of one ledger; no journal of a merged one, no peak table if it is a packaged one."""

    ledger: Content
    journal: Content | None
    public_key: Content
    peaks: Content | None = None

    def beside(self, ledger: Path) -> dict[Path, Content]:
        """Path and content of each if the ledger is called `ledger`, in the order of writing: the ledger is last."""
        found = {
            journal_beside(ledger): self.journal,
            peaks_beside(ledger): self.peaks,
            public_key_beside(ledger): self.public_key,
            ledger: self.ledger,
        }
        return {path: content for path, content in found.items() if content is not None}


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


def read_ledger_files(ledger: Path) -> LedgerFiles:
    """The files of a ledger as they are now. Raises OSError."""
    journal, public_key, peaks = (known_file(path) if path.exists() else None for path in _all_beside(ledger))
    if public_key is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(public_key_beside(ledger)))
    return LedgerFiles(known_file(ledger), journal, public_key, peaks)


def write_ledger_files(
    ledger: Path, new: LedgerFiles, clock: Clock, *, only_longer: bool = False, keep: bool = False
) -> None:
    """Write the files of `ledger`, the ledger itself last. Existing files of another run or key, with `keep` any, are
    kept under another name; where all are there already, nothing happens. Raises LedgerError if the existing ledger
    covers more, or with `only_longer` as much; OSError, FileChangedError.
    """
    if ledger.is_dir():
        raise LedgerError(f"{ledger} is a folder", hint=f"give --ledger a file, such as {ledger / 'ledger.json'}")
    ledger.parent.mkdir(parents=True, exist_ok=True)
    for path in (ledger, *_all_beside(ledger)):
        remove_unfinished(path)
    files = new.beside(ledger)
    if not only_longer and all(_has(path, content) for path, content in reversed(files.items())):
        return
    there, continues = journal_beside(ledger), False
    if ledger.exists() and there.exists() and new.journal is not None and begin_alike(there, new.journal):
        known, wanted = there.stat().st_size, size_of(new.journal)
        if known > wanted or (known == wanted and only_longer):
            raise OtherFileThereError(
                f"{ledger} already covers {known} bytes of this journal, and this seal only {wanted}",
                hint="nothing was changed; to seal an older state of the run, give --ledger another file name",
            )
        continues = _fits(ledger, new)
    exists = ledger.exists()
    if exists and (keep or not continues):
        _keep_aside(ledger, clock)
    if exists and not continues:
        for path in (ledger, *(path for path in _all_beside(ledger) if path not in files)):
            path.unlink(missing_ok=True)
    for path, content in files.items():
        put_file(path, content, LEDGER_MODE)


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


def _all_beside(ledger: Path) -> tuple[Path, ...]:
    return tuple(where(ledger) for where in BESIDE)


def _has(path: Path, content: Content) -> bool:
    same_size = path.exists() and path.stat().st_size == size_of(content)
    return same_size and known_file(path).sha256 == sha256_of(content)


def _fits(ledger: Path, new: LedgerFiles) -> bool:
    """Whether the existing ledger goes with the new key and peak table too, until it is replaced."""
    peaks = peaks_beside(ledger)
    return _has(public_key_beside(ledger), new.public_key) and (
        new.peaks is None or not peaks.exists() or _has(peaks, new.peaks)
    )


def _keep_aside(ledger: Path, clock: Clock) -> None:
    """Give the files of a ledger a second name, with the time until which they had the first. They are linked, where
    the file system has links, and take no space."""
    kept = _unused(ledger, f"until-{file_stamp(clock.wall_ns())}")
    for where in (*BESIDE, Path):  # the ledger last
        if where(ledger).exists():
            try:
                os.link(where(ledger), where(kept))
            except OSError:
                put_file(where(kept), known_file(where(ledger)), LEDGER_MODE)
    sync_folder(kept.parent)


def _unused(ledger: Path, word: str) -> Path:
    """A name of which no file exists yet: the wall clock may step back to a time that a kept ledger has."""
    kept, number = ledger.with_name(f"{ledger.stem}-{word}{ledger.suffix}"), 1
    while any(os.path.lexists(path) for path in (kept, *(where(kept) for where in BESIDE))):
        kept, number = ledger.with_name(f"{ledger.stem}-{word}-{number}{ledger.suffix}"), number + 1
    return kept
