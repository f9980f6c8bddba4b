"""What the running GPM counters count: a self-test of their scale against percentages and clock. Pure.

NVIDIA documents the counters 248 to 260 as cycles since reboot, and not whether they are summed over the
SMs or averaged, nor whether they are running totals at all. The device's own percentages of the same
interval, which are documented, and the SM clock decide: the candidates lie a factor of four or more apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flopsd.core.model import Pipe, Totals

ENOUGH_ACTIVITY_RATIO = 0.01  # below it, a percentage is too coarse to separate scales
_RATIO_TOLERANCE = 0.05  # between a quotient of counters and the percentage of the same two samples
_CLOCK_TOLERANCE = 0.5  # polls of a clock that moves, counters up to 100 ms old (nvml.h)


@dataclass(frozen=True, slots=True)
class Scale:
    """SM-cycles = counter x times / per. As many times as there are SMs: the counter is averaged over them; once:
    summed; a quarter: summed over their sub-partitions."""

    times: int
    per: int = 1

    def __str__(self) -> str:
        return str(self.times) if self.per == 1 else f"{self.times}/{self.per}"

    def sm_cycles(self, counter: int) -> int:
        return counter * self.times // self.per


@dataclass(frozen=True, slots=True)
class Calibration:
    """The outcome of the self-test."""

    pipes: Scale
    elapsed: Scale
    counters: str = "GPM"

    @property
    def origin(self) -> str:
        """Names counters and scale: SM-cycles = counter x times / per. Only totals of one origin are subtracted."""
        return f"{self.counters} pipes x{self.pipes}, elapsed x{self.elapsed}"

    def totals(self, elapsed: int, counters: Mapping[Pipe, int]) -> Totals:
        return Totals(
            self.origin,
            self.elapsed.sm_cycles(elapsed),
            {pipe: self.pipes.sm_cycles(counter) for pipe, counter in counters.items()},
        )


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One interval of two samples, by counters and by what they are held against; and a longer one for the
    rate of the elapsed cycles, since counters are up to 100 ms old. `cycles` are those of one SM."""

    elapsed: int  # difference of the counter
    active: Mapping[Pipe, int]  # differences of the counters
    ratios: Mapping[Pipe, float]  # from the percentages; TENSOR is any tensor activity in both
    window_elapsed_before: int
    window_elapsed_after: int
    window_cycles: int


class SelfTestFailedError(Exception):
    """The counters contradict the device's own percentages or clock; the text states how."""


def scales(sm_count: int) -> tuple[Scale, ...]:
    return Scale(sm_count), Scale(1), Scale(1, 4)


def remembered(origin: str | None, sm_count: int, counters: str = "GPM") -> Calibration | None:
    """The calibration that an origin names, where it was journalled before on this boot."""
    candidates = scales(sm_count)
    found = (Calibration(pipes, elapsed, counters) for pipes in candidates for elapsed in candidates)
    return next((one for one in found if origin == one.origin or (origin or "").startswith(one.origin + ",")), None)


def judge(trial: SelfTest, sm_count: int, counters: str = "GPM") -> Calibration | None:
    """The scale that fits, or None while too little ran to decide. Raises SelfTestFailedError."""
    enough = {pipe: ratio for pipe, ratio in trial.ratios.items() if ratio >= ENOUGH_ACTIVITY_RATIO}
    if not enough or not trial.window_cycles:
        return None  # any scale would fit a clock that stood still
    grown = trial.window_elapsed_after - trial.window_elapsed_before
    expected = trial.window_cycles * sm_count
    elapsed = _fitting(expected, grown, sm_count, _CLOCK_TOLERANCE)
    if elapsed is None:
        if _fitting(expected, trial.window_elapsed_after, sm_count, _CLOCK_TOLERANCE) is not None:
            raise SelfTestFailedError("the cycle counters are differences between samples, not running totals")
        raise SelfTestFailedError(
            f"SM_CYCLES_ELAPSED grew by {grown} while the SM clock ran {trial.window_cycles} cycles on {sm_count} SMs"
        )
    if not trial.elapsed:
        return None  # counters that were not renewed between these two samples: any scale would fit zero
    whole = elapsed.sm_cycles(trial.elapsed)
    found = {_fitting(ratio * whole, trial.active[pipe], sm_count, _RATIO_TOLERANCE) for pipe, ratio in enough.items()}
    scale = found.pop()
    if scale is None or found:
        compared = ", ".join(
            f"{pipe.value} {trial.active[pipe] / trial.elapsed:.4f} for {ratio:.4f}" for pipe, ratio in enough.items()
        )
        raise SelfTestFailedError(f"active over elapsed cycles differs from the percentages: {compared}")
    return Calibration(scale, elapsed, counters)


def contradicts(calibration: Calibration, trial: SelfTest) -> bool:
    """Whether counters that passed the self-test say another thing than the percentages in this interval."""
    whole = calibration.elapsed.sm_cycles(trial.elapsed)
    return any(
        abs(calibration.pipes.sm_cycles(trial.active[pipe]) - ratio * whole) > _RATIO_TOLERANCE * whole
        for pipe, ratio in trial.ratios.items()
    )


def _fitting(expected: float, counter: int, sm_count: int, tolerance: float) -> Scale | None:
    return next(
        (s for s in scales(sm_count) if abs(s.sm_cycles(counter) - expected) <= tolerance * expected),
        None,
    )
