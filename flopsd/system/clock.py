"""The only reader of time in flopsd.

Durations come from CLOCK_BOOTTIME, which never steps and continues during suspend. Dates come from the wall clock,
which may step and is therefore never subtracted.
"""

from __future__ import annotations

import re
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Protocol

NS_PER_S = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Clock(Protocol):
    """The clock that flopsd uses; tests pass one that they step by hand."""

    def boottime_ns(self) -> int:
        """Return nanoseconds since boot, including suspend."""

    def wall_ns(self) -> int:
        """Return nanoseconds since the Unix epoch, UTC; may step."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for `event` at most `seconds`; return whether it is set."""


class SystemClock:
    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:
        return max(0, time.time_ns())  # a clock may be before 1970, but no journal has such a time

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(max(0.0, seconds))


def rfc3339(wall_ns: int) -> str:
    """Return Unix nanoseconds as RFC 3339 UTC with microseconds and `Z`. Raises ValueError, OverflowError for a year
    that does not have four digits."""
    seconds, nanoseconds = divmod(wall_ns, NS_PER_S)
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.isoformat()[:19]}.{nanoseconds // 1000:06d}Z"


def file_stamp(wall_ns: int) -> str:
    """Return Unix nanoseconds as in `rfc3339`, in a form for file names."""
    return re.sub("[-:.]", "", rfc3339(wall_ns))
