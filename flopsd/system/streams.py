"""The three standard streams. A text that cannot be written is lost, without any other effect."""

from __future__ import annotations

import logging
import os
import select
import sys
from io import TextIOWrapper
from typing import IO

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


WAIT_MS = 200
_AT_ONCE = 1000  # characters: a pipe that can be written has room for 4096 bytes


def say(stream: IO[str] | None, text: str) -> bool:
    """Write `text` now; return False if that failed: the reader left or does not read, the terminal is stopped
    (Ctrl-S), the disk is full, the stream is closed. A character that its encoding lacks is written as an escape."""
    if stream is None:
        return False
    try:
        for at in range(0, len(text) or 1, _AT_ONCE):
            if not _is_taken(stream):
                return False
            _write(stream, text[at : at + _AT_ONCE])
            stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _write(stream: IO[str], text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError as fault:
        stream.write(text.encode(fault.encoding, "backslashreplace").decode(fault.encoding))


def _is_taken(stream: IO[str]) -> bool:
    """Whether a write would succeed without waiting for a reader, for whom metering would have to wait, too."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return True  # no file: text in memory
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(WAIT_MS))


def with_priority(text: str, level: int, stream: IO[str] | None) -> str:
    """Return `text` as it is written to `stream`: for systemd's journal with the priority of a log level in front of
    each line (sd-daemon(3)), else unchanged."""
    if not _is_journal(stream):
        return text
    priority = next(number for lowest, number in _PRIORITIES if level >= lowest)
    return "".join(f"<{priority}>{line}" for line in text.splitlines(keepends=True))


def _is_journal(stream: IO[str] | None) -> bool:
    """Whether `stream` is that of $JOURNAL_STREAM, which processes with other streams inherit, too: systemd.exec(5)."""
    if stream is None:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def open_missing() -> None:
    """Open /dev/null for each standard stream that our parent closed. Otherwise the next file or pipe would get its
    number, and we and our children would use it as that stream."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def set_encoding(stream: IO[str] | None, encoding: str | None = None) -> None:
    """From now on write a character that the stream's encoding lacks as an escape, as `say` does. `encoding`: of a text
    that states its own encoding, whatever the locale's is."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(encoding=encoding, errors="backslashreplace")


def flush(stream: IO[str] | None) -> bool:
    """Write out what is buffered, however slow its reader is; return False if that failed."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        return False
    return True


def last_flush(stream: IO[str] | None) -> bool:
    """Flush a stream for the last time. If that fails, drop its buffer and return False: otherwise the interpreter
    would flush it again at exit, and exit with an error."""
    if flush(stream):
        return True
    assert stream is not None
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass
    return False
