"""A ceiling from NVML's ring buffer of utilisation samples, for GPUs that have nothing better."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import Busy, Device, Evidence, Gap, GapReason, Gauges, Limits, Reading, Totals
from flopsd.sources.nvml.driver import NOT_OFFERED, PERCENT_MAX, Driver, UnusableError
from flopsd.sources.nvml.polled_clock import PolledClock
from flopsd.system.clock import NS_PER_S

_SAMPLE_PERIOD_MAX_NS = NS_PER_S  # "between 1 second and 1/6 second, depending on the product", nvml.h
_JITTER = 4  # a sample may come later than the shortest period by a quarter of it
_STANDSTILL_NS = 3 * NS_PER_S


class UtilizationMeter:
    """One GPU between reads. A reading ends where the newest sample ends; later time belongs to the next reading."""

    def __init__(
        self, driver: Driver, device: Device, handle: Any, limits: Limits | None, why: tuple[str, str]
    ) -> None:
        """`why`: the reason for no better evidence, and the fix. Without limits every reading becomes a gap."""
        self._driver, self._handle, self._uid, self._limits = driver, handle, device.uid, limits
        self._max_mhz = device.sm_clock_max_mhz if limits is None else limits.sm_clock_max_mhz
        self._since_ns = driver.clock.boottime_ns()
        self._seen_ns = self._clocked_ns = 0
        self._period_ns = _SAMPLE_PERIOD_MAX_NS  # the shortest between two samples so far
        self._polled = PolledClock(0 if limits is None else limits.sm_clock_max_mhz, driver.moments_of(device.index))
        self._begun = False
        self._unread_reason = GapReason.STARTING
        self.evidence: tuple[Evidence, str, str] = (Evidence.UTILIZATION, *why)

    def reach(self, handle: Any) -> None:
        self._handle = handle

    def fail(self, reason: GapReason, totals: Totals | None = None) -> Reading:
        now_ns = self._driver.clock.boottime_ns()
        reading = Reading(self._uid, self._since_ns, now_ns, Gap(reason), {}, totals)
        self._since_ns, self._begun, self._unread_reason = now_ns, False, reason
        return reading

    def read(self) -> tuple[Reading | None, Gauges | None]:
        """Return the interval up to the newest sample; None without a new one. Raises NVMLError, UnusableError."""
        driver, handle = self._driver, self._handle
        samples = driver.utilization_samples(handle, max(self._seen_ns, self._since_ns))
        mhz = self._clock_mhz()
        self._polled.read(mhz)
        counters = driver.counters(handle)
        now_ns, since_ns = driver.clock.boottime_ns(), self._since_ns
        if samples:
            self._seen_ns = samples[-1][0]
        shown = samples[-1][1] / 100 if samples and samples[-1][1] <= PERCENT_MAX else None
        gauges = Gauges({}, shown, mhz)
        if not self._begun:
            self._begun, self._since_ns = True, now_ns
            reason, self._unread_reason = self._unread_reason, GapReason.STARTING
            return Reading(self._uid, since_ns, now_ns, Gap(reason), counters), gauges
        if any(not 0 <= percent <= PERCENT_MAX for _, percent in samples):
            raise UnusableError(GapReason.OUT_OF_RANGE)
        end_ns = self._seen_ns
        if not samples or end_ns <= since_ns:
            if now_ns - since_ns < _STANDSTILL_NS:
                return None, gauges
            raise UnusableError(GapReason.COUNTER_STALLED)
        self._since_ns = end_ns
        busy = self._by_clock(self._ceiling(samples, since_ns, end_ns), since_ns, end_ns, now_ns)
        return Reading(self._uid, since_ns, end_ns, busy, counters), gauges

    @property
    def beyond_mhz(self) -> int:
        """A clock that was read above the known maximum; 0: there was none."""
        return self._polled.beyond_mhz

    @property
    def polls(self) -> bool:
        """Whether the clock is to be polled before the next read."""
        return self._limits is not None and self._begun

    def next_poll_ns(self, now_ns: int, until_ns: int) -> int | None:
        """Return the next moment at which to poll the clock before the read at `until_ns`; None: there is none."""
        return self._polled.next_ns(now_ns, until_ns) if self.polls else None

    def poll(self) -> None:
        """Read the clock, if a moment for it has come. Raises NVMLError."""
        self._polled.poll(self._driver.clock, self._clock_mhz)

    def _clock_mhz(self) -> int | None:
        """Return the SM clock; None also if the GPU offers none, as in a guest with a part of it: the ceiling needs no
        clock. Raises NVMLError."""
        try:
            return self._driver.sm_clock_mhz(self._handle, self._max_mhz)
        except self._driver.lib.NVMLError as fault:
            if fault.value in NOT_OFFERED:
                return None
            raise

    def _by_clock(self, ceiling: int, since_ns: int, end_ns: int, now_ns: int) -> Busy:
        """Return the ceiling. Add that of all elapsed cycles by the polled clock, if the clock known before its draws
        promised a lower one: a choice by the draws themselves would bias their sum."""
        limits = self._limits
        if limits is None:
            return Busy(ceiling)
        elapsed = self._polled.at_most(max(since_ns, self._clocked_ns), end_ns, now_ns)
        expected_mhz = elapsed.expected_mhz
        if expected_mhz is None or expected_mhz * limits.sm_count * (end_ns - since_ns) // 1000 >= ceiling:
            return Busy(ceiling)
        self._clocked_ns = elapsed.until_ns
        return Busy(ceiling, elapsed.cycles * limits.sm_count, elapsed.square_sum * limits.sm_count**2)

    def _ceiling(self, samples: Sequence[tuple[int, int]], since_ns: int, end_ns: int) -> int:
        """Return the most SM-cycles. Each sample stands for the period before it, whole percents rounded up, at the
        highest clock. Time that no sample covers, such as what the driver's buffer lost, counts as fully busy."""
        if self._limits is None:
            return 0  # the meter makes it a gap: the device is not in the peak table
        apart_ns = [after - before for (before, _), (after, _) in pairwise(samples) if after > before]
        self._period_ns = min([self._period_ns, *apart_ns])
        longest_ns = min(self._period_ns + self._period_ns // _JITTER, _SAMPLE_PERIOD_MAX_NS)
        busy_percent_ns, covered_ns, begin_ns = 0, 0, since_ns
        for until_ns, percent in samples:
            if until_ns > begin_ns:
                stands_for_ns = min(until_ns - begin_ns, longest_ns)
                busy_percent_ns += min(percent + 1, 100) * stands_for_ns
                covered_ns, begin_ns = covered_ns + stands_for_ns, until_ns
        busy_percent_ns += 100 * (end_ns - since_ns - covered_ns)
        return max_sm_cycles(self._limits, -(-busy_percent_ns // 100))
