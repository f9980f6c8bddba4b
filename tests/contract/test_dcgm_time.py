"""The time that a collection of dcgm-exporter covers, and which time is a gap: on a clock stepped by hand."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from flopsd.core.clock_integral import Cycles
from flopsd.core.model import Active, Busy, DeviceUid, Evidence, Gap, GapReason, Pipe, Reading, Sweep
from flopsd.core.tally import Tally
from flopsd.errors import SourceError
from flopsd.sources.nvml.sm_clock import SmClocks, open_clocks
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.exporter import (
    A100_UID,
    BUSY,
    CLOCK,
    ENERGY,
    TENSOR,
    UTIL,
    Bench,
    Exporter,
    device_of,
    exporting,
    gpu,
)
from tests.support.scenario import Fault, Scenario, Segment, a100
from tests.support.sim import SharedClock, simulated
from tests.support.strategies import table


def test_a_constant_load_is_counted_exactly(exporter: Exporter) -> None:
    """Golden: 0.93 x 108 SMs x 1230 MHz x 2048 FLOP x 90 s."""
    bench = Bench(exporter)
    for _ in range(4):
        bench.collects(BUSY)
    bench.read()
    begin_to_first_s, counted_s = 30, 90
    assert bench.tally.gap_ns == {GapReason.STARTING: begin_to_first_s * NS_PER_S}
    assert bench.tally.observed_ns == {Evidence.ACTIVITY: counted_s * NS_PER_S}
    assert bench.tally.active_sm_cycles == {(Evidence.ACTIVITY, Pipe.TENSOR): 93 * 108 * 12_300_000 * counted_s}
    clock = bench.tally.active_sm_cycles[
        (Evidence.ACTIVITY, Pipe.TENSOR)
    ]  # between two values the clock may have been at any
    moments = 93 * 108 * 14_100_000  # a second that may or may not belong to the last collection
    assert bench.tally.uncertainty_sm_cycles == {(Evidence.ACTIVITY, Pipe.TENSOR): clock + moments}
    assert bench.figures().measured_flop == 93 * 108 * 12_300_000 * 2048 * counted_s
    assert bench.tally.unread_ns == dict.fromkeys((Pipe.FP64, Pipe.FP32, Pipe.FP16), counted_s * NS_PER_S)
    assert bench.tally.energy_mj == 27_000_000


@pytest.mark.parametrize("has_energy", [True, False])
def test_equal_collections_may_look_like_one_without_a_counter(exporter: Exporter, has_energy: bool) -> None:
    """A GPU idle for 25 s and busy for 5 s, and an exporter that collects every 5 s instead of every 30 s."""
    bench = Bench(exporter, clocks=Steady)
    left = {} if has_energy else {ENERGY: None}

    def collects(tensor: float, after_s: int) -> list[Reading]:
        bench.energy += 9_000_000
        values = {**BUSY, TENSOR: tensor, ENERGY: bench.energy, **left}
        found = [reading for _ in range(after_s - 1) for reading in bench.read()]
        exporter.shows(gpu({name: value for name, value in values.items() if value is not None}))
        return found + bench.read()

    for tensor, after_s in ((0.5, 30), (0, 30), (0.93, 30)):
        collects(tensor, after_s)
    (reading,) = bench.read()
    assert isinstance(reading.work, Active)
    low = reading.work.sm_cycles[Pipe.TENSOR] - reading.work.uncertainty_sm_cycles[Pipe.TENSOR]
    assert (low > 0.93 * 5 * 108 * 1000e6) is has_energy


def test_nvmls_clock_bounds_the_exporters(standin: Path, tmp_path: Path) -> None:
    """The exporter shows the clock twice a minute; according to the driver it was at 1230 MHz for 21 of the 30 s."""
    clock = SharedClock(tmp_path / "clock")
    steps = (Segment(21_000, mhz=1230), Segment(9_000, mhz=1410))
    with simulated(standin, tmp_path, Scenario((a100(steps),)), clock), exporting(gpu({**BUSY, CLOCK: 1230})) as other:
        bench = Bench(other, clock=clock, clocks=partial(open_clocks, clock, table()))
        bench.collects({**BUSY, CLOCK: 1230})
        bench.collects({**BUSY, CLOCK: 1410})
        (reading,) = bench.read()
        bench.source.close()
    assert isinstance(reading.work, Active)
    doubt = reading.work.uncertainty_sm_cycles[Pipe.TENSOR]
    doubt -= round(0.93 * 1410e6 * 108)  # whether the last second belongs to the collection
    assert doubt <= 0.93 * 90e6 * 3.1 * 108  # reads that are slightly apart
    assert Pipe.TENSOR in reading.work.square_sum
    assert abs(reading.work.sm_cycles[Pipe.TENSOR] / (0.93e6 * 108) - (21 * 1230 + 9 * 1410)) < 400


@pytest.mark.parametrize("kind", ["clock_zero", "clock_garbage"])
def test_impossible_clocks_of_nvml_are_ignored(standin: Path, tmp_path: Path, kind: str) -> None:
    clock = SharedClock(tmp_path / "clock")
    busy = a100((Segment(1000, mhz=1230),), (Fault(5000, 25_000, kind),))
    with simulated(standin, tmp_path, Scenario((busy,)), clock), exporting(gpu(BUSY)) as other:
        bench = Bench(other, clock=clock, clocks=partial(open_clocks, clock, table()))
        bench.collects(BUSY)
        bench.collects(BUSY)
        (reading,) = bench.read()
        bench.source.close()
    assert isinstance(reading.work, Active)
    assert reading.work.sm_cycles[Pipe.TENSOR] == round(0.93 * 1230e6 * 30 * 108)


class Steady(SmClocks):
    """NVML's clocks, constant at 1000 MHz."""

    def __init__(self, keep_ns: int) -> None:
        super().__init__(None, FakeClock(), table(), keep_ns)

    def read(self, max_mhz: Mapping[DeviceUid, int]) -> None:
        assert max_mhz == {A100_UID: 1410}

    def cycles(self, _uid: DeviceUid, begin_ns: int, end_ns: int) -> Cycles:
        return Cycles(end_ns - begin_ns, 0)


@pytest.mark.parametrize(
    ("clocks", "exports", "evidence"),
    [
        (None, False, Evidence.UTILIZATION), (None, True, Evidence.ACTIVITY),
        (Steady, False, Evidence.ACTIVITY), (Steady, True, Evidence.ACTIVITY),
    ],
)  # fmt: skip
def test_the_clock_is_the_exporters_or_nvmls_from_the_first_page_on(
    exporter: Exporter, clocks: Callable[[int], SmClocks] | None, exports: bool, evidence: Evidence
) -> None:
    values = {TENSOR: 0.5, UTIL: 50, **({CLOCK: 1230} if exports else {})}
    exporter.shows(gpu(values))
    bench = Bench(exporter, clocks=clocks or (lambda _: None))
    for _ in range(3):
        assert device_of(bench)[0] is evidence
        bench.collects(values)
    (reading,) = bench.read()
    assert device_of(bench)[0] is evidence
    assert isinstance(reading.work, Busy if evidence is Evidence.UTILIZATION else Active)


def test_a_page_read_during_its_renewal_is_one_collection(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    for _ in range(29):
        bench.read()
    exporter.shows(gpu({**BUSY, ENERGY: bench.energy + 1}))  # the activity is still that of the last collection
    assert bench.read() == []
    exporter.shows(gpu({**BUSY, TENSOR: 0.25, ENERGY: bench.energy + 1}))
    assert bench.read() == []
    (reading,) = bench.read()
    assert reading.end_ns - reading.begin_ns == 30 * NS_PER_S
    assert isinstance(reading.work, Active)
    assert reading.work.sm_cycles[Pipe.TENSOR] == round(0.25 * 1230e6 * 30 * 108)


def test_an_exporter_that_collects_faster_than_configured_is_followed(exporter: Exporter) -> None:
    bench = Bench(exporter)  # configured for 30 s, it collects every two
    for _ in range(10):
        bench.collects(BUSY, after_s=2)
    assert bench.tally.observed_ns == {Evidence.ACTIVITY: 16 * NS_PER_S}


def test_averages_renewed_at_another_time_than_the_rest_are_followed(exporter: Exporter) -> None:
    """DCGM samples its profiling fields ten seconds after the others."""
    bench = Bench(exporter, clocks=Steady)
    ratio = 0.5
    for at in range(12):
        bench.energy += at % 2
        ratio += 0.01 * (1 - at % 2)
        exporter.shows(gpu({**BUSY, TENSOR: ratio, ENERGY: bench.energy}))
        for _ in range(20 if at % 2 == 0 else 10):
            bench.read()
    assert bench.tally.gap_ns.keys() == {GapReason.STARTING}


def test_an_exporter_that_collects_before_each_read_is_a_gap_and_named(exporter: Exporter) -> None:
    """Configured for 30 s, it collects every second or faster: the number of collections that no read saw is
    unknown."""
    bench = Bench(exporter)
    for _ in range(20):
        bench.collects(BUSY, after_s=1)
    assert bench.tally.observed_ns == {}
    evidence, reason, fix = device_of(bench)
    assert (evidence, "more often than dcgm_interval_seconds states" in reason) == (Evidence.GAP, True)
    assert "DCGM_EXPORTER_INTERVAL" in fix


def test_a_collection_covers_its_interval_however_long_reads_paused(exporter: Exporter) -> None:
    """The daemon was suspended for ten minutes, and the GPU has been idle for one."""
    bench = Bench(exporter, clocks=Steady)
    bench.collects(BUSY)
    bench.collects(BUSY)
    bench.collects({**BUSY, TENSOR: 0.0})
    bench.clock.advance(600 * NS_PER_S)
    bench.collects({**BUSY, TENSOR: 0.0}, after_s=1)
    bench.read()
    assert bench.tally.observed_ns == {Evidence.ACTIVITY: 90 * NS_PER_S}


def test_reads_rarer_than_collections_cover_part_of_the_time(exporter: Exporter) -> None:
    bench = Bench(exporter, interval_s=1, clocks=Steady)
    for _ in range(12):
        bench.energy += 1
        exporter.shows(gpu({**BUSY, ENERGY: bench.energy}))
        bench.read(5)
    assert bench.tally.observed_ns == {Evidence.ACTIVITY: 10 * NS_PER_S}


def test_an_exporter_that_collects_slower_than_configured_is_a_gap_and_named(exporter: Exporter) -> None:
    bench = Bench(exporter, interval_s=5)  # it collects every thirty
    bench.collects(BUSY)
    bench.collects(BUSY)
    evidence, reason, fix = device_of(bench)
    assert (evidence, reason) == (Evidence.GAP, "the exporter has not renewed its values for two collection intervals")
    assert "DCGM_EXPORTER_INTERVAL" in fix
    bench.read()
    # The average of values that were stale for 29 s has an unknown length, so only the last second is counted with it.
    # Its clock was read 30 s ago, so it bounds and does not measure.
    assert bench.tally.observed_ns == {Evidence.UTILIZATION: 1 * NS_PER_S}


@pytest.mark.parametrize(("after_s", "gap_s"), [(31, None), (32, 3), (45, 16), (54, 25)])
def test_a_late_collection_leaves_a_gap_before_it(exporter: Exporter, after_s: int, gap_s: int | None) -> None:
    """A collection may be late by a 20th of its interval, and by the second between two reads."""
    bench = Bench(exporter)
    bench.collects(BUSY)
    bench.read()
    late = bench.collects(BUSY, after_s=after_s) + bench.read()
    found = [(reading.work, (reading.end_ns - reading.begin_ns) // NS_PER_S) for reading in late]
    *gaps, (work, seconds) = found
    assert gaps == ([] if gap_s is None else [(Gap(GapReason.STALE), gap_s)])
    assert isinstance(work, Active)
    assert seconds == after_s + 1 - (gap_s or 0)


@pytest.mark.parametrize(("apart_s", "seconds"), [(14, [60]), (15, [60, 15])])
def test_values_that_change_half_an_interval_later_are_another_collection(
    exporter: Exporter, apart_s: int, seconds: list[int]
) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    bench.read(30)
    exporter.shows(gpu({**BUSY, ENERGY: bench.energy + 1}))
    assert bench.read(30) == []
    exporter.shows(gpu({**BUSY, TENSOR: 0.25, ENERGY: bench.energy + 1}))
    found = bench.read(apart_s) + bench.read() + bench.read()
    assert [(one.end_ns - one.begin_ns) // NS_PER_S for one in found] == seconds


def test_values_that_are_not_renewed_are_stale_until_they_are(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    bench.collects(BUSY)
    bench.read()
    found = [(second, reading.work) for second in range(2, 70) for reading in bench.read()]
    assert found == [(second, Gap(GapReason.STALE)) for second in range(62, 70)]
    assert device_of(bench)[0] is Evidence.GAP
    bench.collects(BUSY, after_s=1)
    bench.read()
    assert device_of(bench)[0] is Evidence.ACTIVITY


def test_a_failed_scrape_between_two_collections_loses_nothing(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    bench.collects(BUSY)
    exporter.status = 503
    for _ in range(5):
        bench.read()
    exporter.status = 200
    for _ in range(24):
        bench.read()
    bench.collects(BUSY, after_s=1)
    bench.read()
    assert bench.tally.observed_ns == {Evidence.ACTIVITY: 60 * NS_PER_S}


@pytest.mark.parametrize(("interval_s", "forgiven_s"), [(30, 5), (4, 2), (1, 0.5)])
def test_failed_scrapes_are_tolerated_for_five_seconds_or_half_an_interval(
    exporter: Exporter, interval_s: float, forgiven_s: float
) -> None:
    bench = Bench(exporter, interval_s)
    patience_ns = round((2 * interval_s + 2) * NS_PER_S)
    exporter.status = 503
    bench.clock.advance(round(forgiven_s * NS_PER_S))
    assert bench.source.read() == Sweep((), {}, patience_ns)
    bench.clock.advance(1)
    for _ in range(2):
        with pytest.raises(SourceError):
            bench.source.read()
    exporter.status = 200
    assert bench.source.read().patience_ns == patience_ns
    exporter.status = 503
    assert bench.source.read() == Sweep((), {}, patience_ns), "it has answered meanwhile"


def test_an_exporter_that_ends_is_a_fault_and_counts_again_when_it_is_back(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    bench.collects(BUSY)
    exporter.status = 503
    bench.read(5)
    with pytest.raises(SourceError, match="answers 503") as caught:
        bench.read()
    assert caught.value.reason == "source_down", "not the driver's fault"
    exporter.status = 200
    bench.tally = Tally(
        bench.clock.boottime_ns(), bench.clock.boottime_ns()
    )  # the daemon has counted this time as a gap
    bench.collects(BUSY)
    bench.collects(BUSY)
    bench.read()
    assert bench.tally.gap_ns == {GapReason.SOURCE_DOWN: 30 * NS_PER_S}
    assert bench.tally.observed_ns == {Evidence.ACTIVITY: 30 * NS_PER_S}


def test_an_exporter_that_is_gone_is_a_fault_that_names_the_cause() -> None:
    with exporting(gpu(BUSY)) as exporter:
        bench = Bench(exporter)
    with pytest.raises(SourceError, match="no answer from http.*Connection refused") as caught:
        bench.read(6)
    assert "check that it runs" in caught.value.hint


def test_an_exporter_that_no_longer_shows_a_gpu_is_a_fault(exporter: Exporter) -> None:
    bench = Bench(exporter)
    exporter.shows("# nothing: an unknown field in its CSV\n")
    with pytest.raises(SourceError, match="shows no GPU") as caught:
        bench.read(6)
    assert "CSV" in caught.value.hint


def test_a_gpu_that_leaves_the_page_is_no_longer_listed(exporter: Exporter) -> None:
    both = gpu(BUSY) + gpu(BUSY, uid="GPU-b", index=1)
    exporter.shows(both)
    bench = Bench(exporter)
    exporter.shows(gpu(BUSY))
    bench.read()
    assert [device.uid for device in bench.source.devices()] == [A100_UID]
    exporter.shows(both)
    bench.read()
    assert [device.index for device in bench.source.devices()] == [0, 1]


def test_a_gpu_that_returns_to_the_page_may_have_been_collected_any_time_since(standin: Path, tmp_path: Path) -> None:
    """A service in front of several exporters shows alternating sets of GPUs. Work at 600 MHz, half a minute before
    the GPU reappears, is not counted at the clock since."""
    clock = SharedClock(tmp_path / "clock")
    steps, other = (Segment(90_000, mhz=600), Segment(90_000, mhz=1410)), gpu(BUSY, uid="GPU-b", index=1)
    with simulated(standin, tmp_path, Scenario((a100(steps),)), clock), exporting(gpu(BUSY) + other) as exporter:
        bench = Bench(exporter, clock=clock, clocks=partial(open_clocks, clock, table()))
        for _ in range(2):
            bench.collects({**BUSY, CLOCK: 600})
        bench.read(22)
        exporter.shows(other)
        bench.read(28)
        exporter.shows(gpu({**BUSY, CLOCK: 600, ENERGY: 99_000_000}))
        found = [*bench.read(), *bench.read()]
        bench.source.close()
    (work,) = (reading.work for reading in found if isinstance(reading.work, Active))
    assert work.sm_cycles[Pipe.TENSOR] - work.uncertainty_sm_cycles[Pipe.TENSOR] <= 0.93 * 600e6 * 30 * 108
