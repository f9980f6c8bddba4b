"""Writes files completely or not at all."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from flopsd.system.file_presence import is_folder

_UNFINISHED = re.compile("[0-9a-f]{16}")
_CANNOT = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # a file system that has no such operation


def replace_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Replace the content of `path` by `data`, atomically and durably: a reader sees the old file or the new one.
    `mode` applies whatever the umask is; None: the mode that the umask leaves."""
    with replacing(path, mode) as file:
        file.write(data)


def new_file(path: Path, data: bytes, mode: int) -> None:
    """As `replace_file`, but raises FileExistsError if `path` is there already. The file has no name until it is
    complete, so that a kill leaves no private key behind. If the file system has no nameless files, or nothing is
    mounted at /proc, it has another name until then."""
    try:
        fd = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
            folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                # With dst_dir_fd, os.link follows the link in /proc.
                os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=folder)
            finally:
                os.close(folder)
    except FileExistsError:
        raise
    except OSError:
        with _written(path, mode, _name_new) as file:
            file.write(data)
    else:
        sync_path(path.parent)


@contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[IO[bytes]]:
    """Yield a file to write, which replaces `path` atomically and durably at the end of the block."""
    if is_folder(path):  # os.replace would raise a less clear error
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _written(path, mode, os.replace) as file:
        yield file


@contextmanager
def _written(path: Path, mode: int | None, give_name: Callable[[Path, Path], None]) -> Iterator[IO[bytes]]:
    # Other users may write to the folder: they cannot guess the name, and an existing file or link is not opened.
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            if mode is not None:
                os.fchmod(fd, mode)
            os.fsync(fd)
        give_name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_path(path.parent)


def _name_new(temporary: Path, path: Path) -> None:
    """Give a file a name that no other file has. On file systems without links, such as FAT, reserve the name first.
    Raises OSError."""
    try:
        os.link(temporary, path)
    except OSError as fault:
        if fault.errno not in (errno.EPERM, *_CANNOT):
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.replace(temporary, path)


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left while they replaced `path`; no other process may be replacing it now."""
    for found in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if _UNFINISHED.fullmatch(found.name.removeprefix(f".{path.name}.")) and not is_folder(found):
            found.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Make the content of a file durable, or the names in a folder; the latter is skipped on file systems that cannot
    do it, such as SMB and 9p. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as fault:
        if fault.errno not in _CANNOT or not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise
    finally:
        os.close(fd)
