"""The three standard streams: words for people, which may cost nothing but themselves when nobody can take them."""

from __future__ import annotations

import os
import sys
from typing import IO


def say(stream: IO[str] | None, text: str) -> bool:
    """Write `text` now; false where it did not get out: the reader left, the disk is full, nothing is open.

    A character that the stream's encoding lacks is written as its escape.
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
    """Have /dev/null where a standard stream was closed by whoever started us: the next file that is opened, or a
    pipe, would get its number, and be taken for it by us and by our children."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def let_go(stream: IO[str] | None) -> bool:
    """Write what is still kept of a stream for the last time; false where it cannot be written, and is dropped.

    The interpreter would try again at its exit, and make that failure the exit code.
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
