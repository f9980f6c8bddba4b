"""Write the files of a ledger so that a reader finds matching files at any moment.

Several files cannot be replaced at once. A ledger matches every journal that begins with its sealed part, so the longer
journal is written first and the ledger last: in between, the older ledger lies next to a longer journal.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from flopsd.core.companions import MAX_COMPANION_BYTES, is_companion_name, name_has_digest
from flopsd.core.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from flopsd.core.untrusted import parse_json
from flopsd.core.values import is_digest, whole_number
from flopsd.errors import NotVerifiedError, OtherFileThereError
from flopsd.journal.segments import ENDING
from flopsd.settings.data_files import companion_beside
from flopsd.settings.locations import refuse_place
from flopsd.system.atomic_files import remove_unfinished, sync_path
from flopsd.system.clock import NS_PER_S, Clock, file_stamp
from flopsd.system.file_presence import exists, is_file
from flopsd.system.known_files import (
    Content,
    KnownFile,
    known_file,
    one_extends_other,
    put_file,
    refuse_changed,
    sha256_of,
    size_of,
)
from flopsd.system.regular_files import read_at_most

log = logging.getLogger("flopsd")
LEDGER_MODE = 0o644  # to be handed on, whatever the umask of the job
LOCK_SECONDS, POLL_SECONDS = 5.0, 0.05


class LedgerFiles(NamedTuple):
    """The files of one ledger; a merged ledger has no journal. `companions`: the peak tables and policies that flopsd
    does not ship, by name."""

    ledger: Content
    journal: Content | None
    public_key: Content
    companions: Mapping[str, Content] = MappingProxyType({})

    def beside(self, ledger: Path) -> dict[Path, Content]:
        """Path and content of each file if the ledger is called `ledger`, in the order of writing: the ledger last."""
        found = {
            journal_beside(ledger): self.journal,
            **{companion_beside(ledger, name): content for name, content in self.companions.items()},
            public_key_beside(ledger): self.public_key,
            ledger: self.ledger,
        }
        return {path: content for path, content in found.items() if content is not None}


def journal_beside(ledger: Path) -> Path:
    """The path of a ledger's journal: the ledger's stem with `.journal.jsonl`."""
    return ledger.parent / (ledger.stem + ENDING)


def public_key_beside(ledger: Path) -> Path:
    return ledger.parent / f"{ledger.stem}.pub"


def journal_and_key_beside(ledger: Path) -> tuple[Path, Path]:
    """The paths of a ledger's journal and public key."""
    return journal_beside(ledger), public_key_beside(ledger)


def companions_beside(ledger: Path) -> dict[str, KnownFile]:
    """The companions of a ledger, by name. A file that has such a name but is not regular, is too large or has another
    digest is left out. Raises OSError."""
    before, found = f"{ledger.stem}.", {}
    for entry in sorted(os.listdir(ledger.parent)):
        name = entry.removeprefix(before)
        if not entry.startswith(before) or not is_companion_name(name):
            continue
        try:
            file = known_file(ledger.parent / entry, MAX_COMPANION_BYTES + 1)
        except OSError:
            continue
        if file.size_bytes <= MAX_COMPANION_BYTES and name_has_digest(name, file.sha256):
            found[name] = file
    return found


def paths_of(ledger: Path, other: Path) -> dict[Path, Path]:
    """The existing files of `ledger`, each with its path if the ledger is called `other`; the ledger last."""
    found = {journal_beside(ledger): journal_beside(other), public_key_beside(ledger): public_key_beside(other)}
    found |= {file.path: companion_beside(other, name) for name, file in companions_beside(ledger).items()}
    return {path: there for path, there in {**found, ledger: other}.items() if exists(path)}


def disclosed_secrets(ledger: Path) -> list[bytes]:
    """The secrets that a ledger discloses; sealing its journal again, or a continued one, finds them only here. They
    need no trust, since a journal names its secrets by their SHA-256."""
    try:
        envelope = parse_envelope(read_at_most(ledger, MAX_ENVELOPE_BYTES))
        secrets = parse_json(envelope.payload, "the payload")["predicate"]["method"]["codeSecrets"]
        return [bytes.fromhex(secret) for secret in secrets if is_digest(secret)]
    except (OSError, NotVerifiedError, LookupError, TypeError):
        return []


def is_countersigned(ledger: Path) -> bool:
    """Whether the ledger has signatures besides the seal's. Only the other signers can make those again."""
    try:
        return len(parse_envelope(read_at_most(ledger, MAX_ENVELOPE_BYTES)).signatures) > 1
    except (OSError, NotVerifiedError):
        return False


def read_ledger_files(ledger: Path) -> LedgerFiles:
    """The files of a ledger as they are now. Raises OSError."""
    journal, public_key = (known_file(path) if exists(path) else None for path in journal_and_key_beside(ledger))
    if public_key is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(public_key_beside(ledger)))
    return LedgerFiles(known_file(ledger), journal, public_key, companions_beside(ledger))


def write_ledger_files(
    ledger: Path, new: LedgerFiles, clock: Clock, *, only_longer: bool = False, keep: bool = False
) -> None:
    """Write the files of `ledger`, the ledger itself last, unless all are there already. Existing files are kept under
    another name if they are of another run or key, if others signed the ledger too, or with `keep`. Raises LedgerError
    if the existing ledger covers more, or with `only_longer` as much; OSError, FileChangedError."""
    refuse_place(ledger)
    ledger.parent.mkdir(parents=True, exist_ok=True)
    files = new.beside(ledger)
    for path in dict.fromkeys((*files, *journal_and_key_beside(ledger))):
        remove_unfinished(path)
    if all(_has(path, content) for path, content in reversed(files.items())):
        return
    there, continues = journal_beside(ledger), False
    if exists(ledger) and exists(there) and new.journal is not None and one_extends_other(there, new.journal):
        known, wanted = there.stat().st_size, size_of(new.journal)
        if known > wanted or (known == wanted and only_longer and _covers(ledger, wanted)):
            raise OtherFileThereError(
                f"{there} has {known} bytes of this journal, this seal only {wanted}"
                if known > wanted
                else f"{ledger} already covers {known} bytes of this journal, and this seal no more",
                hint="nothing was changed; to seal an older state of the run, give --ledger another file name",
            )
        continues = _has(public_key_beside(ledger), new.public_key) and not is_countersigned(ledger)
    was_there = exists(ledger)
    if was_there and not continues:
        refuse_changed(files.values())  # a journal that was rotated meanwhile must not displace its own ledger
    if (was_there and (keep or not continues)) or (not was_there and _is_left_of_another(ledger, new)):
        kept = _keep_aside(ledger, clock)
        if not continues:
            log.warning(
                "%s held a ledger that is not an earlier state of this one, or that others signed: it is kept as %s",
                ledger,
                kept,
            )
    if was_there and not continues:
        for path in (ledger, *(path for path in journal_and_key_beside(ledger) if path not in files)):
            path.unlink(missing_ok=True)
    for path, content in files.items():
        put_file(path, content, LEDGER_MODE)
    remove_companions(ledger, but=new.companions)


def _covers(ledger: Path, size_bytes: int) -> bool:
    """Whether an existing ledger covers as much of its journal: if a seal was killed between the two files, the journal
    is new and the ledger is not."""
    try:
        envelope = parse_envelope(read_at_most(ledger, MAX_ENVELOPE_BYTES))
        sealed = parse_json(envelope.payload, "the payload")["predicate"]["method"]["journal"]["bytes"]
        return whole_number(sealed) >= size_bytes
    except (OSError, NotVerifiedError, LookupError, TypeError, ValueError):
        return True


def _is_left_of_another(ledger: Path, new: LedgerFiles) -> bool:
    """Whether a key or journal without a ledger, as an interrupted copy leaves it, lies there and does not belong to
    `new`: it may be all that is left of a run. Raises OSError."""
    key, journal = public_key_beside(ledger), journal_beside(ledger)
    return (is_file(key) and not _has(key, new.public_key)) or (
        new.journal is not None and is_file(journal) and not one_extends_other(journal, new.journal)
    )


def remove_companions(ledger: Path, *, but: Container[str]) -> None:
    """Remove the companions of a replaced ledger, except the names in `but`. Raises OSError."""
    for name, file in companions_beside(ledger).items():
        if name not in but:
            file.path.unlink(missing_ok=True)


@contextmanager
def ledger_files_lock(lock: Path | None, clock: Clock) -> Iterator[None]:
    """Wait up to LOCK_SECONDS for another process that writes ledger files, then go on: no lock may cost a ledger."""
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


def _has(path: Path, content: Content) -> bool:
    same_size = exists(path) and path.stat().st_size == size_of(content)
    return same_size and known_file(path).sha256 == sha256_of(content)


def names_in(folder: Path) -> list[str]:
    """The names in a folder; empty if there is no folder. Raises OSError if it cannot be listed; `Path.glob` of
    Python 3.13 and later does not."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def kept_aside(ledger: Path, names: Iterable[str]) -> list[Path]:
    """The ledgers among `names` that were kept when another ledger was written to `ledger`."""
    begin, end = f"{ledger.stem}-until-", ledger.suffix
    return [ledger.with_name(name) for name in names if name.startswith(begin) and name.endswith(end)]


def _keep_aside(ledger: Path, clock: Clock) -> Path:
    """Give the files of a ledger a second name, with the time until which they had the first, and return its path.
    They are hard links where the file system allows, which take no space."""
    kept = _unused(ledger, f"until-{file_stamp(clock.wall_ns())}")
    for path, there in paths_of(ledger, kept).items():
        try:
            os.link(path, there)
        except OSError:
            put_file(there, known_file(path), LEDGER_MODE)
    sync_path(kept.parent)
    return kept


def _unused(ledger: Path, word: str) -> Path:
    """A name that no file has yet: the wall clock may step back to the time of a ledger kept before."""
    kept, number = ledger.with_name(f"{ledger.stem}-{word}{ledger.suffix}"), 1
    while any(os.path.lexists(path) for path in (kept, *journal_and_key_beside(kept))):
        kept, number = ledger.with_name(f"{ledger.stem}-{word}-{number}{ledger.suffix}"), number + 1
    return kept
