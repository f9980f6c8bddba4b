"""The ceiling of GPUs without counters, by a clock read at random times: never below the truth, and how close it
comes."""

import random
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.clock_bound import SLOT_MAX_NS, deviation
from flopsd.core.model import Evidence, GapReason
from flopsd.sources.nvml.driver import Driver, UnusableError
from flopsd.sources.nvml.polled_clock import Moments, PolledClock
from flopsd.testing import FakeClock
from tests.contract.conftest import Open
from tests.support.scenario import Gpu, Segment, a100
from tests.support.sim import Fold
from tests.support.strategies import table

UID = "GPU-5a4d0000-0000-4000-8000-000000000000"
SECOND = 10**9
MOST_MHZ = 1410
A10G = Gpu("NVIDIA A10G", 0x223710DE, 80 * 128, 7, "8.6", 1710, False, ())
L4 = Gpu("NVIDIA L4", 0x27B810DE, 58 * 128, 8, "8.9", 2040, False, ())


def figures(open_sim: Open, gpu: Gpu, seconds: int) -> tuple[int, int, int]:
    """Upper bounds in SM-cycles: at the maximum clock, and by the ledger's high; and the time read in ns."""
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, seconds)
    tally, part = fold.tallies[UID], table().resolve(source.devices()[0])
    rate, high = table().ceiling_flop_per_cycle(part, None), fold.figures(UID).high_flop
    assert rate is not None
    assert high is not None
    gap_ns = tally.total_gap_ns
    limits = table().limits(source.devices()[0], part)
    most = limits.sm_count * limits.sm_clock_max_mhz  # type: ignore[union-attr]
    return tally.busy_sm_cycles, high // rate - most * gap_ns // 1000, tally.known_ns(Evidence.UTILIZATION)


@pytest.mark.parametrize(
    ("gpu", "sms", "mhz"),
    [
        pytest.param(a100(()), 108, 1230, id="A100"),
        pytest.param(A10G, 80, 1200, id="A10G"),
        pytest.param(L4, 58, 1100, id="L4"),
    ],
)
def test_a_card_at_its_power_limit_has_the_ceiling_of_its_actual_clock(
    open_sim: Open, gpu: Gpu, sms: int, mhz: int
) -> None:
    load = (Segment(990, mhz=mhz, hmma=0.5, util=100), Segment(10, mhz=mhz + 60, hmma=0.5, util=100))
    at_most, by_clock, known_ns = figures(open_sim, replace(gpu, segments=load), 600)
    true = sms * mhz * known_ns // 1000
    print(
        f"{gpu.name}: {at_most / true:.3f} times the cycles at the maximum clock, {by_clock / true:.3f} by the sampled"
    )
    assert true <= by_clock
    assert by_clock / true < 1 + (at_most / true - 1) * 2 / 3


@pytest.mark.parametrize("set_ms", [-300, 90, 3_600_000])
def test_setting_the_wall_clock_is_no_counter_fault(open_sim: Open, set_ms: int) -> None:
    """The times of the driver's samples are then unknown; later samples have a known time again."""
    source, clock = open_sim(a100((Segment(1000, mhz=1200, util=100),)))
    fold = Fold(source, clock).read(10).read(1000, 3)
    clock.step_wall(set_ms * 1_000_000)
    fold.read(1000, 5)
    missed = GapReason.MISSED_READING
    assert fold.reasons(UID) == [GapReason.STARTING, None, None, None, missed, missed, None, None, None]


class TwoClocks(FakeClock):
    """A thread that reads both clocks is stopped between them `stops` times, for `stop_ns` each."""

    stops, stop_ns, reads = 0, 5 * SECOND, 0

    def wall_ns(self) -> int:
        self.stops, self.reads = self.stops - 1, self.reads + 1
        self.advance(self.stop_ns if self.stops >= 0 else 0)
        return super().wall_ns()


@pytest.mark.parametrize(("stop_ns", "reads"), [(0, 1), (1_000_000, 1), (1_000_001, 3)])
def test_two_clocks_read_over_a_millisecond_apart_are_read_again(stop_ns: int, reads: int) -> None:
    clock = TwoClocks()
    clock.stops, clock.stop_ns = 99, stop_ns
    lib = SimpleNamespace(NVMLError=RuntimeError, nvmlDeviceGetSamples=lambda *_: (0, []))
    Driver(lib, clock, table()).utilization_samples(None, clock.boottime_ns())
    assert clock.reads == 2 * reads


@pytest.mark.parametrize(
    ("seconds", "drift_ns", "stops", "is_set"),
    [
        (0, 10_000_000, 0, False),
        (0, -10_000_000, 0, False),
        (0, 10_000_001, 0, True),
        (0, -10_000_001, 0, True),
        (100, 110_000_000, 0, False),
        (100, 110_000_001, 0, True),
        (1, 9_000_000, 99, False),
        (1, -4 * SECOND, 1, True),  # it is read once more
    ],
)
def test_a_drifting_clock_or_a_stopped_thread_is_not_taken_for_a_clock_that_was_set(
    seconds: int, drift_ns: int, stops: int, is_set: bool
) -> None:
    clock = TwoClocks()
    lib = SimpleNamespace(NVMLError=RuntimeError, nvmlDeviceGetSamples=lambda *_: (0, []))
    driver = Driver(lib, clock, table())
    driver.utilization_samples(None, clock.boottime_ns())
    clock.advance(seconds * SECOND)
    clock.step_wall(drift_ns)
    since_ns = clock.boottime_ns() - 1
    clock.stops = stops
    with pytest.raises(UnusableError) if is_set else nullcontext():
        driver.utilization_samples(None, since_ns)


@pytest.mark.parametrize(("percent", "ratio"), [(0, 0.0), (100, 1.0), (101, None)])
def test_utilisation_above_100_percent_is_not_shown(percent: int, ratio: float | None) -> None:
    rates = SimpleNamespace(gpu=percent)
    lib = SimpleNamespace(NVMLError=RuntimeError, nvmlDeviceGetUtilizationRates=lambda _: rates)
    assert Driver(lib, FakeClock(), table()).utilization_ratio(None) == ratio


@pytest.mark.parametrize(
    ("busy_ms", "idle_ms"), [(500, 500), (100, 900), (900, 100), (250, 250), (40, 43), (3000, 700)]
)
def test_a_load_in_step_with_the_reads_is_never_above_the_ceiling(open_sim: Open, busy_ms: int, idle_ms: int) -> None:
    """Busy at the maximum clock, and idle at the lowest one."""
    load = (Segment(busy_ms, mhz=MOST_MHZ, hmma=0.9, util=100), Segment(idle_ms, mhz=210, util=0))
    at_most, by_clock, known_ns = figures(open_sim, a100(load), 300)
    laps = known_ns // ((busy_ms + idle_ms) * 1_000_000)
    assert 108 * MOST_MHZ * busy_ms * 1000 * (laps - 1) <= by_clock <= at_most


@given(st.integers(0, 2**32), st.sampled_from([0.5, 1.0, 3.0, 17.0, 18.0, 37.0, 720.0]), st.floats(0.05, 0.95))
def test_slots_across_the_ends_of_readings_leave_nothing_out(seed: int, period: float, share: float) -> None:
    """Readings end anywhere in the past; now and then a poll is missed, the other bound is chosen, or a read fails.
    `period` is that of a two-level clock, in slots of an eighteenth of a second."""
    dice = random.Random(seed)
    polled, phase = PolledClock(MOST_MHZ, Moments(dice.randrange).of), dice.random()
    lap_ns = period * SECOND / 18

    def clock_mhz(ns: float) -> int:
        return MOST_MHZ if (ns / lap_ns + phase) % 1 < share else 210

    def ran(begin_ns: int, end_ns: int) -> float:
        """Exact cycles of the clock, in thousandths."""

        def until(ns: float) -> float:
            laps, part = divmod(ns / lap_ns + phase, 1.0)
            return (laps * share + min(part, share)) * lap_ns

        high_ns = until(end_ns) - until(begin_ns)
        return MOST_MHZ * high_ns + 210 * (end_ns - begin_ns - high_ns)

    since_ns = until_ns = now_ns = 10 * SECOND
    most = squares = 0
    true, known_ns = 0.0, 0
    for _ in range(120):
        next_ns = now_ns + SECOND
        polled.plan(now_ns, next_ns)
        while (due_ns := polled.due_ns) is not None:
            missed = dice.random() < 0.01
            polled.polled(due_ns + (10_000_000 if missed else 0), clock_mhz(due_ns))
        now_ns = next_ns + dice.randrange(5_000_000)
        if dice.random() < 0.03:
            since_ns = now_ns
            continue
        end_ns = now_ns - dice.randrange(900_000_000)
        if end_ns <= since_ns:
            continue
        ceiling = polled.at_most(max(since_ns, until_ns), end_ns, now_ns)
        if ceiling.expected_mhz is not None and dice.random() < 0.9:
            most, squares = most + ceiling.cycles, squares + ceiling.square_sum
            true, known_ns = true + ran(since_ns, end_ns), known_ns + end_ns - since_ns
            until_ns = ceiling.until_ns
        since_ns = end_ns
    widest, whole = polled.max_mhz * SLOT_MAX_NS // 1000 + 1, polled.max_mhz * known_ns // 1000 + 1
    assert true / 1000 <= most + deviation(squares, widest, whole)
    assert most <= 2 * whole + 1000
