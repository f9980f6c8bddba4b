"""`flopsd status --watch`: the facts again and again in a terminal, which is then as it was before."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from flopsd.clock import Clock, rfc3339
from flopsd.errors import FlopsdError
from flopsd.report import one_line

# The alternate screen and no cursor: what stood in the terminal before is under it, untouched.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(read: Callable[[], str], every_seconds: float, clock: Clock, out: IO[str], term: str) -> None:
    """Show what `read` gives until SIGINT or SIGTERM. Raises FlopsdError where the very first look fails.

    Into anything but a terminal it writes one picture after the other, without any control sequence.
    """
    text, screen = read(), out.isatty() and term not in ("", "dumb")
    with _until_signalled(out if screen else None) as (ended, changed):
        while not ended.is_set():
            at = f"{rfc3339(clock.wall_ns())[11:19]} UTC, every {every_seconds:g} s, Ctrl-C ends"
            out.write(_picture(f"{at}\n\n{text}", changed) if screen else f"{at}\n{text}\n")
            out.flush()
            if clock.wait(ended, every_seconds):
                return
            try:
                text = read()
            except FlopsdError as fault:  # it may come back
                text = f"{one_line(fault)}\n{one_line(fault.hint)}\n"


def _picture(text: str, changed: threading.Event) -> str:
    """The text over what was there, cut to the terminal, which may have been made larger or smaller."""
    columns, height = _size()
    lines = text.rstrip("\n").split("\n")
    if len(lines) > height:
        lines = [*lines[: height - 1], f"… {len(lines) - height + 1} more lines"]
    begin = _ENTER if changed.is_set() else ""
    changed.clear()
    return begin + _HOME + "\n".join(line[:columns] + _REST_OF_LINE for line in lines) + _REST_OF_SCREEN


def _size() -> tuple[int, int]:
    """Of the terminal as it is now: $COLUMNS and $LINES tell of an earlier one."""
    try:
        return os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return shutil.get_terminal_size()


@contextmanager
def _until_signalled(screen: IO[str] | None) -> Iterator[tuple[threading.Event, threading.Event]]:
    """An event that SIGINT and SIGTERM set, and one that says that the screen has to be entered (again)."""
    ended, changed = threading.Event(), threading.Event()
    changed.set()

    def suspend(*_: object) -> None:
        if screen is not None:
            screen.write(_LEAVE)
            screen.flush()
        changed.set()
        os.kill(os.getpid(), signal.SIGSTOP)

    handlers: dict[int, Callable[..., object]] = {
        signal.SIGINT: lambda *_: ended.set(),
        signal.SIGTERM: lambda *_: ended.set(),
        signal.SIGTSTP: suspend,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield ended, changed
    finally:
        if screen is not None:
            screen.write(_LEAVE)
            screen.flush()
        for number, handler in before.items():
            signal.signal(number, handler)
