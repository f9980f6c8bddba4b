"""Counters that read too high: a gap with a ceiling, never work; and loads that only look like a lie."""

import pynvml
import pytest

from flopsd.core.model import Evidence, GapReason, Pipe
from flopsd.sources.nvml.driver import Power
from flopsd.sources.nvml.plausibility import READS_WITHOUT_UTILIZATION, Plausibility
from tests.contract.conftest import Open
from tests.support.scenario import Fault, Segment, h100
from tests.support.sim import Fold

UID = "GPU-5a4d0000-0000-4000-8000-000000000000"
SECOND = 10**9
FOREVER = 10**9


@pytest.mark.parametrize("counters", ["none", "average"])
@pytest.mark.parametrize("kind", ["full", "stuck"])
def test_percentages_that_stay_while_the_gpu_goes_idle_are_a_gap(open_sim: Open, kind: str, counters: str) -> None:
    """Twenty seconds of work, then forty idle in which the percentages stay those of the work, or show a hundred."""
    load = (Segment(20_000, mhz=1755, hmma=0.42), Segment(100_000, mhz=1755))
    gpu = h100(load, (Fault(19_000, FOREVER, kind),), counters=counters)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(990).read(1000, 59)
    tally, figures = fold.tallies[UID], fold.figures(UID)
    true = float(gpu.sm_cycles(Pipe.TENSOR_HMMA, 10_000_000, 60 * SECOND, 132))
    assert tally.gap_ns[GapReason.CONTRADICTORY] >= 39 * SECOND
    assert figures.high_flop is not None
    assert figures.low_flop <= true * 4096 <= figures.high_flop
    assert figures.measured_flop is not None
    assert figures.measured_flop <= 1.2 * true * 4096


def test_a_load_in_step_with_the_utilisation_sample_is_no_lie(open_sim: Open) -> None:
    """Busy for 0.7 s of each second and idle when utilisation is read: its power shows that it works."""
    load = (Segment(700, mhz=1755, hmma=0.8), Segment(300, mhz=1755))
    source, clock = open_sim(h100(load))
    fold = Fold(source, clock).read(10).read(990).read(1000, 30)
    assert GapReason.CONTRADICTORY not in fold.tallies[UID].gap_ns
    assert fold.tallies[UID].observed_ns[Evidence.ACTIVITY] == 30 * SECOND + 990_000_000


@pytest.mark.parametrize("late_ms", [0, 15, 65])
def test_a_steady_load_after_a_burst_is_no_lie(open_sim: Open, monkeypatch: pytest.MonkeyPatch, late_ms: int) -> None:
    """Its percentages are the same in several short readings, while utilisation and the energy counter, which is read
    a while after the sample, still show the burst before them or already show the next one."""
    load = (
        Segment(130, mhz=1980, util=100, watts=690, hmma=0.93),
        Segment(270, mhz=1980, util=10, watts=140, hmma=0.2),
    )
    source, clock = open_sim(h100(load, counters="sum"))
    energy, began_ns = pynvml.nvmlDeviceGetTotalEnergyConsumption, clock.boottime_ns()

    def late(handle: object) -> int:
        if (clock.boottime_ns() - began_ns) // 1_000_000 % 400 == 340:
            clock.advance(late_ms * 1_000_000)
        return int(energy(handle))

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", late)
    fold = Fold(source, clock).read(140)
    for _ in range(20):
        fold.read(100, 2).read(200 - late_ms)
    assert fold.tallies[UID].gap_ns.keys() == {GapReason.STARTING}


def test_where_power_is_unknown_utilisation_decides_after_some_reads() -> None:
    one, work = Plausibility(), {Pipe.TENSOR: 0.5}
    found = [one.contradicts({Pipe.TENSOR: 0.5 + at / 1000}, 0.0, None, 1.0, SECOND) for at in range(5)]
    assert found == [at + 1 >= READS_WITHOUT_UTILIZATION for at in range(5)]
    assert not one.contradicts(work, 0.1, None, 1.0, SECOND)
    assert one.contradicts(work, 1.0, None, 1.0, SECOND)  # the same to the last digit, with another utilisation
    assert one.contradicts(work, 1.0, None, 1.0, SECOND)
    assert not one.contradicts({Pipe.TENSOR: 0.51}, 1.0, None, 1.0, SECOND)


@pytest.mark.parametrize(
    ("ratio", "power", "clock", "is_a_lie"),
    [(0.4, Power(0.19), 0.5, True), (0.39, Power(0.19), 0.5, False), (0.4, Power(0.2), 0.5, False),
     (0.4, Power(0.19), 0.49, False), (0.4, Power(0.19), None, True), (0.5, Power(0.19, 0.125), None, False),
     (0.0, Power(0.1), 1.0, False), (0.0, Power(0.3), 1.0, True), (0.0, Power(0.29), 1.0, False),
     (0.0, None, 1.0, False), (0.001, Power(0.3), 1.0, False)],
)  # fmt: skip
def test_power_that_contradicts_the_activity_is_a_lie(
    ratio: float, power: Power | None, clock: float | None, is_a_lie: bool
) -> None:
    assert Plausibility().contradicts({Pipe.TENSOR: ratio}, 0.1, power, clock, SECOND) is is_a_lie
    assert not Plausibility().contradicts({Pipe.TENSOR: 0.0}, 0.09, power, clock, SECOND), "hardly anything ran"


def test_percentages_stuck_before_the_daemon_began_are_a_lie_if_nothing_runs() -> None:
    """At 29 %, which is compatible with the power of an idle GPU."""
    one, work = Plausibility(), {Pipe.TENSOR: 0.29}
    assert [one.contradicts(work, 0.0, Power(0.1), 1.0, SECOND) for _ in range(3)] == [False, True, True]
    assert not any(one.contradicts({Pipe.TENSOR: 0.2 + at / 1000}, 0.0, Power(0.1), 1.0, SECOND) for at in range(3))
    idle = Plausibility()
    assert [idle.contradicts({Pipe.TENSOR: 0.0009}, 0.0, Power(0.1), 1.0, SECOND) for _ in range(3)] == [False] * 3


@pytest.mark.parametrize(
    ("power", "is_a_lie"),
    [(Power(0.5625), False), (Power(0.625), True), (Power(0.375), True), (Power(0.625, 0.0625), False)],
)
def test_a_percentage_that_stays_while_the_power_changes_is_stuck(power: Power, is_a_lie: bool) -> None:
    one, work = Plausibility(), {Pipe.TENSOR: 0.42}
    assert not one.contradicts(work, 1.0, Power(0.5), 1.0, SECOND)
    assert one.contradicts(work, 1.0, power, 1.0, SECOND) is is_a_lie
    assert one.contradicts(work, 1.0, power, 1.0, SECOND) is is_a_lie
    assert not one.contradicts({Pipe.TENSOR: 0.43}, 1.0, power, 1.0, SECOND)
