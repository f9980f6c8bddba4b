"""The three standard streams. A text that cannot be written is lost and has no other effect."""

from __future__ import annotations

import os
import sys
from typing import IO


def say(stream: IO[str] | None, text: str) -> bool:
    """Write `text` now; false if that failed: the reader left, the disk is full, the stream is closed.

    A character that the stream's encoding lacks is written as an escape.
    """
    if stream is None:
        return False
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError as fault:
            stream.write(text.encode(fault.encoding, "backslashreplace").decode(fault.encoding))
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def open_missing() -> None:
    """Open /dev/null for each standard stream that our parent closed. Else the next file or pipe would get its number,
    and we and our children would use it as that stream."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def let_go(stream: IO[str] | None) -> bool:
    """Flush a stream for the last time; false if that failed, and its buffer is dropped.

    Otherwise the interpreter would flush it again at exit, and exit with an error.
    """
    if stream is None or say(stream, ""):
        return True
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        return False
    say(stream, "")
    return False
