"""The SM clock integrated over an interval from samples: an estimate of cycles. Pure.

Between two samples the clock changed from one value to the other at an unknown moment, or gradually: the middle is
taken, with half the difference as its doubt. That is no bound: a change and its reversal between samples is not seen.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Active, Evidence, Pipe
from flopsd.core.values import ceil_div

ClockSample = tuple[int, int]  # boot time in ns, MHz
MOST_MHZ = 10_000  # no chip has a faster clock


def is_clock(mhz: float, max_mhz: int | None) -> bool:
    """Whether a sample can be a clock: above zero, and at most twice the maximum, which no boost reaches."""
    return 0 < mhz <= (MOST_MHZ if max_mhz is None else 2 * max_mhz)


@dataclass(frozen=True, slots=True)
class Cycles:
    """Estimated cycles of one SM in an interval. The truth is within `cycles` +- `doubt_cycles`; for a sum of random
    samples also +- the deviation of `square_sum` (see clock_bound)."""

    cycles: int
    doubt_cycles: int
    square_sum: int = 0

    def up_to(self, max_mhz: int, duration_ns: int) -> Cycles:
        """The same estimate, where the clock may have had any value up to its maximum."""
        most = ceil_div(duration_ns * max_mhz, 1000)
        return Cycles(self.cycles, max(self.cycles, most - self.cycles))


def activity(ratios: Mapping[Pipe, float], clock: Cycles, sm_count: int, unread: tuple[Pipe, ...]) -> Active:
    """SM-cycles by pipe from shares of all cycles, with the uncertainty of the clock."""
    busy = {pipe: ratio for pipe, ratio in ratios.items() if ratio}
    squares = {pipe: math.ceil(clock.square_sum * (ratio * sm_count) ** 2) for pipe, ratio in busy.items()}
    return Active(
        Evidence.ACTIVITY,
        {pipe: round(ratio * clock.cycles * sm_count) for pipe, ratio in ratios.items()},
        {pipe: math.ceil(ratio * clock.doubt_cycles * sm_count) for pipe, ratio in busy.items() if clock.doubt_cycles},
        unread,
        {pipe: square + square // 10**12 for pipe, square in squares.items() if square},  # for rounding of the float
    )


def integrate(samples: Sequence[ClockSample], begin_ns: int, end_ns: int) -> Cycles | None:
    """The clock's integral over [begin_ns, end_ns) from samples in order of time; None without samples. Before the
    first and after the last sample the clock is taken to have that sample's value."""
    if not samples or end_ns < begin_ns:
        return None
    if len(samples) == 2 and samples[0][0] == begin_ns and samples[1][0] == end_ns:  # one read after the other
        (_, before), (_, after) = samples
        passed_ns = end_ns - begin_ns
        return Cycles((before + after) * passed_ns // 2000, -(-abs(before - after) * passed_ns // 2000))
    times = [at_ns for at_ns, _ in samples]
    first, last = max(0, bisect_right(times, begin_ns) - 1), min(len(samples), bisect_left(times, end_ns) + 1)
    twice_khz_ns = twice_doubt = 0
    at_ns, mhz = begin_ns, samples[first][1]
    for (from_ns, from_mhz), (to_ns, to_mhz) in zip(samples[first:last], samples[first + 1 : last], strict=False):
        part_ns = min(to_ns, end_ns) - max(from_ns, at_ns)
        if from_ns > at_ns:  # before the first sample
            twice_khz_ns += 2 * mhz * (from_ns - at_ns)
        twice_khz_ns += (from_mhz + to_mhz) * part_ns
        twice_doubt += abs(from_mhz - to_mhz) * part_ns
        at_ns, mhz = max(at_ns, min(to_ns, end_ns)), to_mhz
    twice_khz_ns += 2 * mhz * (end_ns - at_ns)
    return Cycles(twice_khz_ns // 2000, -(-twice_doubt // 2000))
