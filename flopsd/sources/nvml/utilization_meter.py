"""A ceiling from NVML's ring buffer of utilisation samples, for GPUs that have nothing better."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import Busy, Device, Evidence, Gap, GapReason, Gauges, Limits, Reading
from flopsd.sources.nvml.driver import NOT_OFFERED, PERCENT_MAX, Driver, MeanPower, Power, UnusableError
from flopsd.sources.nvml.meter import Meter
from flopsd.sources.nvml.plausibility import ENERGY_AGE_NS, ZERO_UTILIZATION_RATIO
from flopsd.system.clock import NS_PER_S

_SAMPLE_PERIOD_MAX_NS = NS_PER_S  # "between 1 second and 1/6 second, depending on the product", nvml.h
_JITTER = 4  # a sample may come later than the shortest period by a quarter of it
_STANDSTILL_NS = 3 * NS_PER_S
# Assumed, and measured on no hardware yet: no GPU draws more than half its power limit while no kernel runs in nine
# tenths of the time. If that is wrong, the time becomes a gap: wider, but true.
UNUSED_POWER_RATIO = 0.5


class UtilizationMeter(Meter):
    """One GPU. A reading ends where the newest sample ends; later time belongs to the next reading."""

    def __init__(
        self, driver: Driver, device: Device, handle: Any, limits: Limits | None, why: tuple[str, str]
    ) -> None:
        """`why`: the reason for no better evidence, and the fix."""
        super().__init__(driver, device, handle, limits)
        self._seen_ns = self._clocked_ns = 0
        self._power, self._doubted = MeanPower(), False
        self._period_ns = _SAMPLE_PERIOD_MAX_NS  # the shortest between two samples so far
        self.evidence = (Evidence.UTILIZATION, *why)

    def read(self) -> tuple[Reading | None, Gauges | None]:
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
            self._power.between(driver, handle, counters.get("energy_mj"), now_ns, now_ns)
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
        power = self._power.between(driver, handle, counters.get("energy_mj"), end_ns, now_ns)
        if self._is_contradicted(samples, power, end_ns - since_ns, now_ns - end_ns):
            raise UnusableError(GapReason.CONTRADICTORY)
        self._since_ns = end_ns
        busy = self._by_clock(self._ceiling(samples, since_ns, end_ns), since_ns, end_ns, now_ns)
        return Reading(self._uid, since_ns, end_ns, busy, counters), gauges

    def _is_contradicted(self, samples: Sequence[tuple[int, int]], power: Power | None, ns: int, later_ns: int) -> bool:
        """Whether the GPU drew too much power in `ns` for samples that show it unused. Part of the energy is of the
        `later_ns` after the last sample or of just before, when it may have drawn all that it can."""
        share, rest = 0.0 if power is None else power.share, min(1.0, (later_ns + ENERGY_AGE_NS) / ns)
        is_unused = all(percent <= 100 * ZERO_UTILIZATION_RATIO for _, percent in samples)
        is_certain = self._doubted or share - rest > UNUSED_POWER_RATIO * (1 - rest)
        self._doubted = is_unused and share > UNUSED_POWER_RATIO and is_certain
        return self._doubted

    def _clock_mhz(self) -> int | None:
        """Return the SM clock; None also if the GPU offers none, as in a guest with a part of it: the ceiling needs no
        clock. Raises NVMLError."""
        try:
            return super()._clock_mhz()
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
