"""Checks one device's running cycle counters from read to read: whether they may be counted, and their scale."""

from __future__ import annotations

from collections.abc import Callable

from flopsd.core.clock_integral import Cycles
from flopsd.core.model import Evidence, GapReason, Totals
from flopsd.sources.nvml.counter_calibration import (
    DIVERGED,
    Calibration,
    CounterScale,
    SampleInterval,
    SelfTestFailedError,
    contradicts,
    growth,
    width,
)
from flopsd.sources.nvml.driver import UnusableError
from flopsd.sources.nvml.gpm import Metrics

_STALL_NS = 500_000_000
_STRIKES = 3
FIRST_DRIVER = 595  # the first with running cycle counters
_REPORT = "please report it with the driver's version"
_PROVEN = (Evidence.CYCLES, "", "")
_PENDING = (
    Evidence.ACTIVITY,
    "the scale of the running cycle counters is not proven yet, which takes seconds to minutes of work; until then "
    "percentages are used",
    "",
)


class CounterCheck:
    """Proves the scale of the counters, and then checks them against percentages and clock while they are counted."""

    def __init__(
        self, sm_count: int, max_mhz: int, origin: Callable[[], str | None], driver: str, doubted_sms: int
    ) -> None:
        """`origin` returns the origin that the journal has from an earlier daemon start on this boot. `driver`: the
        driver's version. `doubted_sms`: how many of the SMs the device may lack; if any, no scale can be proven."""
        self._origin, self._doubted_sms = origin, doubted_sms
        self._scale = CounterScale(sm_count, max_mhz, f"GPM of driver {driver}")
        self._last: Metrics | None = None
        self._last_ns = self._largest = 0
        self._strikes = 0
        self._is_old = not driver.split(".")[0].isdecimal() or int(driver.split(".")[0]) < FIRST_DRIVER
        self.evidence: tuple[Evidence, str, str] = (Evidence.ACTIVITY, "not read yet", "")

    @property
    def are_proven(self) -> bool:
        return self._scale.proven is not None

    @property
    def clock_doubted(self) -> bool:
        return self._scale.clock_doubt != ""

    def totals(self, metrics: Metrics) -> Totals | None:
        """Return the counters in SM-cycles, once their scale is proven; None before that."""
        if self._scale.proven is None or metrics.elapsed is None or not metrics.counters:
            return None
        return self._scale.proven.totals(metrics.elapsed, metrics.counters, width(self._largest))

    def examine(self, metrics: Metrics, since_ns: int, now_ns: int, clock: Cycles | None) -> bool:
        """Check the counters against their last values, the percentages and the SM clock from `since_ns` to `now_ns`.
        Return whether their growth is the work of this interval. Raises UnusableError for counters that cannot be
        right: counting goes on from the new values."""
        if self._doubted_sms:
            why = f"the driver and the peak table differ by {self._doubted_sms} SMs: the bounds cover both"
            fix = "if the driver is right, correct the row in a peak table of your own: see --peaks"
            self.evidence = (Evidence.ACTIVITY, why, fix)
            return False
        if metrics.elapsed is None or not metrics.counters:
            fix = "a driver of R595 or newer counts cycles since boot, which lose nothing in a restart"
            why = "this driver has no running cycle counters" + ("" if self._is_old else " for this GPU")
            self.evidence = (Evidence.ACTIVITY, why, fix if self._is_old else "")
            return False
        self._largest = max(self._largest, metrics.elapsed)
        if self._strikes >= _STRIKES:
            return False
        if self._last is None and not self.are_proven:
            self._scale.recall(self._origin())
        was_proven = self.are_proven
        self.evidence = _PROVEN if was_proven else self._unproven
        last, last_ns, self._last, self._last_ns = self._last, self._last_ns, metrics, now_ns
        if last is None or last.elapsed is None or last.counters.keys() != metrics.counters.keys():
            self._scale.interrupt()
            return was_proven
        before = last.counters
        grown = {pipe: counter - before[pipe] for pipe, counter in metrics.counters.items()}
        elapsed = metrics.elapsed - last.elapsed
        if elapsed < 0 or min(grown.values()) < 0:
            bits = width(self._largest)
            grown = {pipe: growth(before[pipe], counter, bits) for pipe, counter in metrics.counters.items()}
            elapsed = growth(last.elapsed, metrics.elapsed, bits)
        ratios = metrics.ratios
        if not ratios.keys() <= grown.keys():
            ratios = {pipe: ratio for pipe, ratio in ratios.items() if pipe in grown}
        trial = SampleInterval(elapsed, grown, ratios)
        same_interval = last_ns == since_ns  # not so after a fault: then the percentages cover only a part
        if elapsed < 0 or clock is None or not same_interval:
            self._scale.interrupt()
        else:
            self._scale.add(elapsed, clock, now_ns - since_ns)
        if self._scale.proven is None:
            self._prove(trial)
        else:
            self._check_in_use(self._scale.proven, trial, metrics, now_ns - last_ns, same_interval=same_interval)
        return was_proven

    @property
    def _unproven(self) -> tuple[Evidence, str, str]:
        if not self.clock_doubted:
            return _PENDING
        reason = f"the running cycle counters fit a faster clock than the device reports: {self._scale.clock_doubt}"
        return Evidence.ACTIVITY, reason, _REPORT

    def _prove(self, trial: SampleInterval) -> None:
        try:
            self._scale.prove(trial)
            self.evidence = self._unproven
        except SelfTestFailedError as failed:
            self._strike(str(failed))
        if self.are_proven:
            self._strikes, self.evidence = 0, _PROVEN

    def _check_in_use(
        self,
        calibration: Calibration,
        trial: SampleInterval,
        metrics: Metrics,
        duration_ns: int,
        *,
        same_interval: bool,
    ) -> None:
        if (is_beyond := self._scale.beyond_old(metrics.elapsed or 0, trial.elapsed, duration_ns)) is not None:
            raise UnusableError(GapReason.COUNTER_RESET, self.totals(metrics) if is_beyond else None)
        if trial.elapsed < 0 or min(trial.active.values()) < 0:
            raise UnusableError(GapReason.COUNTER_RESET, self.totals(metrics))
        if trial.elapsed == 0 and duration_ns >= _STALL_NS:
            raise UnusableError(GapReason.COUNTER_STALLED, self.totals(metrics))
        if same_interval and contradicts(calibration, trial):
            totals = self.totals(metrics)  # before the scale may be given up
            self._strike("they contradict the percentages of the same samples")
            raise UnusableError(GapReason.CONTRADICTORY, totals)
        self._strikes = 0
        if self._scale.diverges(calibration):
            self._strikes = _STRIKES - 1
            self._strike(DIVERGED)
            raise UnusableError(GapReason.CONTRADICTORY)

    def _strike(self, why: str) -> None:
        self._strikes += 1
        if self._strikes == _STRIKES:
            self._scale.proven = None
            reason = f"the running cycle counters failed their self-test: {why}"
            self.evidence = (Evidence.ACTIVITY, reason, _REPORT)
