"""When /metrics was asked for, so that at the end of a run the last scrape can show that it has ended."""

from __future__ import annotations

import threading

from flopsd.system.clock import NS_PER_S, Clock

LATE_NS = 3 * NS_PER_S  # a scrape that finds the machine busy with sealing may come so much later


class Scrapes:
    """Written by the threads that answer, waited on by the daemon's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ns: int | None = None
        self._apart_ns: int | None = None
        self._next = threading.Event()

    def note(self) -> None:
        """A scrape was answered, and its answer is with the kernel."""
        now_ns = self._clock.boottime_ns()
        if self._last_ns is not None:
            self._apart_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        self._next.set()

    def wait_for_one_since(self, ns: int, at_most_seconds: float, *, is_discovered: bool = False) -> bool:
        """Wait for a scrape since a moment, if two have come and the next is due within `at_most_seconds`; whether it
        came. `is_discovered`: Prometheus finds this daemon by its --file-sd file, so one scrape may be all so far."""
        self._next.clear()
        last_ns, apart_ns = self._last_ns, self._apart_ns
        if last_ns is None:
            return False
        if last_ns - (apart_ns or 0) // 4 > ns:  # one that is answered at the moment may have been rendered before
            return True
        if apart_ns is None:
            return is_discovered and self._clock.wait(self._next, at_most_seconds)
        due_ns = last_ns + apart_ns - self._clock.boottime_ns()
        if due_ns < -(apart_ns + LATE_NS) or due_ns > at_most_seconds * NS_PER_S:
            return False  # nobody scrapes any more, or not soon enough
        return self._clock.wait(self._next, min(at_most_seconds, (2 * apart_ns + LATE_NS) / NS_PER_S))
