"""Which messages the log has had lately: a fault that comes and goes would fill it."""

from __future__ import annotations

from flopsd.system.clock import NS_PER_S, Clock

REST_SECONDS = 600  # the same message is logged once in this time


class LogRest:
    """The messages of one part of the daemon that were logged in the last `REST_SECONDS`."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._until_ns = clock, dict[tuple[object, ...], int]()

    def is_due(self, *message: object) -> bool:
        """Whether the message is to be logged now; if so, it rests from now on."""
        now_ns = self._clock.boottime_ns()
        self._until_ns = {one: until_ns for one, until_ns in self._until_ns.items() if until_ns > now_ns}
        if message in self._until_ns:
            return False
        self._until_ns[message] = now_ns + REST_SECONDS * NS_PER_S
        return True
