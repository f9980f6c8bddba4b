"""Readings of one device from its GPM counters: `cycles` where they are proven, else `activity`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flopsd.core.clock_integral import Cycles, activity, integrate
from flopsd.core.model import Active, Device, Evidence, Gap, GapReason, Gauges, Growth, Limits, Pipe, Reading, Totals
from flopsd.core.values import ceil_div
from flopsd.sources.nvml.counter_check import CounterCheck
from flopsd.sources.nvml.driver import NOT_OFFERED, Driver, MeanPower, Power, UnusableError
from flopsd.sources.nvml.gpm import MIN_INTERVAL_NS, Gpm, Metrics, remainder
from flopsd.sources.nvml.gpu_threads import SAMPLING_MAX_NS
from flopsd.sources.nvml.meter import Meter
from flopsd.sources.nvml.plausibility import Plausibility

_VECTOR = {Pipe.FP64: None, Pipe.FP32: None, Pipe.FP16: None}.keys()  # a set, in order
_GROWTH = Growth()


class GpmMeter(Meter):
    """One device, or one MIG slice."""

    def __init__(
        self, driver: Driver, gpm: Gpm, device: Device, handle: Any, limits: Limits | None,
        origin: Callable[[], str | None], doubted_sms: int = 0,
    ) -> None:  # fmt: skip
        """`handle`: of the whole GPU, like clock, energy and streaming. `origin` returns the origin in the journal.
        `doubted_sms`: how many SMs the device may lack."""
        super().__init__(driver, device, handle, limits)
        self._gpm, self._sm_count = gpm, 0 if limits is None else limits.sm_count
        self._plausibility, self._power = Plausibility(), MeanPower()
        self._took_ns: list[int] = []  # how long the last two samples took
        self._is_slice = device.parent is not None
        self._looked = False  # whether streaming was ever looked at
        self._mhz: int | None = None  # the clock at the kept sample
        self._doubted_sms = doubted_sms
        self._check = CounterCheck(self._sm_count, self._top_mhz, origin, driver.version, doubted_sms)
        self.evidence = self._check.evidence

    def take(self, gpm: Gpm) -> None:
        """Go on with the samples of a new handle."""
        self._driver.optional(self._gpm.release)
        gpm.split_off = self._gpm.split_off
        self._gpm, self._begun = gpm, False

    def release(self) -> None:
        """Free the sample buffers of a GPU that failed. Raises NVMLError."""
        self._gpm.release()

    @property
    def polls(self) -> bool:
        return super().polls and self.evidence[0] is not Evidence.CYCLES

    def read(self) -> tuple[Reading | None, Gauges | None]:
        driver, clock, handle = self._driver, self._driver.clock, self._handle
        before_ns = clock.boottime_ns()
        if self._begun and before_ns - self._since_ns < MIN_INTERVAL_NS:
            return None, None
        self._require_streaming()
        sampled = self._sample() or self._sample()
        if sampled is None:
            return None, None  # a later reading covers this one's time
        now_ns, mhz = sampled
        self._polled.read(mhz)
        since_ns, mhz_before = self._since_ns, self._mhz
        counters = {} if self._is_slice else driver.counters(handle)  # a slice has no energy counter of its own
        power = self._power.between(driver, handle, counters.get("energy_mj"), now_ns, clock.boottime_ns())
        utilization = None if self._is_slice else driver.utilization_ratio(handle)
        metrics: Metrics | None = None
        reason = self._unread_reason
        if self._begun:
            try:
                metrics = self._gpm.metrics()
            except UnusableError as fault:
                reason = fault.reason
        self._gpm.keep()
        self._begun, self._since_ns, self._mhz = True, now_ns, mhz
        if metrics is None:
            self._unread_reason = GapReason.STARTING
            return Reading(self._uid, since_ns, now_ns, Gap(reason), counters), Gauges({}, utilization, mhz)
        ratios = remainder(metrics.ratios)
        gauges = Gauges(ratios, utilization, mhz)
        try:
            if self._plausibility.is_zero_at_full_load(metrics.ratios, utilization, lambda: driver.power_ratio(handle)):
                raise UnusableError(GapReason.ZERO_AT_FULL_LOAD, self._check.totals(metrics))
            self._refuse_what_cannot_be(metrics, utilization, power, mhz, now_ns - since_ns)
            cycles = self._cycles(since_ns, now_ns, mhz_before, mhz)
            work, totals = self._work(metrics, ratios, since_ns, now_ns, cycles)
        except UnusableError as lie:
            return Reading(self._uid, since_ns, now_ns, Gap(lie.reason), counters, lie.totals), gauges
        return Reading(self._uid, since_ns, now_ns, work, counters, totals), gauges

    def _work(
        self, metrics: Metrics, ratios: Mapping[Pipe, float], since_ns: int, now_ns: int, cycles: Cycles | None
    ) -> tuple[Active | Growth, Totals | None]:
        """Return the work of the interval: the growth of running counters, else percentages x SM clock x SMs. `ratios`:
        those of `metrics`, made disjoint. Raises UnusableError."""
        try:
            by_counters = self._check.examine(metrics, since_ns, now_ns, cycles)
        finally:
            self.evidence = self._check.evidence
        totals = self._check.totals(metrics)
        if totals is not None and by_counters:
            has_all = totals.sm_cycles.keys() >= _VECTOR
            return _GROWTH if has_all else Growth(tuple(p for p in _VECTOR if p not in totals.sm_cycles)), totals
        if cycles is None:
            if any(ratios.values()):  # activity without a clock measures nothing; no activity needs no clock
                raise UnusableError(GapReason.OUT_OF_RANGE, totals)
            return Active(Evidence.ACTIVITY, dict.fromkeys(ratios, 0), {}, metrics.unread), totals
        if self._check.clock_doubted:
            cycles = cycles.up_to(self._polled.max_mhz, now_ns - since_ns)
        # Each sample may have been taken at any moment of its call, so both edges of the interval are uncertain.
        doubt_cycles = cycles.doubt_cycles + ceil_div(sum(self._took_ns) * self._top_mhz, 2000)
        if self._doubted_sms:
            doubt_cycles += ceil_div((cycles.cycles + doubt_cycles) * self._doubted_sms, self._sm_count)
        cycles = replace(cycles, doubt_cycles=doubt_cycles)
        return activity(ratios, cycles, self._sm_count, metrics.unread), totals

    def _refuse_what_cannot_be(
        self, metrics: Metrics, utilization: float | None, power: Power | None, mhz: int | None, ns: int
    ) -> None:
        """Raises UnusableError for percentages that the device's power or utilisation contradicts."""
        clock = mhz / self._max_mhz if mhz is not None and self._max_mhz else None
        if self._plausibility.contradicts(metrics.ratios, utilization, power, clock, ns):
            raise UnusableError(GapReason.CONTRADICTORY, self._check.totals(metrics))

    def _require_streaming(self) -> None:
        """Check that the counters are on, since any process that has the device node can switch them off for all.
        Raises UnusableError while they are off, and switches them on for the next read, if that is allowed. At the
        first check that is no fault: they are off until somebody switches them on."""
        lib = self._driver.lib
        is_first, self._looked = not self._looked, True
        try:
            streaming = lib.nvmlGpmQueryIfStreamingEnabled(self._handle)
        except lib.NVMLError as fault:
            if fault.value in NOT_OFFERED:
                return
            raise
        if not streaming:
            self._driver.optional(lib.nvmlGpmSetStreamingEnabled, self._handle, 1)
            raise UnusableError(GapReason.STARTING if is_first else GapReason.COUNTERS_DISABLED)

    def _sample(self) -> tuple[int, int | None] | None:
        """Return moment in ns and clock in MHz of a new sample; None: it took too long for its moment to be known."""
        clock = self._driver.clock
        began_ns = clock.boottime_ns()
        self._gpm.sample()
        took_ns = clock.boottime_ns() - began_ns
        now_ns = began_ns + took_ns // 2
        mhz = self._clock_mhz()
        if clock.boottime_ns() - began_ns > SAMPLING_MAX_NS:
            return None
        self._took_ns = [*self._took_ns[-1:], took_ns]
        return now_ns, mhz

    def _cycles(self, since_ns: int, now_ns: int, before_mhz: int | None, mhz: int | None) -> Cycles | None:
        """Return the cycles of one SM between two reads; None if the clock is not known at either."""
        if before_mhz is None or mhz is None:
            return None
        if self._check.are_proven:  # the clock is only used to check the counters
            return integrate([(since_ns, before_mhz), (now_ns, mhz)], since_ns, now_ns)
        return self._polled.cycles(since_ns, now_ns, mhz)
