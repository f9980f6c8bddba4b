"""Reads files from others: only regular files, and no more of a file than its kind can have.

A FIFO would wait for ever for a writer, a device never ends, and a sparse file may be larger than memory.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import IO

from flopsd.system.file_presence import is_link

# Pipes that the caller of flopsd opened for it: /dev/stdin, and `<(command)` of a shell.
_OWN_PIPE = re.compile(r"/dev/stdin|/dev/fd/[0-9]+|/proc/self/fd/[0-9]+")


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to read. Raises OSError, also for anything but a regular file."""
    # Without O_NONBLOCK, opening a FIFO waits for its writer.
    own_pipe = _OWN_PIPE.fullmatch(str(path)) is not None
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if own_pipe else os.O_NONBLOCK | os.O_NOCTTY))
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or own_pipe):
        os.close(fd)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if stat.S_ISDIR(mode) else "not a regular file", str(path))
    return os.fdopen(fd, "rb")


def unfit(path: Path) -> str | None:
    """Return why a path is not a regular file; None: it is one, whether or not it can be read."""
    try:
        mode = path.stat().st_mode
    except OSError as fault:
        return fault.strerror
    return os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else None if stat.S_ISREG(mode) else "not a regular file"


def open_own(path: Path) -> int:
    """Open a file in a folder of our own for reading and writing; make it, for this user alone, if it is not there.
    Raises OSError for a link too: whoever can make one there could make us write to its target."""
    if is_link(path):
        raise OSError(errno.ELOOP, "it is a symbolic link", str(path))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def write_at(fd: int, line: bytes, at: int) -> None:
    """Write a line at a known offset, in one write. Readers stop before a partial line, and the next line is written
    over it. Raises OSError."""
    if os.pwrite(fd, line, at) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def first_bytes(file: IO[bytes], most: int) -> bytes:
    """Return the first `most` bytes of what a file has now, or of a pipe. Asking for more bytes than a small file has
    would reserve memory for them, which takes longer than reading the file."""
    found = os.fstat(file.fileno())
    return file.read(min(most, found.st_size) if stat.S_ISREG(found.st_mode) else most)


def read_at_most(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file of at most `most` bytes. Raises OSError for a larger one too."""
    with open_regular(path) as file:
        data = first_bytes(file, most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))
    return data
