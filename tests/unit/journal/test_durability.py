"""What a journal does with its descriptors when writes fail, and what it has synced when it says that it is durable."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flopsd.errors import JournalError
from flopsd.journal.journal import Journal, read_journal
from flopsd.journal.sealed_prefix import read_durable
from flopsd.journal.state_dir import StateDir


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    folder = StateDir(tmp_path / "state")
    folder.acquire()
    yield folder
    folder.release()


@pytest.fixture
def journal(state: StateDir) -> Iterator[Journal]:
    opened = Journal(state)
    opened.recover("aside")
    yield opened
    opened.close()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of all that is synced from now on."""
    found: list[int] = []
    sync = os.fsync

    def noting(fd: int) -> None:
        found.append(os.fstat(fd).st_ino)
        sync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_failed_write_costs_no_descriptor(
    journal: Journal, state: StateDir, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal.append({"n": 0})
    before = descriptors()
    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        for _ in range(20):
            with pytest.raises(JournalError, match="cannot write the journal .*: Input/output error"):
                journal.append({"n": 1})
    assert descriptors() <= before
    journal.append({"n": 1})
    assert descriptors() == before
    assert [line.record() for line in read_journal(state.journal)] == [{"n": 0}, {"n": 1}]


def test_a_record_is_synced_before_it_counts_as_written(journal: Journal, state: StateDir, synced: list[int]) -> None:
    journal.append({"n": 0})
    assert synced == [state.journal.stat().st_ino]


def test_a_new_journal_is_synced_into_its_folder(state: StateDir, synced: list[int]) -> None:
    fresh = Journal(state)
    fresh.recover("aside")
    fresh.close()
    assert state.path.stat().st_ino in synced


def test_what_was_put_aside_and_the_cut_are_synced(journal: Journal, state: StateDir, synced: list[int]) -> None:
    for n in range(3):
        journal.append({"n": n})
    journal.close()
    lines = state.journal.read_bytes().splitlines(keepends=True)
    state.journal.write_bytes(lines[0] + lines[1].replace(b'"n":1', b'"n":7') + lines[2])
    synced.clear()
    recovery = Journal(state).recover("aside")
    assert recovery is not None
    assert recovery.kept_as == "aside"
    assert (state.path / "aside").stat().st_ino in synced
    assert state.journal.stat().st_ino in synced


def test_what_is_sealed_is_on_the_disk_before(journal: Journal, state: StateDir, synced: list[int]) -> None:
    journal.append({"n": 0})
    synced.clear()
    assert read_durable(state.journal) == state.journal.read_bytes()
    assert synced == [state.journal.stat().st_ino]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EROFS, errno.ENOTSUP])
def test_where_nothing_can_be_synced_nothing_can_be_lost(
    journal: Journal, state: StateDir, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    journal.append({"n": 0})

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert read_durable(state.journal) == state.journal.read_bytes()


def test_a_disk_that_fails_is_named_when_it_is_sealed(
    journal: Journal, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append({"n": 0})

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(JournalError, match="cannot read the journal .*: Input/output error"):
        read_durable(state.journal)
