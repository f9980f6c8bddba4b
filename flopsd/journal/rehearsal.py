"""Whether a file system can hold a journal: object stores mounted as folders, and servers without locks, cannot."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from flopsd.errors import JournalError
from flopsd.journal.journal import Journal
from flopsd.journal.state_dir import StateDir


def rehearse(folder: Path) -> None:
    """Do in `folder` what a daemon does in its state folder, in a folder that is removed at once. Raises JournalError
    for the first that fails."""
    try:
        with TemporaryDirectory(prefix=".flopsd-doctor-", dir=folder) as scratch:
            state = StateDir(Path(scratch))
            state.acquire()
            journal = Journal(state)
            try:
                journal.recover("aside")
                journal.note({"n": 0})
                journal.append({"n": 1})
            finally:
                journal.close()
                state.release()
    except OSError as fault:
        raise JournalError(f"cannot use {folder}: {fault.strerror}") from fault
