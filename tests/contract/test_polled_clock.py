"""A driver without clock samples, and loads in step with the reads of the clock: the truth stays in the interval."""

import random
from collections.abc import Sequence
from contextlib import nullcontext

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.clock_bound import SLOT_MAX_NS, deviation
from flopsd.core.clock_integral import Cycles
from flopsd.core.model import Evidence, Pipe
from flopsd.sources.nvml.polled_clock import LATE_NS, Ceiling, Moments, PolledClock
from flopsd.testing import FakeClock
from tests.contract.conftest import Open
from tests.support.scenario import Segment, h100
from tests.support.sim import Fold
from tests.support.strategies import table

UID = "GPU-5a4d0000-0000-4000-8000-000000000000"
SECOND = 10**9


@pytest.mark.parametrize(
    ("high_ms", "low_ms"), [(500, 500), (100, 900), (900, 100), (250, 250), (40, 43), (1000, 1000)]
)
def test_a_load_in_step_with_the_reads_stays_in_the_interval(open_sim: Open, high_ms: int, low_ms: int) -> None:
    """The clock jumps from idle to maximum and back, in step with the daemon's second."""
    load = (Segment(high_ms, mhz=1980, hmma=0.9, util=100), Segment(low_ms, mhz=210, hmma=0.9, util=100))
    gpu = h100(load)
    source, clock = open_sim(gpu)
    begin_ns = clock.boottime_ns() + 10_000_000
    fold = Fold(source, clock).read(10).read(1000, 600)
    figures = fold.figures(UID)
    true = float(gpu.sm_cycles(Pipe.TENSOR_HMMA, begin_ns - 1000 * SECOND, clock.boottime_ns() - 1000 * SECOND, 132))
    most = 600 * 132 * 1980e6 * 0.9
    part = table().resolve(source.devices()[0])
    margin = table().margin_ppm(Evidence.ACTIVITY, part, part.formats(Pipe.TENSOR_HMMA, None)) / 1e6
    assert figures.high_flop is not None
    high = figures.high_flop / 8192 / (1 + margin)  # FP8, twice BF16
    low = figures.low_flop / 2048 / (1 - margin)
    points = 100 * (high - low) / most
    assert low <= true <= high
    assert points < 7


def test_four_gpus_are_polled_at_the_same_times(open_sim: Open) -> None:
    source, clock = open_sim(*[h100((Segment(1000, hmma=0.5),))] * 6)
    Fold(source, clock).read(1000)
    until_ns, moments = clock.boottime_ns() + SECOND, list[int]()
    while (due_ns := source.poll(until_ns)) is not None:
        moments.append(due_ns)
        clock.advance(due_ns - clock.boottime_ns())
    assert len(moments) == 2 * 18


def test_no_gpu_is_polled_too_late_where_reading_a_clock_takes_long(
    open_sim: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, clock = open_sim(*[h100((Segment(1000, mhz=1980, hmma=0.5, util=100),))] * 4)
    read_clock = pynvml.nvmlDeviceGetClockInfo

    def slow(handle: object, kind: int) -> int:
        clock.advance(1_300_000)
        return int(read_clock(handle, kind))

    monkeypatch.setattr(pynvml, "nvmlDeviceGetClockInfo", slow)
    fold = Fold(source, clock).read(1000, 60)
    low_flop = [fold.figures(device.uid).low_flop for device in source.devices()]
    assert min(low_flop) > 0.95 * max(low_flop) > 0


def test_times_of_old_slots_are_forgotten() -> None:
    draws = iter(range(1000))
    moments = Moments(lambda _: next(draws))
    drawn = [moments.of(at, at + 1) - at for at in (*range(65), 1, 64, 0)]
    assert drawn == [*range(65), 1, 64, 65]


def clock_at(seed: int) -> PolledClock:
    return PolledClock(1980, Moments(random.Random(seed).randrange).of)


def test_polls_are_in_slots_that_cover_the_interval() -> None:
    polled = clock_at(1)
    polled.plan(5 * SECOND, 6 * SECOND)
    moments = []
    while (due_ns := polled.due_ns) is not None:
        moments.append(due_ns)
        polled.polled(due_ns, 1000)
    assert len(moments) == 18
    assert all(
        5 * SECOND + at * SECOND // 18 <= ns <= 5 * SECOND + (at + 1) * SECOND // 18 for at, ns in enumerate(moments)
    )
    found = polled.cycles(5 * SECOND, 6 * SECOND, 1000)
    assert found.cycles == pytest.approx(SECOND, abs=18)
    assert found.doubt_cycles <= 1
    assert SECOND // 18 <= SLOT_MAX_NS


@pytest.mark.parametrize("late_ns", [5_000_000, 5_000_001])  # ADR 20 allows these five milliseconds
def test_a_late_poll_does_not_count(late_ns: int) -> None:
    """The clock at a past time is unknown: anything up to its maximum, and the widest square."""
    polled = clock_at(2)
    polled.plan(0, SECOND)
    while (due_ns := polled.due_ns) is not None:
        polled.polled(due_ns + (late_ns if due_ns < SLOT_MAX_NS else 0), 1000)
    found = polled.cycles(0, SECOND, 1000)
    if late_ns == 5_000_000:
        assert found.doubt_cycles <= 1
        assert found.square_sum < SECOND
    else:
        assert found.doubt_cycles >= 1000 * SECOND // 18 // 1000 * 99 // 100
        assert found.square_sum >= (1980 * SECOND // 18 // 1000) ** 2


def test_time_without_any_poll_is_bounded_by_the_range_of_the_clock() -> None:
    """A process that was stopped: for the whole second the clock may have been at its maximum, or at zero."""
    polled = clock_at(3)
    found = polled.cycles(0, SECOND, 600)
    assert found.cycles == 600 * SECOND // 1000
    assert found.cycles + found.doubt_cycles >= 1980 * SECOND // 1000
    assert found.cycles - found.doubt_cycles <= 0
    assert found.square_sum == 0


@pytest.mark.parametrize(("mhz", "is_one"), [(None, False), (2001, False), (2000, True)])
def test_an_impossible_clock_is_no_poll(mhz: int | None, is_one: bool) -> None:
    polled = clock_at(4)
    polled.plan(0, SECOND)
    while (due_ns := polled.due_ns) is not None:
        polled.polled(due_ns, mhz)
    doubt_cycles = polled.cycles(0, SECOND, 600).doubt_cycles
    assert doubt_cycles == 1 if is_one else doubt_cycles >= (1980 - 600) * SECOND // 1000
    assert [PolledClock(most, Moments().of).max_mhz for most in (0, 100, 1980, 10**10)] == [
        0,
        101,
        2000,
        10**10 + 10**8,
    ]


@given(st.integers(0, 2**32), st.sampled_from([20, 60, 100, 500, 1000, 1700]), st.integers(1, 30))
def test_a_process_stalled_whenever_the_clock_is_low_stays_in_the_bound(seed: int, ms: int, seconds: int) -> None:
    """The load occupies the CPUs in step with its own phases: polls in a low phase come when it ends."""
    polled, half_ns = clock_at(seed), ms * 1_000_000

    def mhz_at(ns: int) -> int:
        return 1980 if ns // half_ns % 2 else 210

    cycles = doubt = squares = 0
    for second in range(seconds):
        polled.plan(second * SECOND, (second + 1) * SECOND)
        while (due_ns := polled.due_ns) is not None:
            at_ns = due_ns if mhz_at(due_ns) == 1980 else (due_ns // half_ns + 1) * half_ns
            polled.polled(at_ns, mhz_at(at_ns))
        found = polled.cycles(second * SECOND, (second + 1) * SECOND, mhz_at((second + 1) * SECOND))
        cycles, doubt, squares = cycles + found.cycles, doubt + found.doubt_cycles, squares + found.square_sum
    full, part_ns = divmod(seconds * SECOND, 2 * half_ns)
    true = (full * half_ns * (1980 + 210) + min(part_ns, half_ns) * 210 + max(0, part_ns - half_ns) * 1980) // 1000
    bound = deviation(squares, 2000 * SLOT_MAX_NS // 1000, 2000 * seconds * SECOND // 1000)
    assert abs(cycles - true) <= doubt + bound


def test_without_a_poll_the_last_known_clock_is_used_or_once_the_current_one() -> None:
    polled = PolledClock(1980, Moments().of)
    most = polled.max_mhz
    found = (None, 1000, most, None, most + 1, 300)
    sums = [polled.cycles(at * 1000, (at + 1) * 1000, mhz) for at, mhz in enumerate(found)]
    taken = [most // 2, most // 2, 1000, most, most, most]
    assert [one.cycles for one in sums] == taken
    assert [one.doubt_cycles for one in sums] == [max(mhz, most - mhz) + 1 for mhz in taken]
    assert PolledClock(1980, Moments().of).cycles(0, 1000, 1000).cycles == 1000


SLOT = SLOT_MAX_NS
PER_MHZ = SLOT // 1000  # cycles of a slot
MOST = 1010  # MHz: the tolerance of 1000


def read(clocks: Sequence[int | None]) -> PolledClock:
    """Slots from 0 on, each with its clock; None: its poll came too late."""
    polled = PolledClock(1000, Moments(lambda below: below // 2).of)
    polled.plan(0, len(clocks) * SLOT)
    for at, mhz in enumerate(clocks):
        due_ns = at * SLOT + SLOT // 2
        assert polled.due_ns == due_ns
        polled.polled(due_ns - 1, 1)
        polled.polled(due_ns + (LATE_NS + 1 if mhz is None else 0), mhz or 1000)
    assert polled.due_ns is None
    return polled


def squares(*mhz: int, missed: int = 0) -> int:
    return missed * (MOST * PER_MHZ) ** 2 + sum((each * PER_MHZ) ** 2 + 1 for each in mhz)


def test_the_sums_of_polled_and_missed_slots() -> None:
    """By hand. The prediction is first half the maximum, then the clock of the previous slot."""
    half, clocks = MOST // 2, (400, None, 600, 500, 700)
    all_squares = squares(half - 400, 200, 100, 200, missed=1)
    sums = (400 + 400 + 600 + 500 + 700) * PER_MHZ
    assert read(clocks).cycles(0, 5 * SLOT, None) == Cycles(sums, 610 * PER_MHZ + 1, all_squares)
    # The first and the last slot exceed the interval by a nanosecond: half the maximum, and the last clock.
    inner = read(clocks).cycles(1, 5 * SLOT - 1, None)
    hard_ns = 2 * SLOT - 2
    cycles = (half * SLOT + 600 * SLOT + 500 * SLOT + 500 * hard_ns) // 1000
    doubt = -(-((MOST - half) * SLOT + (MOST - 500) * hard_ns) // 1000) + 1
    assert inner == Cycles(cycles, doubt, squares(600 - half, 100, missed=1))
    ceiling = (400 + MOST + 600 + 500 + 700) * PER_MHZ
    polled = read(clocks)
    assert polled.at_most(0, 4 * SLOT + 1, 5 * SLOT) == Ceiling(None, ceiling, all_squares, 5 * SLOT)
    polled, parts = read(clocks), [(0, 2), (2, 5), (0, 5)]  # slots in a sum are in no later one
    assert [polled.at_most(begin * SLOT, end * SLOT, 5 * SLOT) for begin, end in parts] == [
        Ceiling(None, (400 + MOST) * PER_MHZ, squares(half - 400, missed=1), 2 * SLOT),
        Ceiling(400, (600 + 500 + 700) * PER_MHZ, squares(200, 100, 200), 5 * SLOT),
        Ceiling(700, 5 * MOST * PER_MHZ, 0, 5 * SLOT),
    ]


@pytest.mark.parametrize(
    ("begin", "end", "now", "taken", "until"),
    [
        (0, 2 * SLOT, 4 * SLOT, (0, 1), 2 * SLOT),
        (0, 2 * SLOT + 1, 4 * SLOT, (0, 1, 2), 3 * SLOT),
        (1, 2 * SLOT, 4 * SLOT, (1,), 2 * SLOT),
        (0, 3 * SLOT - 1, 3 * SLOT - 1, (0, 1), 3 * SLOT - 1),
        (0, 3 * SLOT - 1, 3 * SLOT, (0, 1, 2), 3 * SLOT),
        (0, 0, 4 * SLOT, (), 0),
    ],
)
def test_a_ceiling_covers_its_finished_slots_and_leaves_the_rest_for_the_next(
    begin: int, end: int, now: int, taken: Sequence[int], until: int
) -> None:
    clocks = (400, 300, 600, 500)
    for is_planned_again in (False, True):
        polled = read(clocks)
        if is_planned_again:
            polled.plan(4 * SLOT, 5 * SLOT)
        found, rest = polled.at_most(begin, end, now), [at for at in range(4) if at * SLOT >= end]
        khz_ns = sum(clocks[at] * SLOT for at in taken) + MOST * max(0, until - begin - len(taken) * SLOT)
        assert (found.cycles, found.until_ns) == (-(-khz_ns // 1000), until)
        whole = polled.at_most(until, 4 * SLOT, 4 * SLOT)
        khz_ns = sum(clocks[at] * SLOT for at in rest) + MOST * max(0, 4 * SLOT - until - len(rest) * SLOT)
        assert whole.cycles == -(-khz_ns // 1000)
        assert polled.due_ns == (4 * SLOT + SLOT // 2 if is_planned_again else None)


def test_finished_slots_are_kept_when_the_next_are_drawn_and_others_redrawn() -> None:
    polled = PolledClock(1000, Moments(lambda below: below // 2).of)
    assert polled.next_ns(0, 3 * SLOT) == SLOT // 2
    polled.polled(SLOT // 2, 400)
    polled.polled(SLOT + SLOT // 2, 500)
    assert polled.next_ns(2 * SLOT, 3 * SLOT) == 2 * SLOT + SLOT // 2, "as it was drawn"
    polled.polled(2 * SLOT + SLOT // 2, 600)
    # A read comes early, at the end of the second slot; the third is not finished, and is drawn again.
    assert polled.next_ns(2 * SLOT, 3 * SLOT + 1) == 2 * SLOT + (SLOT + 1) // 4
    polled.polled(2 * SLOT + (SLOT + 1) // 4, 700)
    assert polled.due_ns == 2 * SLOT + (SLOT + 1) // 2 + (SLOT + 2) // 4
    polled.polled(3 * SLOT, 0)
    found = polled.at_most(0, 3 * SLOT + 1, 3 * SLOT + 1)
    halves = (SLOT + 1) // 2, (SLOT + 2) // 2
    assert found.cycles == -(-((400 + 500) * SLOT + 700 * halves[0] + MOST * halves[1]) // 1000)
    polled.plan(5, 4)
    assert polled.due_ns is None


class Refused(Exception):
    pass


@pytest.mark.parametrize(
    ("early_ns", "took_ns", "answer", "cycles"),
    [
        (1, 0, 400, MOST), (0, 0, 400, 400), (0, LATE_NS, 400, 400), (0, LATE_NS + 1, 400, MOST),
        (0, 0, None, MOST), (0, 0, Refused, MOST),
    ],
)  # fmt: skip
def test_a_poll_reads_the_clock_at_its_time_whatever_the_driver_answers(
    early_ns: int, took_ns: int, answer: int | type[Exception] | None, cycles: int
) -> None:
    polled, clock, calls = PolledClock(1000, Moments(lambda below: below // 2).of), FakeClock(SLOT // 2 - early_ns), []

    def read_mhz() -> int | None:
        calls.append(1)
        clock.advance(took_ns)
        if isinstance(answer, type):
            raise answer
        return answer

    polled.plan(0, SLOT)
    with pytest.raises(Refused) if answer is Refused else nullcontext():
        polled.poll(clock, read_mhz)
    assert (len(calls), polled.due_ns is None) == (1 - early_ns, not early_ns)
    assert polled.at_most(0, SLOT, SLOT).cycles == cycles * PER_MHZ
