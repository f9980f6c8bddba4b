"""When /metrics was asked for, so that at the end of a run the last scrape can show that it has ended."""

from __future__ import annotations

import threading

from flopsd.system.clock import NS_PER_S, Clock


class Scrapes:
    """Written by the threads that answer, waited on by the daemon's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ns: int | None = None
        self._apart_ns: int | None = None
        self._next = threading.Event()

    def note(self) -> None:
        """A scrape is answered now."""
        now_ns = self._clock.boottime_ns()
        if self._last_ns is not None:
            self._apart_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        self._next.set()

    def wait_for_next(self, at_most_seconds: float) -> bool:
        """Wait for the next scrape, if two have come and it is due within `at_most_seconds`; whether it came."""
        last_ns, apart_ns = self._last_ns, self._apart_ns
        if last_ns is None or apart_ns is None:
            return False
        overdue_ns = self._clock.boottime_ns() - last_ns - apart_ns
        if overdue_ns > apart_ns or -overdue_ns > at_most_seconds * NS_PER_S:
            return False  # nobody scrapes any more, or not soon enough
        self._next.clear()
        return self._clock.wait(self._next, min(at_most_seconds, 2 * apart_ns / NS_PER_S))
