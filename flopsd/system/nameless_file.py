"""A file without a name, for what a process shares with those that inherit it."""

from __future__ import annotations

import os


def nameless_file(label: str) -> int:
    """The descriptor of an empty file that is gone once no process has it open; not inherited unless it is passed on.
    In memory if possible: a Python that was built for an old C library has no memfd_create, and a sandbox may refuse
    it. `label` is what /proc shows. Raises OSError where neither memory nor a temporary folder has room."""
    try:
        return os.memfd_create(label)
    except (AttributeError, OSError):
        from tempfile import TemporaryFile

        with TemporaryFile() as file:
            return os.dup(file.fileno())
