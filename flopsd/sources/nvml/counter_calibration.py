"""The scale of running cycle counters, found by a self-test against percentages and clock. Pure.

NVIDIA documents the counters 248 to 260 as cycles since reboot, but not whether they are summed over the SMs or
averaged, nor whether they are running totals at all. The documented percentages of the same interval and the SM clock
decide: the candidate scales are a factor of four or more apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from flopsd.core.clock_bound import SLOT_MAX_NS, deviation
from flopsd.core.clock_integral import Cycles
from flopsd.core.dataclass import dataclass
from flopsd.core.meter import max_plausible_sm_cycles
from flopsd.core.model import Limits, Pipe, Totals
from flopsd.core.values import ceil_div

ENOUGH_ACTIVITY_RATIO = 0.01  # below it, a percentage is too coarse to separate scales
CLOCK_TOLERANCE_PPM = 100_000  # between the elapsed cycles and the SM clock, including its doubt
_RATIO_TOLERANCE = 0.05  # between a quotient of counters and the percentage of the same two samples
_REFRESH_NS = 100_000_000  # counters may be this old (nvml.h)
_OLD_MAX_NS = 60_000_000_000  # values that are older than that are of counters that fell
CHECK_NS, WINDOW_NS = 60_000_000_000, 600_000_000_000  # of counters in use against the clock
DIVERGED = "they differ from the SM clock by over a tenth"
_WIDTHS = (32, 40, 48)  # bits of counters that start over before 64


class Scale(NamedTuple):
    """SM-cycles = counter x times / per. The number of SMs: the counter is averaged over them; 1: it is summed over
    them; 1/4: it is summed over their sub-partitions."""

    times: int
    per: int = 1

    def __str__(self) -> str:
        return str(self.times) if self.per == 1 else f"{self.times}/{self.per}"

    def sm_cycles(self, counter: int) -> int:
        return counter * self.times // self.per


@dataclass(frozen=True)
class Calibration:
    """The outcome of the self-test."""

    pipes: Scale
    elapsed: Scale
    counters: str = "GPM"

    @cached_property
    def origin(self) -> str:
        """Names counters and scale: SM-cycles = counter x times / per. Only totals of one origin may be subtracted."""
        return f"{self.counters} pipes x{self.pipes}, elapsed x{self.elapsed}"

    @cached_property
    def _wrap_at(self) -> dict[int, tuple[int, int]]:
        """By bits, the SM-cycles at which the elapsed counter and the pipes' counters start over."""
        return {bits: (self.elapsed.sm_cycles(2**bits), self.pipes.sm_cycles(2**bits)) for bits in _WIDTHS}

    def totals(self, elapsed: int, counters: Mapping[Pipe, int], bits: int | None = None) -> Totals:
        """Return counters in SM-cycles. `bits`: their `width`, since they start over at 2^`bits`; None: nowhere."""
        times, per = self.pipes
        of_pipes = width(max(counters.values(), default=0))
        return Totals(
            self.origin,
            self.elapsed.sm_cycles(elapsed),
            {pipe: counter * times // per for pipe, counter in counters.items()},
            None if bits is None else self._wrap_at[bits],
            None if of_pipes is None else self._wrap_at[of_pipes][1],
        )


class SampleInterval(NamedTuple):
    """The interval between two samples: the growth of the counters, and the percentages."""

    elapsed: int
    active: Mapping[Pipe, int]
    ratios: Mapping[Pipe, float]  # TENSOR is any tensor activity in both


class Window(NamedTuple):
    """Consecutive intervals: the growth of the elapsed counter, and the cycles of one SM by its clock."""

    elapsed: int = 0
    cycles: int = 0
    doubt_cycles: int = 0
    square_sum: int = 0
    duration_ns: int = 0

    def with_interval(self, elapsed: int, clock: Cycles, duration_ns: int) -> Window:
        return Window(
            self.elapsed + elapsed,
            self.cycles + clock.cycles,
            self.doubt_cycles + clock.doubt_cycles,
            self.square_sum + clock.square_sum,
            self.duration_ns + duration_ns,
        )

    def doubt(self, max_mhz: int) -> int:
        """Return how far `cycles` may be from a correct counter: the clock is inexact, and the counter may be old."""
        sampled = 0
        if self.square_sum:
            limits = Limits(1, max_mhz)
            widest, whole = (max_plausible_sm_cycles(limits, ns) for ns in (SLOT_MAX_NS, self.duration_ns))
            sampled = deviation(self.square_sum, widest, whole)
        return self.doubt_cycles + sampled + ceil_div(_REFRESH_NS * max_mhz, 1000)


class SelfTestFailedError(Exception):
    """The counters contradict the device's own percentages or clock; the text states how. `blames_clock`: the counters
    may be right, and the reported clock too low."""

    def __init__(self, text: str, *, blames_clock: bool = False) -> None:
        super().__init__(text)
        self.blames_clock = blames_clock


def scales(sm_count: int) -> tuple[Scale, ...]:
    return Scale(sm_count), Scale(1), Scale(1, 4)


def width(value: int) -> int | None:
    """Return the fewest bits that a counter with such a value can have; None: all 64."""
    for bits in _WIDTHS:
        if value >> bits == 0:
            return bits
    return None


def growth(before: int, now: int, bits: int | None) -> int:
    """Return what a counter grew by, past 2^`bits` if it fell from near there; negative: it fell from elsewhere."""
    if now >= before or bits is None or before >> bits:
        return now - before
    over = now - before + (1 << bits)
    return now - before if over > (1 << bits) * 3 // 4 else over


def calibration_named(origin: str | None, sm_count: int, counters: str = "GPM") -> Calibration | None:
    """Return the calibration that `origin` names, which was journalled earlier on this boot; None: it names none."""
    candidates = scales(sm_count)
    found = (Calibration(pipes, elapsed, counters) for pipes in candidates for elapsed in candidates)
    return next((one for one in found if origin == one.origin or (origin or "").startswith(one.origin + ",")), None)


def judge(
    trial: SampleInterval, window: Window, sm_count: int, max_mhz: int, counters: str = "GPM"
) -> Calibration | None:
    """Return the scale that fits, or None while too little ran to decide. Raises SelfTestFailedError."""
    enough = {pipe: ratio for pipe, ratio in trial.ratios.items() if ratio >= ENOUGH_ACTIVITY_RATIO}
    if not enough or not window.cycles:
        return None  # any scale would fit a clock that stood still
    elapsed = min(scales(sm_count), key=lambda scale: abs(_distance(scale, window, sm_count)))
    fits = follows_clock(elapsed, window, sm_count, max_mhz)
    may_be_faster = any(is_faster(scale, window, sm_count, max_mhz) for scale in scales(sm_count))
    if fits is False or (fits and may_be_faster):
        raise SelfTestFailedError(
            f"SM_CYCLES_ELAPSED grew by {window.elapsed} while {sm_count} SMs ran {window.cycles} cycles each",
            blames_clock=may_be_faster,
        )
    if fits is None or not trial.elapsed:
        return None  # the counters were not renewed between these two samples: any scale would fit zero
    whole = elapsed.sm_cycles(trial.elapsed)
    found = {_fitting(ratio * whole, trial.active[pipe], sm_count) for pipe, ratio in enough.items()}
    scale = found.pop()
    if scale is None or found:
        compared = ", ".join(
            f"{pipe.value} {trial.active[pipe] / trial.elapsed:.4f} for {ratio:.4f}" for pipe, ratio in enough.items()
        )
        raise SelfTestFailedError(f"active over elapsed cycles differs from the percentages: {compared}")
    return Calibration(scale, elapsed, counters)


def follows_clock(scale: Scale, window: Window, sm_count: int, max_mhz: int) -> bool | None:
    """Whether the elapsed cycles match the SM clock to a tenth; None: the doubt of the clock leaves that open."""
    apart, doubt = abs(_distance(scale, window, sm_count)), window.doubt(max_mhz) * sm_count
    allowed = window.cycles * sm_count * CLOCK_TOLERANCE_PPM // 1_000_000
    return True if apart + doubt <= allowed else False if apart - doubt > allowed else None


def is_faster(scale: Scale, window: Window, sm_count: int, max_mhz: int) -> bool:
    """Whether the elapsed cycles match a faster clock that the part can run: then the reported clock may be wrong, and
    not the counters."""
    possible = max_plausible_sm_cycles(Limits(sm_count, max_mhz), window.duration_ns + _REFRESH_NS)
    is_more = _distance(scale, window, sm_count) > 0 and follows_clock(scale, window, sm_count, max_mhz) is False
    return is_more and scale.sm_cycles(window.elapsed) <= possible


def contradicts(calibration: Calibration, trial: SampleInterval) -> bool:
    """Whether counters that passed the self-test disagree with the percentages in this interval: by a twentieth of the
    pipe's cycles and a hundredth of all, or by a twentieth of all. One that stands still while its pipe is active does,
    however little that is."""
    whole, active = calibration.elapsed.sm_cycles(trial.elapsed), trial.active
    times, per = calibration.pipes
    for pipe, ratio in trial.ratios.items():  # at each reading, and `any` takes half as long again
        counter, tolerance = active[pipe], min(_RATIO_TOLERANCE, _RATIO_TOLERANCE * ratio + ENOUGH_ACTIVITY_RATIO)
        apart = abs(counter * times // per - ratio * whole)
        if apart > tolerance * whole or (not counter and ratio >= ENOUGH_ACTIVITY_RATIO):
            return True
    return False


class CounterScale:
    """The scale of one device's counters: proven by the self-test, then compared with the SM clock."""

    def __init__(self, sm_count: int, max_mhz: int, counters: str) -> None:
        """`counters`: their name. Counters of another name, such as another driver's, may have another scale."""
        self._sm_count, self._max_mhz, self._counters = sm_count, max_mhz, counters
        self._window = Window()
        self._peak: int | None = None  # of the elapsed counter, where older values came after it
        self.proven: Calibration | None = None
        self.clock_doubt = ""  # how the counters fit a faster clock than is reported: either may be wrong

    def recall(self, origin: str | None) -> None:
        """Take over what was proven earlier on this boot, if `origin` names it."""
        self.proven = calibration_named(origin, self._sm_count, self._counters)

    def add(self, elapsed: int, clock: Cycles, duration_ns: int) -> None:
        """Note the growth of the elapsed counter, and the clock, in an interval that follows the last one."""
        self._window = self._window.with_interval(elapsed, clock, duration_ns)

    def interrupt(self) -> None:
        """Note that an interval is missing."""
        self._window = Window()

    def prove(self, trial: SampleInterval) -> None:
        """Continue the self-test after `add`. Raises SelfTestFailedError, unless the clock may be wrong instead."""
        try:
            self.proven = judge(trial, self._window, self._sm_count, self._max_mhz, self._counters)
        except SelfTestFailedError as failed:
            self.interrupt()
            if not failed.blames_clock:
                raise
            self.clock_doubt = self.clock_doubt or str(failed)
        if self.proven is not None:
            self.interrupt()
            self.clock_doubt = ""

    def beyond_old(self, elapsed: int, grown: int, duration_ns: int) -> bool | None:
        """Whether counters in use are beyond the highest value that they had before an older one came; None: none came.
        The elapsed counter `grown` below an earlier value is an old one, unless it began at zero or fell far. The
        growth of old values was counted before, and whether they are old is not known: counting goes on beyond."""
        if grown < 0:
            peak = max(elapsed - grown, self._peak or 0)
            is_old = not self._may_be(elapsed, duration_ns) and self._may_be(peak - elapsed, _OLD_MAX_NS)
            self._peak = peak if is_old else None
        if self._peak is None:
            return None
        self.interrupt()
        if elapsed <= self._peak and elapsed >= grown:  # or past its width
            return False
        self._peak = None
        return True

    def _may_be(self, elapsed: int, duration_ns: int) -> bool:
        """Whether the elapsed counter can have grown by so much in that time."""
        possible = max_plausible_sm_cycles(Limits(self._sm_count, self._max_mhz), duration_ns + _REFRESH_NS)
        return self.proven is not None and self.proven.elapsed.sm_cycles(elapsed) <= possible

    def diverges(self, calibration: Calibration) -> bool:
        """Whether counters in use no longer follow the SM clock. Then their scale is not proven any more."""
        if self._window.duration_ns < CHECK_NS:
            return False
        held = (calibration.elapsed, self._window, self._sm_count, self._max_mhz)
        if follows_clock(*held) is False:
            self.proven, self.clock_doubt = None, DIVERGED if is_faster(*held) else ""
            return True
        if self._window.duration_ns >= WINDOW_NS:
            self.interrupt()
        return False


def _distance(scale: Scale, window: Window, sm_count: int) -> int:
    return scale.sm_cycles(window.elapsed) - window.cycles * sm_count


def _fitting(expected: float, counter: int, sm_count: int) -> Scale | None:
    return next(
        (s for s in scales(sm_count) if abs(s.sm_cycles(counter) - expected) <= _RATIO_TOLERANCE * expected), None
    )
