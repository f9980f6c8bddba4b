"""Running cycle counters and percentages: whatever dies, nothing is lost; each lie is a gap with its own reason."""

import pytest

from flopsd.core.clock_bound import SLOT_MAX_NS, deviation
from flopsd.core.meter import max_plausible_sm_cycles
from flopsd.core.model import Evidence, GapReason, Limits, Pipe
from flopsd.core.tally import Tally
from tests.contract.conftest import Open
from tests.support.scenario import LIES, Fault, Gpu, Segment, h100
from tests.support.sim import Fold

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


def off(tally: Tally) -> int:
    """The possible error of the SM-cycles of HMMA because of the clock."""
    key = (Evidence.ACTIVITY, Pipe.TENSOR_HMMA)
    observed_ns = tally.observed_ns[Evidence.ACTIVITY]
    widest, whole = (max_plausible_sm_cycles(Limits(132, 1980), ns) for ns in (SLOT_MAX_NS, observed_ns))
    sampled = deviation(tally.square_sum[key], widest, whole) if key in tally.square_sum else 0
    return tally.uncertainty_sm_cycles.get(key, 0) + sampled


@pytest.mark.parametrize("scale", ["average", "sum", "quarter"])
def test_the_scale_is_found_and_named(open_sim: Open, scale: str) -> None:
    gpu = h100(LOAD, counters=scale)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 40)
    device = source.devices()[0]
    assert (device.evidence, device.evidence_reason) == (Evidence.CYCLES, "")
    factor = {"average": "132", "sum": "1", "quarter": "1/4"}[scale]
    totals = fold.tallies[UID].totals
    assert totals is not None
    assert totals.origin == f"GPM of driver 595.91.07 pipes x{factor}, elapsed x{factor}"
    fold.read(777, 60)
    for pipe in PIPES:
        counted = sum(n for (_, p), n in fold.tallies[UID].active_sm_cycles.items() if p is pipe)
        # Before the scale was proven, percentages counted, and their clock was polled.
        assert counted == pytest.approx(truth(gpu, fold, pipe, 10), rel=0.05)
    assert fold.tallies[UID].observed_ns[Evidence.CYCLES] > fold.tallies[UID].observed_ns[Evidence.ACTIVITY]
    assert fold.reasons(UID) == [GapReason.STARTING, *[None] * 100]


def test_an_idle_device_proves_nothing_and_loses_nothing(open_sim: Open) -> None:
    gpu = h100((Segment(90_000, mhz=345), Segment(90_000, mhz=1755, hmma=0.5)), counters="average")
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(990).read(1000, 88)
    assert source.devices()[0].evidence is Evidence.ACTIVITY
    assert "not proven yet" in source.devices()[0].evidence_reason
    fold.read(1000, 5)
    assert source.devices()[0].evidence is Evidence.CYCLES
    counted = sum(n for (_, pipe), n in fold.tallies[UID].active_sm_cycles.items() if pipe is Pipe.TENSOR_HMMA)
    assert counted == pytest.approx(truth(gpu, fold, Pipe.TENSOR_HMMA, 10), rel=0.05)


def test_ten_deaths_lose_nothing(open_sim: Open) -> None:
    """Each new daemon has only the journal: it continues from the counter values there, whatever it missed."""
    gpu = h100(LOAD, counters="average")
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 40)
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
    assert tally.total_recovered_ns == tally.total_gap_ns - 10_000_000
    assert tally.unknown_ns == 10_000_000  # the time before the first reading


def test_a_stepping_clock_is_followed_within_one_percent_unlike_the_datasheet(open_sim: Open) -> None:
    load = (
        Segment(7300, mhz=1980, hmma=0.8),
        Segment(9100, mhz=1230, hmma=0.93),
        Segment(5900, mhz=1755, hmma=0.5),
        Segment(77, mhz=1980, hmma=0.1),
    )
    gpu = h100(load)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 60)
    tally, true = fold.tallies[UID], truth(gpu, fold, Pipe.TENSOR_HMMA, 10)
    counted = tally.active_sm_cycles[(Evidence.ACTIVITY, Pipe.TENSOR_HMMA)]
    doubt = off(tally)
    datasheet = (
        sum(s.hmma * s.ms for s in load) / sum(s.ms for s in load) * 1830e6 * 132 * 60
    )  # activity x datasheet peak / FLOP per cycle
    print(
        f"clock: {counted / true - 1:+.4%} of the truth, doubt from it {doubt / true:.4%}; "
        f"activity x datasheet peak {datasheet / true - 1:+.1%}"
    )
    assert abs(counted - true) <= 0.01 * true
    assert abs(counted - true) <= doubt + 60
    assert doubt < 0.06 * true
    assert abs(datasheet - true) > 0.05 * true


HIT, OTHER = (f"GPU-5a4d0000-0000-4000-8000-{n:012d}" for n in range(2))
# When these faults end, the simulated counters jump to their true values: another lie, which is found as well.
AFTERWARDS = {
    "stalled": {GapReason.OUT_OF_RANGE},
    "fell": {GapReason.CONTRADICTORY},
    "contradict": {GapReason.COUNTER_RESET},
}
BUSY = (Segment(1000, hmma=0.6, fp32=0.1, util=100, watts=650),)


@pytest.mark.parametrize(("kind", "reason"), LIES)
def test_each_lie_is_a_gap_with_its_reason_within_two_ticks(open_sim: Open, kind: str, reason: GapReason) -> None:
    hit, other = h100(BUSY, (Fault(26_500, 29_500, kind),), counters="average"), h100(BUSY, counters="average")
    source, clock = open_sim(hit, other)
    fold = Fold(source, clock).read(10).read(1000, 34)
    reasons = fold.reasons(HIT)
    assert reasons[:27] == [GapReason.STARTING, *[None] * 26]
    assert reason in reasons[27:29]
    assert set(reasons[27:]) <= {reason, None, *AFTERWARDS.get(kind, ())}
    assert reasons[-1] is None  # it recovers by itself
    if kind in ("stalled", "fell", "zero"):
        assert fold.tallies[HIT].total_recovered_ns == 0  # never claimed
    assert fold.reasons(OTHER) == [GapReason.STARTING, *[None] * 34]
    counted = sum(n for (_, pipe), n in fold.tallies[OTHER].active_sm_cycles.items() if pipe is Pipe.TENSOR_HMMA)
    assert counted == pytest.approx(0.6 * 34e9 * 1.755 * 132, rel=1e-6)
    measured, high = fold.figures(HIT).measured_flop, fold.figures(HIT).high_flop
    assert measured is not None
    assert high is not None
    true = 34.0e9 * 1.755 * 132 * (0.6 * 4096 + 0.1 * 256)
    assert measured <= true * 1.3 if kind == "contradict" else measured <= true * 1.0001
    assert high >= true


@pytest.mark.parametrize("kind", ["clock_zero", "clock_garbage"])
def test_an_impossible_clock_makes_a_gap_only_where_the_clock_is_needed(open_sim: Open, kind: str) -> None:
    fault = (Fault(26_500, 29_500, kind),)
    idle = h100((Segment(1000, util=0, watts=80),), fault)
    source, clock = open_sim(h100(BUSY, fault), h100(BUSY, fault, counters="average"), idle)
    fold = Fold(source, clock).read(10).read(1000, 34)
    out = [GapReason.OUT_OF_RANGE] * 4  # three reads without a clock, and one that began without
    assert fold.reasons(HIT) == [GapReason.STARTING, *[None] * 26, *out, *[None] * 4]
    assert fold.reasons(OTHER) == [GapReason.STARTING, *[None] * 34]  # counters of cycles need none
    assert fold.reasons(source.devices()[2].uid) == [GapReason.STARTING, *[None] * 34]  # nor does an idle device
    counted = fold.tallies[HIT].active_sm_cycles[(Evidence.ACTIVITY, Pipe.TENSOR_HMMA)]
    assert counted == pytest.approx(0.6 * 30e9 * 1.755 * 132, rel=1e-6)
    assert fold.figures(source.devices()[2].uid).measured_flop == 0


def test_streaming_is_switched_on_again(open_sim: Open) -> None:
    """The fault would last for an hour; the meter ends it at the first look, and the counters close the gap."""
    source, clock = open_sim(h100(BUSY, (Fault(26_500, 3_600_000, "counters_disabled"),), counters="average"))
    fold = Fold(source, clock).read(10).read(1000, 34)
    assert fold.reasons(HIT).count(GapReason.COUNTERS_DISABLED) == 2  # the read that found it off, and the new baseline
    assert fold.tallies[HIT].total_recovered_ns == 2 * 10**9
    assert fold.tallies[HIT].active_sm_cycles[(Evidence.CYCLES, Pipe.TENSOR_HMMA)] == pytest.approx(
        0.6 * fold.tallies[HIT].observed_ns[Evidence.CYCLES] * 1.755 * 132 + 0.6 * 2e9 * 1.755 * 132, rel=1e-6
    )


def test_a_stated_maximum_far_too_low_hides_no_clock(open_sim: Open) -> None:
    gpu = h100(LOAD, max_mhz=600)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 20)
    assert fold.reasons(UID) == [GapReason.STARTING, *[None] * 20]
    figures = fold.figures(UID)
    assert figures.high_flop is not None
    assert 0 < figures.low_flop < truth(gpu, fold, Pipe.TENSOR_HMMA, 0) * 4096 < figures.high_flop


def test_a_clock_above_its_maximum_becomes_the_maximum_after_three_reads_in_a_row(open_sim: Open) -> None:
    source, clock = open_sim(h100((Segment(1500, mhz=2100, hmma=0.5), Segment(60_000, mhz=1980))))
    fold = Fold(source, clock).read(10).read(1000, 20)
    assert source.devices()[0].sm_clock_max_mhz == 1980
    source, clock = open_sim(h100((Segment(1000, mhz=2100, hmma=0.5),)))
    fold = Fold(source, clock).read(10).read(1000, 3)
    assert source.devices()[0].sm_clock_max_mhz == 2100
    assert fold.reasons(UID)[-1] is None
