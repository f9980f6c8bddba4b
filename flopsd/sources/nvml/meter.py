"""What the meters of NVML's devices share: where the next reading begins, and the polled SM clock."""

from __future__ import annotations

from functools import partial
from typing import Any

from flopsd.core.model import Device, Evidence, Gap, GapReason, Gauges, Limits, Reading, Totals
from flopsd.sources.nvml.driver import Driver
from flopsd.sources.nvml.polled_clock import PolledClock


class Meter:
    """One device between reads. Each reading begins where the last one ended."""

    evidence: tuple[Evidence, str, str]  # with the reason why it is not better, and the fix

    def __init__(self, driver: Driver, device: Device, handle: Any, limits: Limits | None) -> None:
        """`handle`: of the whole GPU. Without limits the daemon turns every reading into a gap."""
        self._driver, self._handle, self._uid, self._limits = driver, handle, device.uid, limits
        self._top_mhz = 0 if limits is None else limits.sm_clock_max_mhz
        self._max_mhz = self._top_mhz or device.sm_clock_max_mhz
        self._polled = PolledClock(self._top_mhz, partial(driver.moment_of, device.index))
        self._since_ns = driver.clock.boottime_ns()
        self._begun = False  # whether there is a sample that the next reading begins with
        self._unread_reason = GapReason.STARTING

    def read(self) -> tuple[Reading | None, Gauges | None]:
        """Return the interval since the last read; None if nothing is new yet. Raises NVMLError, UnusableError."""
        raise NotImplementedError

    def reach(self, handle: Any) -> None:
        """Go on with a new handle after the old one failed."""
        self._handle = handle

    def fail(self, reason: GapReason, totals: Totals | None = None) -> Reading:
        """Return the interval up to now as a gap. The next reading begins with a new sample."""
        now_ns = self._driver.clock.boottime_ns()
        reading = Reading(self._uid, self._since_ns, now_ns, Gap(reason), {}, totals)
        self._since_ns, self._begun, self._unread_reason = now_ns, False, reason
        return reading

    @property
    def beyond_mhz(self) -> int:
        """A clock that was read above the known maximum; 0: there was none."""
        return self._polled.beyond_mhz

    @property
    def polls(self) -> bool:
        """Whether the clock is to be polled before the next read."""
        return self._begun and self._top_mhz > 0

    def next_poll_ns(self, now_ns: int, until_ns: int) -> int | None:
        """Return the next moment at which to poll the clock before the read at `until_ns`; None: there is none."""
        return self._polled.next_ns(now_ns, until_ns) if self.polls else None

    def poll(self) -> None:
        """Read the clock, if a moment for it has come. Raises NVMLError."""
        self._polled.poll(self._driver.clock, self._clock_mhz)

    def _clock_mhz(self) -> int | None:
        """Return the SM clock; None if it cannot be what the driver reports. Raises NVMLError."""
        return self._driver.sm_clock_mhz(self._handle, self._max_mhz)
