"""Running cycle counters with a wrong scale, and counters that wrap: refused, demoted or followed, and never
trusted."""

from dataclasses import replace

import pytest

from flopsd.core.model import Evidence, GapReason, Pipe
from tests.contract.conftest import Open
from tests.support.scenario import Fault, Gpu, Segment, h100
from tests.support.sim import Fold

UID = "GPU-5a4d0000-0000-4000-8000-000000000000"
SECOND = 10**9
STEADY = (Segment(7000, mhz=1755, hmma=0.5), Segment(3000, mhz=1755, hmma=0.1))
JUMPING = (Segment(410, mhz=1980, hmma=0.8), Segment(390, mhz=1100, hmma=0.6))
BF16_RATE = 4096  # FLOP per SM-cycle


def holds(fold: Fold, gpu: Gpu) -> bool:
    tally, figures = fold.tallies[UID], fold.figures(UID)
    begin_ns, end_ns = (ns - 1000 * SECOND for ns in (tally.begin_ns, tally.watermark_ns))
    true = gpu.sm_cycles(Pipe.TENSOR_HMMA, begin_ns, end_ns, 132) * BF16_RATE
    return figures.high_flop is not None and figures.low_flop <= true <= figures.high_flop


@pytest.mark.parametrize("load", [STEADY, JUMPING], ids=["steady", "jumping"])
@pytest.mark.parametrize("factor", [0.6, 0.75, 0.88, 1.13, 1.3, 66, 66 / 132, 100 / 132])
def test_a_scale_over_a_tenth_off_is_never_used(open_sim: Open, load: tuple[Segment, ...], factor: float) -> None:
    gpu = h100(load, counters="average", factor=factor)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 240)
    assert Evidence.CYCLES not in fold.tallies[UID].observed_ns
    reason = source.devices()[0].evidence_reason
    assert "SM_CYCLES_ELAPSED grew" in reason or (0.85 < factor < 1.15 and "not proven yet" in reason)
    assert holds(fold, gpu)


@pytest.mark.parametrize(("counters", "mhz"), [("average", 1755), ("sum", 1410)])
def test_a_stuck_clock_is_not_used_where_the_counters_fit_a_faster_one(open_sim: Open, counters: str, mhz: int) -> None:
    """It is reported as 345 MHz, as when the device was idle. A sum at 1410 MHz is 352 in quarters: either may be
    true."""
    load = (Segment(10_500, mhz=345, util=0), Segment(200_000, mhz=mhz, hmma=0.5))
    stuck = (Fault(5_000, 10**9, "clock_stuck"),)
    gpu = h100(load, stuck, counters=counters)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 200)
    assert "fit a faster clock than the device reports" in source.devices()[0].evidence_reason
    assert holds(fold, gpu)


def test_a_clock_that_gets_stuck_later_ends_its_use(open_sim: Open) -> None:
    load = (Segment(30_000, mhz=1100, hmma=0.5), Segment(400_000, mhz=1755, hmma=0.6))
    gpu = h100(load, (Fault(20_000, 10**9, "clock_stuck"),), counters="average")
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 300)
    assert GapReason.CONTRADICTORY in fold.reasons(UID)
    assert source.devices()[0].evidence is Evidence.ACTIVITY
    assert holds(fold, gpu)
    since = fold.tallies[UID]
    fold.read(1000, 60)
    grown = fold.tallies[UID].uncertainty_sm_cycles[Evidence.ACTIVITY, Pipe.TENSOR_HMMA]
    before = since.uncertainty_sm_cycles[Evidence.ACTIVITY, Pipe.TENSOR_HMMA]
    assert grown - before >= 132 * 1100 * 60 * 1_000_000 * 0.6


@pytest.mark.parametrize(("load", "seconds"), [(STEADY, 25), (JUMPING, 240)])
def test_a_polled_clock_proves_the_scale_in_seconds_or_minutes(
    open_sim: Open, load: tuple[Segment, ...], seconds: int
) -> None:
    gpu = h100(load, counters="average")
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 10)
    assert source.devices()[0].evidence is Evidence.ACTIVITY
    fold.read(1000, seconds - 10)
    assert source.devices()[0].evidence is Evidence.CYCLES
    assert holds(fold, gpu)


@pytest.mark.parametrize("bits", [32, 48])
def test_wrapping_counters_lose_nothing(open_sim: Open, bits: int) -> None:
    """With 32 bits they wrap every other second; with 48 bits, a few seconds after the epoch."""
    gpu = replace(h100(STEADY, counters="average"), bits=bits, before_epoch=2**48 - 60 * 10**9 if bits == 48 else 0)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 120)
    tally = fold.tallies[UID]
    assert source.devices()[0].evidence is Evidence.CYCLES
    assert tally.total_gap_ns == 10_000_000
    assert tally.observed_ns[Evidence.CYCLES] > 90 * SECOND
    assert holds(fold, gpu)
    true = gpu.sm_cycles(Pipe.TENSOR_HMMA, 10_000_000, tally.watermark_ns - 1000 * SECOND, 132)
    counted = sum(n for (_, pipe), n in tally.active_sm_cycles.items() if pipe is Pipe.TENSOR_HMMA)
    assert counted == pytest.approx(float(true), rel=1e-6)


@pytest.mark.parametrize("down_ms", [1000, 3000, 10_000])
def test_a_counter_that_may_have_wrapped_during_an_absence_does_not_cover_it(open_sim: Open, down_ms: int) -> None:
    gpu = replace(h100(STEADY, counters="average"), bits=32)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 30)
    tallies = fold.journalled()
    totals = tallies[UID].totals
    assert totals is not None
    clock.advance(down_ms * 1_000_000)
    source, _ = open_sim(again=clock, origins={UID: totals.origin})
    fold = Fold(source, clock, tallies).read(200).read(1000, 10)
    assert fold.tallies[UID].unknown_ns >= down_ms * 1_000_000
    assert fold.tallies[UID].gap_ns[GapReason.COUNTER_RESET] == SECOND
    assert holds(fold, gpu)
