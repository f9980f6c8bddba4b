"""A file without a name, for what a process shares with processes that inherit it."""

from __future__ import annotations

import os


def nameless_file(label: str) -> int:
    """Return the descriptor of an empty file that is gone once no process has it open; only inherited if passed on. The
    file is in memory if possible: a Python built for an old C library has no memfd_create, and a sandbox may refuse it.
    `label`: the name in /proc. Raises OSError if neither memory nor a temporary folder has room."""
    try:
        return os.memfd_create(label)
    except (AttributeError, OSError):
        from tempfile import TemporaryFile

        with TemporaryFile() as file:
            return os.dup(file.fileno())
