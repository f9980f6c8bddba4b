"""`flopsd status --watch`: the facts again and again in a terminal, which is then as it was before."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from typing import IO

from flopsd.errors import FlopsdError
from flopsd.report.terminal import one_line
from flopsd.system.clock import Clock, rfc3339
from flopsd.system.signals import awaited

# The alternate screen and no cursor: what stood in the terminal before is under it, untouched.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(read: Callable[[], str], every_seconds: float, clock: Clock, out: IO[str], term: str) -> None:
    """Show what `read` gives until SIGINT or SIGTERM. Raises FlopsdError where the very first look fails.

    Into anything but a terminal it writes one picture after the other, without any control sequence.
    """
    text, screen = read(), out.isatty() and term not in ("", "dumb")
    with awaited(signal.SIGINT, signal.SIGTERM, signal.SIGTSTP) as wait:
        begin = _ENTER
        try:
            while True:
                at = f"{rfc3339(clock.wall_ns())[11:19]} UTC, every {every_seconds:g} s, Ctrl-C ends"
                out.write(begin + _picture(f"{at}\n\n{text}") if screen else f"{at}\n{text}\n")
                out.flush()
                begin, came = "", wait(every_seconds)
                if came == signal.SIGTSTP:
                    _leave(out, screen)
                    os.kill(os.getpid(), signal.SIGSTOP)
                    begin = _ENTER
                elif came is not None:
                    return
                try:
                    text = read()
                except FlopsdError as fault:  # it may come back
                    text = f"{one_line(fault)}\n{one_line(fault.hint)}\n"
        finally:
            _leave(out, screen)


def _leave(out: IO[str], screen: bool) -> None:
    if screen:
        out.write(_LEAVE)
        out.flush()


def _picture(text: str) -> str:
    """The text over what was there, cut to the terminal, which may have been made larger or smaller."""
    columns, height = _size()
    lines = text.rstrip("\n").split("\n")
    if len(lines) > height:
        lines = [*lines[: height - 1], f"… {len(lines) - height + 1} more lines"]
    return _HOME + "\n".join(line[:columns] + _REST_OF_LINE for line in lines) + _REST_OF_SCREEN


def _size() -> tuple[int, int]:
    """Of the terminal as it is now: $COLUMNS and $LINES tell of an earlier one."""
    try:
        return os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return shutil.get_terminal_size()
