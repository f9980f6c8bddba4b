"""Files that are written whole or not at all."""

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from flopsd.system.atomic_files import new_file, remove_unfinished, replace_file, replacing
from tests.support.os_calls import failing


def test_a_folder_in_place_of_the_file_is_named_and_no_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        replace_file(tmp_path, b"x")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path), None)


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    with pytest.raises(KeyError), replacing(path):
        raise KeyError
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"new", [path])


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that others may write to: they know our process id, but a file at a guessed name is not opened."""
    path, victim = tmp_path / "file", tmp_path / "victim"
    victim.write_bytes(b"dear")
    (tmp_path / f".file.{os.getpid()}").symlink_to(victim)
    replace_file(path, b"new")
    assert (path.read_bytes(), path.is_symlink(), victim.read_bytes()) == (b"new", False, b"dear")
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / f".file.{'00' * 8}").symlink_to(victim)
    with pytest.raises(FileExistsError):
        replace_file(path, b"newer")
    assert (path.read_bytes(), victim.read_bytes()) == (b"new", b"dear")


def test_the_bytes_are_synced_before_the_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[object] = []
    path, descriptors = tmp_path / "file", len(os.listdir("/proc/self/fd"))

    def fsync(fd: int) -> None:
        found = os.fstat(fd)
        steps.append("folder" if os.path.samestat(found, tmp_path.stat()) else found.st_size)

    monkeypatch.setattr(os, "fsync", fsync)

    def naming(call: Callable[..., None]) -> Callable[..., None]:
        def named(*paths: Path | str, **where: int) -> None:
            steps.append("name")
            call(*paths, **where)

        return named

    monkeypatch.setattr(os, "replace", naming(os.replace))
    monkeypatch.setattr(os, "link", naming(os.link))
    replace_file(path, b"new")
    assert (steps, path.read_bytes()) == ([3, "name", "folder"], b"new")
    steps.clear()
    new_file(tmp_path / "other", b"newer", 0o600)
    assert (steps, (tmp_path / "other").read_bytes()) == ([5, "name", "folder"], b"newer")

    link = os.link

    def without_proc(source: Path | str, path: Path | str, dst_dir_fd: int | None = None) -> None:
        if str(source).startswith("/proc/"):
            raise FileNotFoundError
        link(source, path, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "link", without_proc)
    new_file(tmp_path / "third", b"newest", 0o600)
    assert (tmp_path / "third").read_bytes() == b"newest"
    assert len(os.listdir("/proc/self/fd")) == descriptors


def lacking(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A file system without unnamed files, links, and sync of folders: it answers with this error."""
    fsync = os.fsync

    def of_files(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "O_TMPFILE", 0)  # a folder cannot be opened for writing
    monkeypatch.setattr(os, "link", failing(number))
    monkeypatch.setattr(os, "fsync", of_files)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_may_lack_links_and_sync_of_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    lacking(monkeypatch, number)
    new_file(tmp_path / "key", b"secret", 0o600)
    replace_file(tmp_path / "ledger", b"{}")
    with pytest.raises(FileExistsError):
        new_file(tmp_path / "key", b"other", 0o600)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"key": b"secret", "ledger": b"{}"}


def test_a_failing_disk_or_a_file_that_cannot_be_synced_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as now:
        lacking(now, errno.EIO)
        for write in (partial(new_file, mode=0o600), replace_file):
            with pytest.raises(OSError, match="Input/output error"):
                write(tmp_path / "file", b"secret")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.EINVAL, "Invalid argument")))
    with pytest.raises(OSError, match="Invalid argument"):
        replace_file(tmp_path / "other", b"secret")


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_a_mode_is_set_regardless_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace_file(tmp_path / "ledger", b"", 0o644)
        replace_file(tmp_path / "secret", b"", 0o600)
        replace_file(tmp_path / "report", b"")
        with replacing(tmp_path / "other", 0o640) as file:
            assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600, "nobody else reads what is not whole"
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"ledger": 0o644, "secret": 0o600, "other": 0o640, "report": 0o666 & ~umask}


def test_only_files_left_by_a_killed_writer_of_this_file_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".a[1].json.0123456789abcdef"
    others = [tmp_path / name for name in (".a[1].json.backup", ".a1.json.0123456789abcdef", ".a[1].json.12")]
    for path in (left, *others):
        path.touch()
    (folder := tmp_path / ".a[1].json.fedcba9876543210").mkdir()
    remove_unfinished(tmp_path / "a[1].json")
    assert sorted(tmp_path.iterdir()) == sorted([*others, folder])
