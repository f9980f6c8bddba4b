"""An SM clock, read once at a random moment of each slot between two reads.

docs/adr/0020 says why, and what is proven about the sum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise

from flopsd.core.clock_bound import SLOT_MAX_NS
from flopsd.core.clock_integral import Cycles
from flopsd.core.dataclass import dataclass
from flopsd.core.meter import CLOCK_TOLERANCE_PPM
from flopsd.core.values import ceil_div
from flopsd.system.clock import Clock
from flopsd.system.randomness import random_below

LATE_NS = 5_000_000  # a process that wakes up later than this after a drawn moment missed the moment
_MOMENTS_KEPT = 64
_READS_BEYOND = 3


class Moments:
    """Draws a moment in each slot. Clocks that share a Moments and have the same slots are read at the same moments, so
    that the process wakes up once for all of them."""

    def __init__(self, draw_below: Callable[[int], int] = random_below) -> None:
        """`draw_below` returns a uniformly random int from 0 to below its argument, which no load can predict."""
        self._draw_below = draw_below
        self._drawn: dict[tuple[int, int], int] = {}

    def of(self, begin_ns: int, end_ns: int) -> int:
        slot = begin_ns, end_ns
        if slot not in self._drawn:
            if len(self._drawn) >= _MOMENTS_KEPT:
                del self._drawn[next(iter(self._drawn))]
            self._drawn[slot] = begin_ns + self._draw_below(end_ns - begin_ns)
        return self._drawn[slot]


@dataclass(slots=True)
class _Slot:
    begin_ns: int
    end_ns: int
    draw_ns: int
    mhz: int | None = None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most cycles that one SM ran up to `until_ns`. `expected_mhz`: the clock known before the first draw."""

    expected_mhz: int | None
    cycles: int
    square_sum: int
    until_ns: int


class PolledClock:
    """One clock between two reads. Its slots are planned once it is known when the next read is due."""

    def __init__(self, max_mhz: int, moment_of: Callable[[int, int], int]) -> None:
        """`moment_of` draws a moment of a slot, as `Moments.of` does."""
        self.max_mhz = max_mhz + ceil_div(max_mhz * CLOCK_TOLERANCE_PPM, 1_000_000)
        self._moment_of = moment_of
        self._past: list[_Slot] = []  # slots whose moments have passed, and that are in no sum yet
        self._due: deque[_Slot] = deque()
        self._last_mhz: int | None = None
        self._planned_until_ns: int | None = None
        self.beyond_mhz, self._reads_beyond = 0, 0

    def read(self, mhz: int | None) -> None:
        """Note the clock at a read. A clock above the maximum three times in a row becomes `beyond_mhz`: the device has
        another maximum than its driver and the peak table state."""
        is_beyond = mhz is not None and mhz > self.max_mhz > 0
        self._reads_beyond = self._reads_beyond + 1 if is_beyond else 0
        if mhz is not None and self._reads_beyond >= _READS_BEYOND:
            self.beyond_mhz = max(self.beyond_mhz, mhz)

    @property
    def due_ns(self) -> int | None:
        """The moment of the next poll; None: there is no further one before the next read."""
        return self._due[0].draw_ns if self._due else None

    def plan(self, now_ns: int, until_ns: int) -> None:
        """Draw the moments of the polls between now and `until_ns`. Slots that are over and in no sum yet are kept."""
        self._past = [slot for slot in (*self._past, *self._due) if slot.end_ns <= now_ns]
        self._planned_until_ns = until_ns
        number = ceil_div(until_ns - now_ns, SLOT_MAX_NS)
        edges = [now_ns + (until_ns - now_ns) * at // number for at in range(number)] + [until_ns]
        self._due = deque(_Slot(begin, end, self._moment_of(begin, end)) for begin, end in pairwise(edges))

    def polled(self, at_ns: int, mhz: int | None) -> None:
        """Note the clock that the driver had returned by `at_ns`; None: not known. The clock at moments that passed
        more than LATE_NS earlier is not known either."""
        while self._due and self._due[0].draw_ns <= at_ns:
            slot = self._due.popleft()
            if at_ns - slot.draw_ns <= LATE_NS and mhz is not None and mhz <= self.max_mhz:
                slot.mhz = mhz
            self._past.append(slot)

    def next_ns(self, now_ns: int, until_ns: int) -> int | None:
        """Return the moment of the next poll before the read at `until_ns`, as `due_ns`. Plan the polls if need be."""
        if self._planned_until_ns != until_ns:
            self.plan(now_ns, until_ns)
        return self.due_ns

    def poll(self, clock: Clock, read_mhz: Callable[[], int | None]) -> None:
        """Read the clock, if a moment for it has come. Raises what `read_mhz` raises."""
        due_ns = self.due_ns
        if due_ns is None or due_ns > clock.boottime_ns():
            return
        mhz = None
        try:
            mhz = read_mhz()
        finally:  # an answer that took long does not belong to the moment of the call
            self.polled(clock.boottime_ns(), mhz)

    def at_most(self, begin_ns: int, end_ns: int, now_ns: int) -> Ceiling:
        """Return the most cycles of one SM in [begin_ns, end_ns) and the rest of the slot that `end_ns` is in, without
        the deviation by the squares. Time without a poll counts at the maximum clock. A slot whose poll was missed
        does too, with the widest square: whether it was missed may depend on the load."""
        expected = self._last_mhz
        predicted = self.max_mhz // 2 if expected is None else expected
        slots = (*self._past, *self._due)
        taken = [slot for slot in slots if begin_ns <= slot.begin_ns < end_ns and slot.end_ns <= now_ns]
        self._past = [slot for slot in self._past if slot.begin_ns >= end_ns]
        khz_ns = squares = sampled_ns = 0
        for slot in taken:
            length_ns = slot.end_ns - slot.begin_ns
            sampled_ns += length_ns
            if slot.mhz is None:
                khz_ns += self.max_mhz * length_ns
                squares += ceil_div(self.max_mhz * length_ns, 1000) ** 2
                continue
            khz_ns += slot.mhz * length_ns
            squares += ceil_div(abs(slot.mhz - predicted) * length_ns, 1000) ** 2 + 1
            predicted = self._last_mhz = slot.mhz
        until_ns = max([end_ns, *(slot.end_ns for slot in taken)])
        khz_ns += self.max_mhz * max(0, until_ns - begin_ns - sampled_ns)
        return Ceiling(expected, ceil_div(khz_ns, 1000), squares, until_ns)

    def cycles(self, begin_ns: int, end_ns: int, mhz: int | None) -> Cycles:
        """Return the cycles of one SM from one read to the next; `mhz`: the clock at the second read. In time without a
        poll, the clock may have been anything from zero to the maximum. A slot whose poll was missed keeps its place in
        the sum, with the widest square: whether it was missed may depend on the load."""
        predicted = self.max_mhz // 2 if self._last_mhz is None else self._last_mhz  # known before the first draw
        taken = predicted if self._last_mhz is not None or mhz is None else mhz
        sampled_ns = khz_ns = squares = 0
        hard: list[tuple[int, int]] = []  # stretches without a poll: length, and the clock assumed for them
        for slot in (*self._past, *self._due):
            length_ns = slot.end_ns - slot.begin_ns
            if slot.begin_ns < begin_ns or slot.end_ns > end_ns:
                continue
            sampled_ns += length_ns
            if slot.mhz is None:
                hard.append((length_ns, taken))
                squares += ceil_div(self.max_mhz * length_ns, 1000) ** 2
                continue
            khz_ns += slot.mhz * length_ns
            squares += ceil_div(abs(slot.mhz - predicted) * length_ns, 1000) ** 2 + 1
            predicted = taken = slot.mhz
        hard.append((end_ns - begin_ns - sampled_ns, taken))
        self._last_mhz = mhz if mhz is not None and mhz <= self.max_mhz else taken
        self._past, self._due = [], deque()
        khz_ns += sum(length_ns * clock for length_ns, clock in hard)
        doubt = sum(length_ns * max(clock, self.max_mhz - clock) for length_ns, clock in hard)
        return Cycles(khz_ns // 1000, ceil_div(doubt, 1000) + 1, squares)
