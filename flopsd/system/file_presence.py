"""Whether a file is there, and of what kind. A path that cannot be examined is an error here. For `pathlib` it is
absent since Python 3.14, so that a folder on a failing disk, or of another user, would seem to have no journal."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def exists(path: Path) -> bool:
    """Whether a file is there. Raises OSError if that cannot be determined."""
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Whether the path is a regular file. Raises OSError as `exists`."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Whether the path is a folder. Raises OSError as `exists`."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_link(path: Path) -> bool:
    """Whether the path is a symbolic link, wherever it leads. Raises OSError as `exists`."""
    mode = _mode(path, follows=False)
    return mode is not None and stat.S_ISLNK(mode)


def _mode(path: Path, *, follows: bool = True) -> int | None:
    try:
        return os.stat(path, follow_symlinks=follows).st_mode
    except OSError as fault:
        if fault.errno in _ABSENT:
            return None
        raise
    except ValueError:  # a NUL in the name
        return None
