"""Running cycle counters: whatever their scale, whoever dies, nothing is lost; and percentages under a moving clock."""

from __future__ import annotations

import pytest

from flopsd.core.model import Evidence, GapReason, Pipe
from tests.contract.conftest import Open
from tests.support.fold import Fold
from tests.support.scenario import Gpu, Segment, h100

UID = "GPU-5a4d0000-0000-4000-8000-000000000000"
LOAD = (
    Segment(300, mhz=1980, hmma=0.62, imma=0.05, fp32=0.11, fp64=0.01, util=97, watts=610),
    Segment(50, mhz=1410, hmma=0.91, util=100),
    Segment(650, mhz=1755, util=10),
)
PIPES = (Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.FP64, Pipe.FP32)


def truth(gpu: Gpu, fold: Fold, pipe: Pipe, since_ms: int) -> float:
    """SM-cycles from `since_ms` after the epoch, when the clock of the fold was at 1000 s, to now."""
    return float(gpu.sm_cycles(pipe, since_ms * 1_000_000, fold.clock.boottime_ns() - 1000 * 10**9, 132))


@pytest.mark.parametrize("scale", ["average", "sum", "quarter"])
def test_the_scale_is_found_and_named(open_sim: Open, scale: str) -> None:
    gpu = h100(LOAD, counters=scale)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 3)
    device = source.devices()[0]
    assert (device.evidence, device.evidence_reason) == (Evidence.CYCLES, "")
    factor = {"average": "132", "sum": "1", "quarter": "1/4"}[scale]
    totals = fold.tallies[UID].totals
    assert totals is not None
    assert totals.origin == f"GPM pipes x{factor}, elapsed x{factor}"
    fold.read(777, 20)
    for pipe in PIPES:
        counted = sum(n for (_, p), n in fold.tallies[UID].active_sm_cycles.items() if p is pipe)
        # Before the scale was proven, percentages counted: their clock is polled twice a second here.
        assert counted == pytest.approx(truth(gpu, fold, pipe, 10), rel=0.05)
    assert fold.tallies[UID].observed_ns[Evidence.CYCLES] > fold.tallies[UID].observed_ns[Evidence.ACTIVITY]
    assert fold.reasons(UID) == [GapReason.STARTING, *[None] * 23]


@pytest.mark.parametrize(
    ("counters", "why"), [("wrong", "differs from the percentages"), ("delta", "differences between samples")]
)
def test_counters_that_fail_the_self_test_are_not_used(open_sim: Open, counters: str, why: str) -> None:
    gpu = h100((Segment(1000, hmma=0.5),), counters=counters)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 8)
    device = source.devices()[0]
    assert device.evidence is Evidence.ACTIVITY
    assert why in device.evidence_reason
    assert Evidence.CYCLES not in fold.tallies[UID].observed_ns
    assert fold.tallies[UID].active_sm_cycles[(Evidence.ACTIVITY, Pipe.TENSOR_HMMA)] == pytest.approx(
        truth(gpu, fold, Pipe.TENSOR_HMMA, 10)
    )


def test_an_idle_device_proves_nothing_and_loses_nothing(open_sim: Open) -> None:
    gpu = h100((Segment(10_000, mhz=345), Segment(10_000, mhz=1755, hmma=0.5)), counters="average")
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(990).read(1000, 8)
    assert source.devices()[0].evidence is Evidence.ACTIVITY
    assert "proven by the first second of work" in source.devices()[0].evidence_reason
    fold.read(1000, 5)
    assert source.devices()[0].evidence is Evidence.CYCLES
    counted = sum(n for (_, pipe), n in fold.tallies[UID].active_sm_cycles.items() if pipe is Pipe.TENSOR_HMMA)
    assert counted == pytest.approx(truth(gpu, fold, Pipe.TENSOR_HMMA, 10), rel=1e-6)


def test_ten_deaths_lose_nothing(open_sim: Open) -> None:
    """Each new daemon has only the journal: it goes on from its counter values, whatever it missed."""
    gpu = h100(LOAD, counters="average")
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 3)
    begin_ms = (fold.tallies[UID].totals_ns - 1000 * 10**9) // 1_000_000
    first = dict(fold.tallies[UID].active_sm_cycles)
    for down_ms in (7, 480, 1333, 2000, 61, 9000, 333, 1500, 20_000, 77):
        tallies = fold.journalled()
        totals = tallies[UID].totals
        assert totals is not None
        clock.advance(down_ms * 1_000_000)
        source, _ = open_sim(again=clock, origins={UID: totals.origin})
        fold = Fold(source, clock, tallies).read(200).read(1000, 2)
    tally = fold.tallies[UID]
    for pipe in PIPES:
        counted = tally.active_sm_cycles[(Evidence.CYCLES, pipe)] - first.get((Evidence.CYCLES, pipe), 0)
        assert abs(counted - truth(gpu, fold, pipe, begin_ms)) <= 132 * 2  # a counter is a whole number of cycles
    assert tally.recovered_ns == tally.total_gap_ns - 10_000_000
    assert tally.unknown_ns == 10_000_000  # what lay before the first reading


def test_a_clock_that_steps_is_followed_within_one_percent_and_the_datasheet_is_not(open_sim: Open) -> None:
    load = (
        Segment(7300, mhz=1980, hmma=0.8),
        Segment(9100, mhz=1230, hmma=0.93),
        Segment(5900, mhz=1755, hmma=0.5),
        Segment(77, mhz=1980, hmma=0.1),
    )
    for samples_ms in (0, 100):
        gpu = h100(load, clock_samples_ms=samples_ms)
        source, clock = open_sim(gpu)
        fold = Fold(source, clock).read(10).read(1000, 60)
        tally, true = fold.tallies[UID], truth(gpu, fold, Pipe.TENSOR_HMMA, 10)
        counted = tally.active_sm_cycles[(Evidence.ACTIVITY, Pipe.TENSOR_HMMA)]
        doubt = tally.uncertainty_sm_cycles[(Evidence.ACTIVITY, Pipe.TENSOR_HMMA)]
        datasheet = (
            sum(s.hmma * s.ms for s in load) / sum(s.ms for s in load) * 1830e6 * 132 * 60
        )  # activity x datasheet peak / FLOP per cycle
        print(
            f"clock {'polled' if not samples_ms else 'sampled'}: {counted / true - 1:+.4%} of the truth, doubt from the clock "
            f"{doubt / true:.4%}; activity x datasheet peak {datasheet / true - 1:+.1%}"
        )
        assert abs(counted - true) <= 0.01 * true
        assert abs(counted - true) <= doubt + 60
        assert doubt < 0.02 * true
        assert abs(datasheet - true) > 0.05 * true
        source.close()


def test_the_doubt_of_the_clock_widens_low_and_high(open_sim: Open) -> None:
    source, clock = open_sim(h100((Segment(1500, mhz=1980, hmma=0.8), Segment(1500, mhz=600, hmma=0.8))))
    fold = Fold(source, clock).read(10).read(1000, 30)
    tally, figures = fold.tallies[UID], fold.figures(UID)
    cycles = tally.active_sm_cycles[(Evidence.ACTIVITY, Pipe.TENSOR_HMMA)]
    doubt = tally.uncertainty_sm_cycles[(Evidence.ACTIVITY, Pipe.TENSOR_HMMA)]
    assert 0.05 * cycles < doubt < 0.6 * cycles
    assert figures.low_flop <= (cycles - doubt) * 2048 * 95 // 100
    assert figures.measured_flop == cycles * 4096
