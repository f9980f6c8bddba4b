"""A progress line for long work, for the person who waits at a terminal."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import IO, TypeAlias

from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.streams import say

Progress: TypeAlias = Callable[[str, int, int], None]  # what is being done, how much is done, of how much; 0: not known
FIRST_SECONDS, NEXT_SECONDS = 1.0, 0.25
_CLEAR = "\r\x1b[K"


def no_progress(_what: str, _done: int, _total: int) -> None:
    """A `Progress` that shows nothing."""


def is_screen(stream: IO[str]) -> bool:
    """Whether a line can be rewritten on this stream."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class ProgressLine:
    """A context in which a line after `title` shows how far the work is: it appears after a second, is rewritten in
    place, and removed at the end. As a function it is the `Progress` that the work reports to. Log records appear above
    the line. Other text for the same stream goes through `above`."""

    def __init__(self, out: IO[str], clock: Clock, title: str, *, is_shown: bool) -> None:
        self._out, self._clock, self._title, self._is_shown = out, clock, title, is_shown
        self._now = ("", 0, 0)
        self._ended, self._lock, self._is_drawn = threading.Event(), threading.Lock(), False
        self._begin_ns = clock.boottime_ns()
        self._thread = threading.Thread(target=self._draw_until_ended, name="flopsd-progress", daemon=True)

    def __call__(self, what: str, done: int, total: int) -> None:
        self._now = (what, done, total)

    def __enter__(self) -> ProgressLine:
        if self._is_shown:
            try:
                self._thread.start()
            except RuntimeError:  # no more threads: the work goes on without a line
                self._is_shown = False
            else:
                logging.getLogger("flopsd").addFilter(self._make_room)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._ended.set()
            self._thread.join()
            self._clear()
            logging.getLogger("flopsd").removeFilter(self._make_room)

    def above(self, write: Callable[[str], object]) -> Callable[[str], None]:
        """Return `write`, which then removes the line first."""

        def written(text: str) -> None:
            self._clear()
            write(text)

        return written

    def _make_room(self, _record: logging.LogRecord) -> bool:
        self._clear()
        return True

    def _clear(self) -> None:
        with self._lock:
            if self._is_drawn:
                say(self._out, _CLEAR)
            self._is_drawn = False

    def _draw_until_ended(self) -> None:
        seconds = FIRST_SECONDS
        while not self._clock.wait(self._ended, seconds):
            with self._lock:
                self._is_drawn = say(self._out, _CLEAR + self._text()[: self._columns() - 1])
            seconds = NEXT_SECONDS

    def _text(self) -> str:
        what, done, total = self._now
        amount = f" {min(100, 100 * done // total)} %" if total else f" {done}" if done else ""
        passed = (self._clock.boottime_ns() - self._begin_ns) // NS_PER_S
        return f"{self._title}: {what}{amount}, {passed} s" if what else f"{self._title}, {passed} s"

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._out.fileno()).columns or 80
        except (OSError, ValueError):
            return 80
