"""The cycle counters 1084-1096 of DCGM 4.6, whose scale no source states."""

from collections.abc import Callable, Mapping

import pytest

from flopsd.core.clock_integral import Cycles
from flopsd.core.meter import advance
from flopsd.core.model import Active, DeviceUid, Evidence, Gap, GapReason, Growth, Pipe, Reading
from flopsd.core.tally import Tally
from flopsd.errors import SourceError
from flopsd.sources.dcgm.source import DcgmSource
from flopsd.sources.nvml.sm_clock import SmClocks
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.exporter import (
    A100_UID,
    CLOCK,
    ELAPSED,
    H100,
    H100_NAME,
    MMA,
    TENSOR,
    UTIL,
    Bench,
    Exporter,
    device_of,
    gpu,
)
from tests.support.strategies import table


class Hopper:
    """Counters of an H100 at a constant load, in one of the possible scales."""

    def __init__(self, per_cycle: int, mma_per_cycle: int | None = None) -> None:
        self.per_cycle, self.mma_per_cycle = per_cycle, mma_per_cycle or per_cycle

    def page(self, second: int, ratio: float = 0.5, **more: object) -> dict[str, object]:
        cycles = 10**12 + 1500 * 1_000_000 * second
        kinds = {"HMMA": 0.9, "IMMA": 0.02, "DMMA": 0.0, "DFMA": 0.0, "FP64": 0.0, "FP32": 0.25, "FP16": 0.0}
        return {
            TENSOR: ratio, CLOCK: 1500, UTIL: 100, ELAPSED: cycles * self.per_cycle,
            MMA: cycles * self.mma_per_cycle // 2,
            **{f"DCGM_FI_PROF_{k}_CYCLES_ACTIVE_TOTAL": int(cycles * self.per_cycle * share / 2)
               for k, share in kinds.items()}, **more,
        }  # fmt: skip


def bench_of(
    exporter: Exporter, hopper: Hopper, interval_s: float = 30, clocks: Callable[[int], SmClocks] | None = None
) -> Bench:
    exporter.shows(gpu(hopper.page(0), model=H100_NAME))
    clock = FakeClock()
    bench = Bench(exporter, interval_s, clock, **({} if clocks is None else {"clocks": clocks}))
    bench.limits = H100
    return bench


@pytest.mark.parametrize(("per_cycle", "named"), [(1, "132"), (132, "1"), (528, "1/4")])
def test_cycle_counters_count_once_their_scale_is_settled(exporter: Exporter, per_cycle: int, named: str) -> None:
    hopper = Hopper(per_cycle)
    bench = bench_of(exporter, hopper)
    works: list[object] = []
    for second in (30, 60, 90, 120):
        works += [r.work for r in bench.collects(hopper.page(second), model=H100_NAME) if not isinstance(r.work, Gap)]
        if second == 60:
            assert "not yet determined the scale" in device_of(bench)[1]
    works += [reading.work for reading in bench.read()]
    assert [type(work) for work in works] == [Active, Growth, Growth]
    assert device_of(bench) == (Evidence.CYCLES, "", "")
    assert bench.tally.totals is not None
    origin = f"DCGM 1084-1096 of driver 595.91.07 pipes x{named}, elapsed x{named}"
    assert bench.tally.totals.origin == origin
    assert bench.tally.active_sm_cycles[(Evidence.CYCLES, Pipe.TENSOR_HMMA)] == pytest.approx(
        0.45 * 1500e6 * 132 * 60, rel=1e-9
    )
    assert bench.tally.active_sm_cycles[(Evidence.CYCLES, Pipe.TENSOR)] == pytest.approx(
        0.04 * 1500e6 * 132 * 60, rel=1e-9
    )
    assert bench.tally.unread_ns.keys() == {
        Pipe.FP64,
        Pipe.FP32,
        Pipe.FP16,
    }  # from the Active reading: it has no ratios for these


def test_a_late_collection_costs_counters_nothing_and_they_may_disappear(exporter: Exporter) -> None:
    hopper = Hopper(132)
    bench = bench_of(exporter, hopper)
    for second in (30, 60, 90, 120):
        bench.collects(hopper.page(second), model=H100_NAME)
    bench.read()
    late = bench.collects(hopper.page(171), after_s=50, model=H100_NAME) + bench.read()
    seconds = [(type(one.work), (one.end_ns - one.begin_ns) // NS_PER_S) for one in late]
    assert seconds[-1] == (Growth, 51)
    exporter.shows(gpu({TENSOR: 0.5, CLOCK: 1500, UTIL: 100}, model=H100_NAME))
    bench.clock.advance(30 * NS_PER_S)
    assert bench.source.read().readings == ()
    bench.clock.advance(NS_PER_S)
    (reading,) = bench.source.read().readings
    assert isinstance(reading.work, Active)
    assert reading.counters == {}
    assert device_of(bench)[:2] == (Evidence.ACTIVITY, "no cycle counters on the page")


@pytest.mark.parametrize("times", [2, 7])
def test_counters_that_do_not_fit_the_tensor_ratio_are_not_used(exporter: Exporter, times: int) -> None:
    hopper = Hopper(per_cycle=1, mma_per_cycle=times)
    bench = bench_of(exporter, hopper)
    for second in (30, 60, 90):
        bench.collects(hopper.page(second), model=H100_NAME)
    bench.read()
    assert set(bench.tally.observed_ns) == {Evidence.ACTIVITY}
    assert "not yet determined the scale" in device_of(bench)[1]


def test_no_scale_is_settled_over_time_that_is_partly_a_gap(exporter: Exporter) -> None:
    """The growth of the counters over 132 s is not a "sum over SMs" for the one second that the reading covers."""
    hopper = Hopper(per_cycle=1)
    bench = bench_of(exporter, hopper, interval_s=60)
    bench.collects(hopper.page(60), after_s=60, model=H100_NAME)
    bench.collects(hopper.page(192), after_s=132, model=H100_NAME)
    (reading,) = bench.read()
    assert isinstance(reading.work, Active)
    assert reading.totals is None
    assert bench.tally.gap_ns[GapReason.STALE] == 131 * NS_PER_S


def test_a_scale_settled_before_closes_the_gap_of_a_restart(exporter: Exporter) -> None:
    hopper = Hopper(132)
    bench = bench_of(exporter, hopper)
    for second in (30, 60, 90):
        bench.collects(hopper.page(second), model=H100_NAME)
    bench.read()
    tally = bench.tally
    assert tally.totals is not None
    bench.clock.advance(299 * NS_PER_S)  # the daemon was killed, and is back
    bench.source = DcgmSource(bench.clock, table(), exporter.url, origins={A100_UID: tally.totals.origin})
    begin_ns, now_ns = tally.watermark_ns, bench.clock.boottime_ns()
    bench.tally = Tally(begin_ns, begin_ns, totals=tally.totals, totals_ns=tally.totals_ns)
    bench.tally = advance(bench.tally, Reading(A100_UID, begin_ns, now_ns, Gap(GapReason.DAEMON_DOWN)), H100)
    bench.collects(hopper.page(90 + 330), model=H100_NAME)
    bench.read()
    assert bench.tally.unknown_ns == 0
    assert bench.tally.total_recovered_ns == 329 * NS_PER_S
    assert bench.tally.active_sm_cycles[(Evidence.CYCLES, Pipe.FP32)] == pytest.approx(0.125 * 1500e6 * 132 * 330)


def test_stopped_counters_are_a_gap(exporter: Exporter) -> None:
    hopper = Hopper(132)
    bench = bench_of(exporter, hopper)
    for second in (30, 60, 90, 90):
        bench.collects(hopper.page(second), model=H100_NAME)
    (reading,) = bench.read()
    assert reading.work == Gap(GapReason.COUNTER_STALLED)
    assert device_of(bench)[:2] == (Evidence.GAP, "the cycle counters 1084-1096, or some of them, stand still")
    assert bench.tally.total_recovered_ns == 0


@pytest.mark.parametrize(("ratio", "is_gap"), [(0.009, False), (0.01, True)])
def test_a_counter_that_stands_still_while_its_pipe_is_active_is_a_gap(
    exporter: Exporter, ratio: float, is_gap: bool
) -> None:
    hopper = Hopper(132)
    bench = bench_of(exporter, hopper)
    for second in (30, 60, 90):
        bench.collects(hopper.page(second), model=H100_NAME)
    bench.read()
    bench.collects(hopper.page(120, ratio) | {MMA: hopper.page(90)[MMA]}, model=H100_NAME)
    (reading,) = bench.read()
    assert (reading.work == Gap(GapReason.COUNTER_STALLED)) is is_gap
    assert device_of(bench)[0] is (Evidence.GAP if is_gap else Evidence.CYCLES)


def test_pages_of_older_collections_count_nothing_twice(exporter: Exporter) -> None:
    """Two exporters behind one address, of which one lags by a collection. The page of second 120 is shown again."""
    hopper = Hopper(132)
    bench = bench_of(exporter, hopper)
    works: list[object] = []
    for second in (30, 60, 90, 120, 150, 120, 180, 210, 240):
        works += [one.work for one in bench.collects(hopper.page(second), model=H100_NAME)]
    works += [one.work for one in bench.read()]
    old = [Gap(GapReason.COUNTER_RESET)] * 2
    assert works[-6:] == [Growth(), Growth(), *old, Growth(), Growth()]
    assert bench.tally.active_sm_cycles[(Evidence.CYCLES, Pipe.TENSOR_HMMA)] == pytest.approx(
        0.45 * 1500e6 * 132 * (150 - 60 + 240 - 180), rel=1e-9
    )


@pytest.mark.parametrize("has_counters", [True, False])
def test_kinds_of_tensor_work_that_are_not_shown_any_more_are_a_gap_until_the_exporter_restarts(
    exporter: Exporter, has_counters: bool
) -> None:
    """FP64 work would count as of the declared format."""
    hopper = Hopper(132)
    split = {"DCGM_FI_PROF_PIPE_TENSOR_DFMA_ACTIVE": 0.3}
    dfma = "DCGM_FI_PROF_DFMA_CYCLES_ACTIVE_TOTAL"

    def page(second: int, *, is_split: bool) -> dict[str, object]:
        shown = hopper.page(second, 0.5 + second / 10**6) | split
        kept = shown if has_counters else {n: v for n, v in shown.items() if not n.endswith("_TOTAL")}
        return {name: value for name, value in kept.items() if is_split or name not in (*split, dfma)}

    bench = bench_of(exporter, hopper)
    works: list[object] = []
    for second in (30, 60, 90, 120, 150, 180):
        works += [one.work for one in bench.collects(page(second, is_split=second < 120), model=H100_NAME)]
    assert works[-2:] == [Gap(GapReason.NOT_SUPPORTED)] * 2
    assert "showed kinds of tensor activity apart" in device_of(bench)[1]
    exporter.status = 503
    bench.clock.advance(30 * NS_PER_S)
    with pytest.raises(SourceError):
        bench.source.read()
    down = Reading(A100_UID, bench.tally.watermark_ns, bench.clock.boottime_ns(), Gap(GapReason.SOURCE_DOWN))
    bench.tally = advance(bench.tally, down, H100)
    exporter.status = 200
    for second in (240, 270, 300, 330):
        works += [one.work for one in bench.collects(page(second, is_split=False), model=H100_NAME)]
    assert isinstance(works[-1], Growth if has_counters else Active), "it was perhaps given other fields"


@pytest.mark.parametrize(("since", "noticed"), [(120, 240), (660, 750), (780, 960)])
def test_counters_that_diverge_from_the_clock_later_are_no_longer_used(
    exporter: Exporter, since: int, noticed: int
) -> None:
    """They continue as at 1500 MHz while the exporter's clock is at 1950: judged over one minute at least, ten at
    most."""
    hopper = Hopper(1)
    bench = bench_of(exporter, hopper)
    works: list[tuple[int, object]] = []
    for second in range(30, noticed + 91, 30):
        later = {CLOCK: 1950} if second > since else {}
        works += [(second, one.work) for one in bench.collects(hopper.page(second, **later), model=H100_NAME)]
    counted = [second for second, work in works if isinstance(work, Growth)]
    assert counted[-1] < noticed == next(second for second, work in works if work == Gap(GapReason.CONTRADICTORY))
    assert isinstance(works[-1][1], Active)
    assert device_of(bench)[0] is Evidence.ACTIVITY


def test_a_stuck_driver_clock_is_not_used_where_the_counters_fit_a_faster_one(exporter: Exporter) -> None:
    """The counters continue as at 1500 MHz while NVML reports 345."""

    closed: list[bool] = []

    class Stuck(SmClocks):
        def __init__(self, keep_ns: int) -> None:
            assert keep_ns == 120 * NS_PER_S
            super().__init__(None, FakeClock(), table(), keep_ns)
            closed.append(False)

        def read(self, max_mhz: Mapping[DeviceUid, int]) -> None:
            pass

        def poll(self, until_ns: int) -> None:
            pass

        def close(self) -> None:
            closed[-1] = True

        def cycles(self, uid: DeviceUid, begin_ns: int, end_ns: int) -> Cycles:
            assert uid == A100_UID
            return Cycles(345 * (end_ns - begin_ns) // 1000, 0)

    bench = bench_of(exporter, Hopper(132), clocks=Stuck)
    for second in range(30, 331, 30):
        bench.collects(Hopper(132).page(second), model=H100_NAME)
    bench.source.close()
    assert closed == [True]
    assert Evidence.CYCLES not in bench.tally.observed_ns
    key = Evidence.ACTIVITY, Pipe.TENSOR
    counted = bench.tally.active_sm_cycles[key] + bench.tally.uncertainty_sm_cycles[key]
    assert counted >= 132 * 1500 * 270 * 1_000_000 // 2


def test_counters_of_another_driver_are_proven_again(exporter: Exporter) -> None:
    hopper = Hopper(132)
    bench = bench_of(exporter, hopper)
    for second in (30, 60, 90, 120):
        bench.collects(hopper.page(second), model=H100_NAME)
    assert device_of(bench)[0] is Evidence.CYCLES
    other, since_ns = Hopper(1), bench.tally.watermark_ns
    exporter.shows(gpu(other.page(150), model=H100_NAME).replace("595.91.07", "605.12"))
    bench.read(29)
    assert device_of(bench)[0] is Evidence.ACTIVITY
    exporter.shows(gpu(other.page(180), model=H100_NAME).replace("595.91.07", "605.12"))
    assert [type(one.work) for one in bench.read(30) + bench.read()] == [Gap]
    assert bench.tally.watermark_ns > since_ns
    assert {one.driver for one in bench.source.devices()} == {"605.12"}
