"""The offset of the wall clock from boot time, and its steps."""

from __future__ import annotations

import logging

from flopsd.system.clock import NS_PER_S, Clock

log = logging.getLogger("flopsd")
STEP_TOLERANCE_NS = NS_PER_S


class WallClock:
    """`offset_ns`: what to add to boot time for wall-clock time, as of the last look."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset_ns = self._offset_ns()

    def look(self) -> None:
        """Look again, and log a step."""
        before_ns, self.offset_ns = self.offset_ns, self._offset_ns()
        if abs(self.offset_ns - before_ns) > STEP_TOLERANCE_NS:
            log.warning(
                "the wall clock stepped by %.1f s; durations are not affected, they come from another clock",
                (self.offset_ns - before_ns) / NS_PER_S,
            )

    def _offset_ns(self) -> int:
        return self._clock.wall_ns() - self._clock.boottime_ns()
