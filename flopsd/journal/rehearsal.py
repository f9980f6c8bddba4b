"""Tests whether a file system can hold a journal. Object stores mounted as folders and servers without locks cannot."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from flopsd.errors import JournalError
from flopsd.journal.journal import Journal
from flopsd.journal.state_dir import StateDir


def rehearse(folder: Path) -> None:
    """Do what a daemon does in its state folder, in a new folder in `folder`, which is then removed. Raises
    JournalError for the first step that fails."""
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
