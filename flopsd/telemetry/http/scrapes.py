"""The times of scrapes of /metrics, so that at its end the daemon can wait for one that shows the run as ended."""

from __future__ import annotations

import threading

from flopsd.system.clock import NS_PER_S, Clock

LATE_NS = 3 * NS_PER_S  # sealing may keep the machine so busy that a scrape is this late


class Scrapes:
    """The threads that answer scrapes call `note`; the daemon's thread waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ns: int | None = None
        self._apart_ns: int | None = None
        self._next = threading.Event()

    def note(self) -> None:
        """Record that a scrape was answered: the kernel has the whole response."""
        now_ns = self._clock.boottime_ns()
        if self._last_ns is not None:
            self._apart_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        self._next.set()

    def wait_for_one_since(self, ns: int, at_most_seconds: float, *, is_discovered: bool = False) -> bool:
        """Wait for a scrape after boot time `ns`, if two came before and the next is due within `at_most_seconds`.
        Return whether it came. `is_discovered`: Prometheus finds this daemon by its --file-sd file, so one suffices."""
        self._next.clear()
        last_ns, apart_ns = self._last_ns, self._apart_ns
        if last_ns is None:
            return False
        if last_ns - (apart_ns or 0) // 4 > ns:  # a response sent just after `ns` may have been rendered before it
            return True
        if apart_ns is None:
            return is_discovered and self._clock.wait(self._next, at_most_seconds)
        due_ns = last_ns + apart_ns - self._clock.boottime_ns()
        if due_ns < -(apart_ns + LATE_NS) or due_ns > at_most_seconds * NS_PER_S:
            return False  # nobody scrapes any more, or not soon enough
        return self._clock.wait(self._next, min(at_most_seconds, (2 * apart_ns + LATE_NS) / NS_PER_S))
