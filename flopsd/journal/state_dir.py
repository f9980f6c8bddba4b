"""The state folder: the paths of its files, and the lock that one process holds."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from flopsd.core.companions import companion_name, is_companion_name
from flopsd.errors import JournalError, StateDirBusyError
from flopsd.system.atomic_files import sync_path
from flopsd.system.file_presence import exists, is_file
from flopsd.system.regular_files import open_own

log = logging.getLogger("flopsd")

JOURNAL_NAME, PENDING_NAME, LOCK_NAME, OPEN_RUN_NAME = "journal.jsonl", "pending.jsonl", "lock", "open-run"
RUN_LOCK_NAME = "run.lock"  # `flopsd exec` holds it between two starts of its daemon too: no other may begin a run then
_HELD = (BlockingIOError, PermissionError)  # the second from a file server's locks
LOCK_TRIES, LOCK_TRY_SECONDS = 5, 0.02


class StateDir:
    """The state folder, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self.journal, self.pending = path, path / JOURNAL_NAME, path / PENDING_NAME
        self.next_journal = path / "next.journal.jsonl"  # the next segment's, until it is the journal
        self.segments = path / "segments"  # closed ones that are not sealed, or not copied, yet
        self.seal_lock = path / "seal.lock"  # of processes that seal this folder; the daemon has another lock
        # Notes: of the newest seal and of a PIN that the key's token refused, by the process that seals; of sealed
        # ledgers and where they still have to go; of a journal that was restored from a copy, which the daemon start
        # that continues it has to record.
        self.newest_seal, self.refused_pin = path / "newest-seal.json", path / "refused-pin.json"
        self.deliveries, self.restored = path / "deliveries.json", path / "restored.json"
        self._lock: int | None = None

    def has_journal(self) -> bool:
        """Whether there is a journal that is not empty. Raises JournalError if that cannot be determined."""
        try:
            return self.journal.stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as fault:
            raise JournalError(
                f"cannot look for the journal {self.journal}: {fault.strerror}",
                hint="check that disk or file server, and that this user may read the folder",
            ) from fault

    def companion(self, kind: str, sha256: str) -> Path:
        """Return where the daemon keeps a peak table or policy that is not a packaged one."""
        return self.path / companion_name(kind, sha256)

    def companions(self, kind: str) -> list[Path]:
        """Return the files of a kind that daemon starts kept, for every journal that the folder had. Raises
        JournalError if the folder cannot be listed."""
        names = names_in(self.path, "the state folder")
        return sorted(self.path / name for name in names if name.startswith(f"{kind}-") and is_companion_name(name))

    def data_files(self, kind: str, given: Iterable[str]) -> list[str]:
        """Return the files that may hold the peak tables or policies of this folder's journals. Those that daemon
        starts kept come first, since a file that is `given` may be unreadable now. A given file that is gone is left
        out if any was kept; otherwise its reader reports the name. Raises JournalError as `companions`."""
        kept = [str(path) for path in self.companions(kind)]
        return [*kept, *(file for file in given if not kept or is_file(Path(file)))]

    def unused(self, name: str) -> Path:
        """Return a path in the folder that does not exist yet, `name`, if need be with a number in front."""
        path, number = self.path / name, 1
        while exists(path):
            path, number = self.path / f"{number}-{name}", number + 1
        return path

    def rename_aside(self, path: Path, name: str) -> Path:
        """Rename the file at `path`, if there is one, to an unused `name` in the folder; return the new path."""
        aside = self.unused(name)
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            pass  # another process removed it
        return aside

    def move_to_segments(self, name: str) -> None:
        """Move the journal to the closed segments, if it is still there. Raises OSError."""
        self.segments.mkdir(mode=0o700, exist_ok=True)
        try:
            os.replace(self.journal, self.segments / name)
        except FileNotFoundError:
            pass  # moved by an earlier call, which failed later
        sync_path(self.segments)

    def acquire(self, *hints: str) -> None:
        """Take the lock of the folder, as `take_lock`."""
        self._lock = take_lock(self.path, LOCK_NAME, *hints)

    @property
    def needs_journal(self) -> bool:
        """Whether a run began here and has not ended, so that its journal must be there."""
        return os.path.lexists(self.path / OPEN_RUN_NAME)

    def mark_open(self, *, is_open: bool) -> None:
        """Note that a run begins here, or ends. If there is no room for the note, a removed journal is not missed."""
        try:
            if is_open:
                os.close(open_own(self.path / OPEN_RUN_NAME))
            else:
                (self.path / OPEN_RUN_NAME).unlink(missing_ok=True)
        except OSError:
            pass

    def keep(self) -> None:
        """Make folder and lock file again if another process removed them, since the next daemon would find no lock.

        Raises StateDirBusyError if a daemon has taken the folder since, JournalError if it cannot be made.
        """
        if self._lock is None:
            return
        try:
            if os.path.samestat(os.stat(self.path / LOCK_NAME), os.fstat(self._lock)):
                return
        except OSError:
            pass
        before = self._lock
        self.acquire()
        os.close(before)
        log.error("the lock of the state folder %s was removed by another process, and was made again", self.path)

    def is_held(self) -> bool:
        """Whether a daemon holds the folder now."""
        try:
            lock = os.open(self.path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as fault:
            return isinstance(fault, _HELD)
        finally:
            os.close(lock)
        return False

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def take_lock(
    folder: Path, name: str, if_busy: str = "stop that one, or give this one another --state-dir",
    if_unusable: str = "give --state-dir a folder on a writable disk, which flopsd's user may write to",
) -> int:  # fmt: skip
    """Create a state folder (0700) and lock the file `name` in it; return its descriptor. Raises StateDirBusyError,
    which names the holder, with the hint `if_busy`; and JournalError with the hint `if_unusable` if the folder cannot
    be used."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open_own(folder / name)
    except OSError as fault:
        why = "it is not a folder" if isinstance(fault, FileExistsError) else fault.strerror
        raise JournalError(
            f"cannot use the state folder {folder}: {why}",
            hint=if_unusable,
        ) from fault
    try:
        is_locked = _locked(lock)
    except OSError as fault:
        os.close(lock)
        raise JournalError(
            f"cannot lock the state folder {folder}: {fault.strerror}",
            hint="without locks two daemons could write there: give --state-dir a folder on a disk of this machine",
        ) from fault
    if not is_locked:
        holder = os.pread(lock, 200, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise StateDirBusyError(
            f"the state folder {folder} is in use by a running flopsd: {_describe(holder)}",
            hint=if_busy,
        )
    own = f"{os.getpid()}\n".encode("ascii")
    try:
        os.pwrite(lock, own.ljust(os.fstat(lock).st_size), 0)  # over another's name: a full disk suffices
        os.ftruncate(lock, len(own))
    except OSError:
        pass  # the lock holds, without the name of its holder
    return lock


def names_in(folder: Path, what: str) -> list[str]:
    """Return the names in a folder of the state; none without the folder. Raises JournalError if it is unreadable."""
    try:
        return os.listdir(folder)
    except OSError as fault:
        if isinstance(fault, (FileNotFoundError, NotADirectoryError)) and not os.path.lexists(folder):
            return []
        raise JournalError(
            f"cannot list {what} {folder}: {fault.strerror}",
            hint="check that disk or file server, and try again: nothing was changed",
        ) from fault


def _locked(lock: int) -> bool:
    """Take the lock; return False if another process holds it. Try a few times, since `is_held` of another process
    takes it for a moment. Raises OSError if the file system has no locks."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except _HELD:
            threading.Event().wait(LOCK_TRY_SECONDS)
    return False


def _describe(holder: str) -> str:
    if not holder.isdigit():
        return "unknown process"
    import psutil  # only here: psutil takes a megabyte of a metering daemon

    try:
        return f"process {holder} ({' '.join(psutil.Process(int(holder)).cmdline()[:6])})"
    except psutil.Error:
        return f"process {holder}"
