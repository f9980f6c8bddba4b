"""The DCGM source against real captures, and against a real HTTP server whose pages a test writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.clock import NS_PER_S
from flopsd.core.figures import Rating, total
from flopsd.core.meter import advance, max_sm_cycles
from flopsd.core.model import (
    Active,
    Busy,
    Evidence,
    Figures,
    Gap,
    GapReason,
    Growth,
    Limits,
    Pipe,
    Precision,
    Reading,
    Tally,
)
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.roster import Roster
from flopsd.sources import SourceSettings
from flopsd.sources.dcgm import DcgmSource, open_source
from flopsd.testing import FakeClock
from tests.support.exporter import (
    A100_UID,
    CLOCK,
    DFMA,
    ELAPSED,
    ENERGY,
    FP16,
    FP32,
    FP64,
    HMMA,
    IMMA,
    LIMIT,
    MMA,
    POWER,
    TENSOR,
    UTIL,
    Exporter,
    exporting,
    gpu,
)
from tests.support.strategies import table

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
A100_NAME, H100_NAME = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"
A100, H100 = Limits(108, 1410), Limits(132, 1980)
BUSY = {TENSOR: 0.93, CLOCK: 1230, UTIL: 100, ENERGY: 1_000_000}
BF16 = Precision((("bf16", 1_000_000),), "test")


class Bench:
    """A source on a clock stepped by hand, with a meter behind it that checks what every reading must be."""

    def __init__(self, exporter: Exporter, interval_s: float = 30, **how: object) -> None:
        self.exporter, self.clock, self.energy = exporter, FakeClock(), 1_000_000
        self.source = DcgmSource(self.clock, table(), exporter.url, interval_s, **how)  # type: ignore[arg-type]
        self.tally = Tally(self.clock.boottime_ns(), self.clock.boottime_ns())
        self.limits: Limits | None = A100

    def read(self, seconds: float = 1) -> list[Reading]:
        self.clock.advance(round(seconds * NS_PER_S))
        readings = [reading for reading in self.source.read().readings if reading.device == A100_UID]
        for reading in readings:
            assert reading.begin_ns == self.tally.watermark_ns
            assert reading.begin_ns < reading.end_ns <= self.clock.boottime_ns()
            self.tally = advance(self.tally, reading, self.limits)
        return readings

    def collects(self, values: Mapping[str, object], after_s: float = 30, model: str = A100_NAME) -> list[Reading]:
        """Reads each second; after `after_s` the page shows `values`, more energy used, and one more read counts it."""
        found: list[Reading] = []
        for _ in range(round(after_s) - 1):
            found += self.read()
        self.energy += 9_000_000
        self.exporter.shows(gpu({**values, ENERGY: self.energy}, model=model))
        return found + self.read()

    def figures(self, part: str = "a100-sxm4-80gb") -> Figures:
        return total(self.tally, Rating(table().parts[part], self.limits, BF16), table())


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with exporting(gpu(BUSY)) as one:
        yield one


def device_of(bench: Bench) -> tuple[Evidence, str, str]:
    (device,) = bench.source.devices()
    return device.evidence, device.evidence_reason, device.evidence_fix


def test_the_t4_capture(exporter: Exporter) -> None:
    exporter.shows((SAMPLES / "dcgm_exporter_t4_loaded_real.prom").read_text())
    source = DcgmSource(FakeClock(), table(), exporter.url)
    (t4,) = source.devices()
    assert (t4.uid, t4.model, t4.index) == ("GPU-6d5c0ac5-74d7-3130-46f1-e93ed57f469a", "Tesla T4", 0)
    assert (t4.pci_bus_id, t4.driver, t4.vendor) == ("00000000:37:00.0", "590.48.01", "nvidia")
    assert t4.evidence is Evidence.ACTIVITY
    assert t4.evidence_reason == "cycle counters come with Hopper"
    assert "1006, 1007, 1008" in t4.evidence_fix
    gauges = source.read().gauges[t4.uid]
    assert gauges.pipe_activity_ratio == {Pipe.TENSOR: 0.005822}
    assert (gauges.utilization_ratio, gauges.sm_clock_mhz) == (0.91, 660)
    told = source.describe()
    assert (told["hostname"], told["driver"], told["interval_ms"]) == ("cp-bm14r7", "590.48.01", 30_000)
    assert told["fields"].split()[0] == "DCGM_FI_DEV_GPU_UTIL"
    assert told["replay"] is None


def test_the_label_variants_capture(exporter: Exporter) -> None:
    exporter.shows((SAMPLES / "dcgm_exporter_labels_variants_real_excerpt.prom").read_text())
    ada, l40s, mig = DcgmSource(FakeClock(), table(), exporter.url).devices()
    assert (ada.model, ada.evidence, ada.shared) == ("NVIDIA RTX 4000 Ada Generation", Evidence.GAP, None)
    assert "the peak table does not know" in ada.evidence_reason
    # Only a tensor ratio there, no clock, no utilisation.
    assert (l40s.model, l40s.evidence) == ("NVIDIA L40S", Evidence.GAP)
    assert "neither SM clock nor utilisation" in l40s.evidence_reason
    assert (mig.model, mig.evidence, mig.pci_bus_id) == ("NVIDIA A800-SXM4-80GB", Evidence.GAP, None)
    assert "MIG is on (2g.20gb)" in mig.evidence_reason


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
    assert bench.tally.doubt_sm_cycles == {}
    assert bench.figures().measured_flop == 93 * 108 * 12_300_000 * 2048 * counted_s
    assert bench.tally.unread_ns == dict.fromkeys((Pipe.FP64, Pipe.FP32, Pipe.FP16), counted_s * NS_PER_S)
    assert bench.tally.energy_mj == 27_000_000


def test_a_clock_that_moved_is_doubt_and_samples_beside_remove_it(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    bench.collects({**BUSY, CLOCK: 1410})
    (reading,) = bench.read()
    assert isinstance(reading.work, Active)
    assert reading.work.sm_cycles[Pipe.TENSOR] == round(0.93 * 1320e6 * 30 * 108)
    assert reading.work.doubt_sm_cycles[Pipe.TENSOR] == round(0.93 * 90e6 * 30 * 108)
    bench.read()

    def nvml(uid: str) -> list[tuple[int, int]]:
        assert uid == A100_UID
        return [(bench.clock.boottime_ns() - ago * NS_PER_S, 1410 if ago < 10 else 1230) for ago in range(100, 0, -1)]

    with exporting(gpu({**BUSY, CLOCK: 1230})) as other:
        bench = Bench(other, clock_samples=nvml)
        bench.collects({**BUSY, CLOCK: 1230})
        bench.collects({**BUSY, CLOCK: 1410})
        (reading,) = bench.read()
    assert isinstance(reading.work, Active)
    # Known to the second now: 21 of 30 s at the low clock, and one step within a second.
    assert reading.work.doubt_sm_cycles[Pipe.TENSOR] <= 0.93 * 90e6 * 1.1 * 108
    assert abs(reading.work.sm_cycles[Pipe.TENSOR] / (0.93e6 * 108) - (21 * 1230 + 9 * 1410)) < 200


def test_sub_pipes_take_their_part_of_any_tensor(exporter: Exporter) -> None:
    bench = Bench(exporter)
    split = {TENSOR: 0.6, HMMA: 0.4, IMMA: 0.1, DFMA: 0.05, FP64: 0.01, FP32: 0.2, FP16: 0.0, CLOCK: 1410}
    bench.collects(split)
    bench.collects(split)
    (reading,) = bench.read()
    assert isinstance(reading.work, Active)
    cycles = 1410 * 108 * 30_000_000
    assert reading.work.sm_cycles == {
        Pipe.TENSOR: round(0.05 * cycles), Pipe.TENSOR_HMMA: round(0.4 * cycles), Pipe.TENSOR_IMMA: round(0.1 * cycles),
        Pipe.TENSOR_DFMA: round(0.05 * cycles), Pipe.FP64: round(0.01 * cycles), Pipe.FP32: round(0.2 * cycles),
        Pipe.FP16: 0,
    }  # fmt: skip
    assert reading.work.unread == ()


def test_the_names_of_dcgm_4_6_and_old_labels_are_the_same_fields(exporter: Exporter) -> None:
    renamed = {
        "DCGM_FI_PROF_TENSOR_UTIL_RATIO": 0.6, "DCGM_FI_PROF_HMMA_UTIL_RATIO": 0.5, "DCGM_FI_PROF_FP32_UTIL_RATIO": 0.1,
        "DCGM_FI_DEV_GPU_UTIL_RATIO": 0.88, "DCGM_FI_DEV_BOARD_POWER_WATTS": 300, CLOCK: 1410,
    }  # fmt: skip
    exporter.shows(gpu(renamed).replace("UUID=", "uuid=").replace("Hostname=", "hostname="))
    source = DcgmSource(FakeClock(), table(), exporter.url)
    (device,) = source.devices()
    assert (device.uid, device.evidence) == (A100_UID, Evidence.ACTIVITY)
    gauges = source.read().gauges[A100_UID]
    assert gauges.pipe_activity_ratio[Pipe.TENSOR_HMMA] == 0.5
    assert gauges.pipe_activity_ratio[Pipe.FP32] == 0.1
    assert gauges.utilization_ratio == pytest.approx(0.88)
    assert source.describe()["hostname"] == "node-7"


def test_several_containers_on_one_gpu_are_one_gpu_and_said_to_share_it(exporter: Exporter) -> None:
    def shared(energy: int) -> str:
        return "".join(
            gpu({**BUSY, ENERGY: energy}, more=f',namespace="ml",pod="{pod}",container="train"') for pod in ("a", "b")
        )

    exporter.shows(shared(1))
    bench = Bench(exporter)
    (device,) = bench.source.devices()
    assert device.shared == "2 containers: ml/a/train, ml/b/train"
    for energy in (2, 3):
        for _ in range(29):
            bench.read()
        exporter.shows(shared(energy))
        bench.read()
    (reading,) = bench.read()
    assert isinstance(reading.work, Active)
    assert reading.work.sm_cycles[Pipe.TENSOR] == round(0.93 * 1230e6 * 30 * 108)
    exporter.shows(gpu({**BUSY, ENERGY: 3}))
    bench.read()
    assert bench.source.devices()[0].shared is None


def test_a_gpu_whose_series_contradict_each_other_has_no_such_value(exporter: Exporter) -> None:
    exporter.shows(gpu(BUSY) + gpu({TENSOR: 0.5}, more=',pod="other"'))
    (device,) = DcgmSource(FakeClock(), table(), exporter.url).devices()
    assert device.evidence is Evidence.UTILIZATION
    assert "given twice, with different values" in device.evidence_reason


def test_a_page_caught_while_it_is_renewed_is_one_collection(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    for _ in range(29):
        bench.read()
    exporter.shows(gpu({**BUSY, ENERGY: bench.energy + 1}))  # the activity is still the last collection's
    assert bench.read() == []
    exporter.shows(gpu({**BUSY, TENSOR: 0.25, ENERGY: bench.energy + 1}))
    assert bench.read() == []
    (reading,) = bench.read()
    assert reading.end_ns - reading.begin_ns == 30 * NS_PER_S
    assert isinstance(reading.work, Active)
    assert reading.work.sm_cycles[Pipe.TENSOR] == round(0.25 * 1230e6 * 30 * 108)


def test_an_exporter_that_collects_faster_than_told_is_followed(exporter: Exporter) -> None:
    bench = Bench(exporter)  # told 30 s, it is one
    for _ in range(20):
        bench.collects(BUSY, after_s=1)
    assert bench.tally.observed_ns == {Evidence.ACTIVITY: 18 * NS_PER_S}


def test_an_exporter_that_collects_slower_than_told_is_a_gap_and_named(exporter: Exporter) -> None:
    bench = Bench(exporter, interval_s=5)  # it is thirty
    bench.collects(BUSY)
    bench.collects(BUSY)
    evidence, reason, fix = device_of(bench)
    assert (evidence, reason) == (
        Evidence.GAP,
        "the exporter has not renewed its values for two collection intervals",
    )
    assert "DCGM_EXPORTER_INTERVAL" in fix
    bench.read()
    # What was stale for 29 s has an average of unknown length: only the last second is taken for it.
    # Its clock was read 30 s ago, so it bounds and does not measure.
    assert bench.tally.observed_ns == {Evidence.UTILIZATION: 1 * NS_PER_S}


def test_a_skipped_collection_leaves_a_gap_before_the_next(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    bench.read()
    late = bench.collects(BUSY, after_s=54) + bench.read()
    told = [(reading.work, (reading.end_ns - reading.begin_ns) // NS_PER_S) for reading in late]
    assert told[0] == (Gap(GapReason.STALE), 25)
    ((work, seconds),) = told[1:]
    assert isinstance(work, Active)
    assert seconds == 30


def test_values_that_are_not_renewed_are_stale_until_they_are(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    bench.collects(BUSY)
    bench.read()
    told = [(second, reading.work) for second in range(2, 70) for reading in bench.read()]
    assert told == [(second, Gap(GapReason.STALE)) for second in range(62, 70)]
    assert device_of(bench)[0] is Evidence.GAP
    bench.collects(BUSY, after_s=1)
    bench.read()
    assert device_of(bench)[0] is Evidence.ACTIVITY


def test_a_scrape_that_fails_between_two_collections_loses_nothing(exporter: Exporter) -> None:
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


def test_an_exporter_that_ends_is_a_fault_and_counts_again_when_it_is_back(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.collects(BUSY)
    bench.collects(BUSY)
    exporter.status = 503
    bench.read(5)
    with pytest.raises(SourceError, match="answers 503"):
        bench.read()
    exporter.status = 200
    bench.tally = Tally(bench.clock.boottime_ns(), bench.clock.boottime_ns())  # the daemon has told this time as a gap
    bench.collects(BUSY)
    bench.collects(BUSY)
    bench.read()
    assert bench.tally.gap_ns == {GapReason.SOURCE_DOWN: 30 * NS_PER_S}
    assert bench.tally.observed_ns == {Evidence.ACTIVITY: 30 * NS_PER_S}


def test_an_exporter_that_shows_no_gpu_any_more_is_a_fault(exporter: Exporter) -> None:
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


def test_mig_is_never_charged_the_whole_device(exporter: Exporter) -> None:
    def sliced(energy: int) -> str:
        slices = ((1, "3g.20gb"), (2, "3g.20gb"))
        rows = [gpu({TENSOR: 0.95}, more=f',GPU_I_PROFILE="{name}",GPU_I_ID="{at}"') for at, name in slices]
        return gpu({CLOCK: 1318, ENERGY: energy, UTIL: 100}) + "".join(rows)

    exporter.shows(sliced(1))
    bench = Bench(exporter)
    (device,) = bench.source.devices()
    assert device.evidence is Evidence.GAP
    assert "MIG is on (3g.20gb, 3g.20gb)" in device.evidence_reason
    bench.read()
    exporter.shows(sliced(2))
    bench.read()
    exporter.shows(sliced(3))
    assert [reading.work for reading in bench.read() + bench.read()] == [Gap(GapReason.NOT_SUPPORTED)] * 2


@pytest.mark.parametrize(
    ("values", "evidence", "reason", "fix"),
    [
        ({UTIL: 50, CLOCK: 1410}, Evidence.UTILIZATION, "(field 1004) is not exported", "4.1.1 loses it on L40S"),
        ({UTIL: 50, TENSOR: 140737488355331.0}, Evidence.UTILIZATION, "is not permitted", "SYS_ADMIN"),
        ({UTIL: 50, TENSOR: 140737488355330.0}, Evidence.UTILIZATION, "is not supported", "nothing better"),
        ({UTIL: 50, TENSOR: 1.40737488355328e16}, Evidence.UTILIZATION, "is blank", "profile --resume"),
        ({UTIL: 50, TENSOR: "NaN"}, Evidence.UTILIZATION, "is not a number", ""),
        ({UTIL: 50, TENSOR: 0.5}, Evidence.UTILIZATION, "SM clock of the interval is not known", "DCGM_FI_DEV_SM_CLOCK"),
        ({UTIL: 50, TENSOR: 0.5, CLOCK: 2147483632}, Evidence.UTILIZATION, "SM clock of", ""),
        ({UTIL: 50, TENSOR: 0.5, CLOCK: 9223372036854775794}, Evidence.UTILIZATION, "SM clock of", ""),
        ({TENSOR: 0.5, CLOCK: 1410}, Evidence.ACTIVITY, "cycle counters come with Hopper", "1013-1015"),
        ({TENSOR: 1.006, CLOCK: 1410}, Evidence.GAP, "field 1004 is no ratio", ""),
        ({TENSOR: -0.1, CLOCK: 1410}, Evidence.GAP, "field 1004 is no ratio", ""),
        ({UTIL: 808334905}, Evidence.GAP, "no percentage", ""),
        ({ENERGY: 5}, Evidence.GAP, "is not exported", "1.1 loses"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_with_what_would_help(
    exporter: Exporter, values: Mapping[str, object], evidence: Evidence, reason: str, fix: str
) -> None:
    exporter.shows(gpu(values))
    bench = Bench(exporter)
    at_first = device_of(bench)
    bench.collects(values)
    bench.collects(values)
    (reading,) = bench.read()
    told = device_of(bench)
    assert told == at_first
    assert told[0] is evidence
    assert reason in told[1]
    assert fix in told[2]
    kinds = {Evidence.GAP: Gap, Evidence.UTILIZATION: Busy, Evidence.ACTIVITY: Active}
    assert isinstance(reading.work, kinds[evidence])


def test_one_utilisation_sample_bounds_one_second_and_no_more(exporter: Exporter) -> None:
    bench = Bench(exporter)
    for _ in range(2):
        bench.collects({UTIL: 9})
    (reading,) = bench.read()
    # 10 % of a second, and 29 of which the sample says nothing.
    assert reading.work == Busy(max_sm_cycles(A100, 29_100_000_000))
    for _ in range(2):
        bench.collects({UTIL: 9}, after_s=1)
    (reading,) = bench.read()
    assert reading.work == Busy(max_sm_cycles(A100, 100_000_000))


def test_zero_activity_at_full_load_is_a_gap(exporter: Exporter) -> None:
    stuck = {TENSOR: 0.0, FP32: 0.0, CLOCK: 1410, UTIL: 100, POWER: 300, LIMIT: 400}
    bench = Bench(exporter)
    bench.collects(stuck)
    bench.collects(stuck)
    (reading,) = bench.read()
    assert reading.work == Gap(GapReason.ZERO_AT_FULL_LOAD)
    assert "Xid 31" in device_of(bench)[2]
    for true in ({FP32: 0.2}, {UTIL: 80}, {POWER: 150}, {LIMIT: "NaN"}):
        bench.collects({**stuck, **true})
        (reading,) = bench.read()
        assert isinstance(reading.work, Active)


def test_energy_beyond_every_smaller_blank_is_energy(exporter: Exporter) -> None:
    bench = Bench(exporter)
    bench.energy = 150_000_000_000_000  # above the blanks of 32 bits and of floating point
    bench.collects(BUSY)
    bench.collects(BUSY)
    bench.read()
    assert bench.tally.energy_mj == 9_000_000
    exporter.shows(gpu({**BUSY, ENERGY: 9223372036854775793}))
    bench.read()
    (reading,) = bench.read()
    assert reading.counters == {}


class Hopper:
    """Counters of an H100 at a constant load, in one of the scales that they may have."""

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


@pytest.mark.parametrize(
    ("per_cycle", "named"), [(1, "per SM"), (132, "sum over SMs"), (528, "sum over SM sub-partitions")]
)
def test_cycle_counters_count_once_their_scale_is_settled(exporter: Exporter, per_cycle: int, named: str) -> None:
    hopper = Hopper(per_cycle)
    exporter.shows(gpu(hopper.page(0), model=H100_NAME))
    bench = Bench(exporter)
    bench.limits = H100
    works: list[object] = []
    for second in (30, 60, 90, 120):
        works += [r.work for r in bench.collects(hopper.page(second), model=H100_NAME) if not isinstance(r.work, Gap)]
        if second == 60:
            assert "not settled" in device_of(bench)[1]
    works += [reading.work for reading in bench.read()]
    assert [type(work) for work in works] == [Active, Growth, Growth]
    assert device_of(bench) == (Evidence.CYCLES, "", "")
    assert bench.tally.totals is not None
    assert bench.tally.totals.origin == f"dcgm 1084-1096, {named}"
    assert bench.tally.active_sm_cycles[(Evidence.CYCLES, Pipe.TENSOR_HMMA)] == pytest.approx(
        0.45 * 1500e6 * 132 * 60, rel=1e-9
    )
    assert bench.tally.active_sm_cycles[(Evidence.CYCLES, Pipe.TENSOR)] == pytest.approx(
        0.04 * 1500e6 * 132 * 60, rel=1e-9
    )
    assert bench.tally.unread_ns.keys() == {Pipe.FP64, Pipe.FP32, Pipe.FP16}  # of the one Active: no ratios there


def test_counters_that_do_not_fit_the_tensor_ratio_are_not_used(exporter: Exporter) -> None:
    hopper = Hopper(per_cycle=1, mma_per_cycle=132)
    exporter.shows(gpu(hopper.page(0), model=H100_NAME))
    bench = Bench(exporter)
    bench.limits = H100
    for second in (30, 60, 90):
        bench.collects(hopper.page(second), model=H100_NAME)
    bench.read()
    assert set(bench.tally.observed_ns) == {Evidence.ACTIVITY}
    assert "not settled" in device_of(bench)[1]


def test_a_scale_that_was_settled_before_closes_the_gap_of_a_restart(exporter: Exporter) -> None:
    hopper = Hopper(132)
    exporter.shows(gpu(hopper.page(0), model=H100_NAME))
    bench = Bench(exporter)
    bench.limits = H100
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
    assert bench.tally.recovered_ns == 329 * NS_PER_S
    assert bench.tally.active_sm_cycles[(Evidence.CYCLES, Pipe.FP32)] == pytest.approx(0.125 * 1500e6 * 132 * 330)


def test_counters_that_stand_still_are_a_gap(exporter: Exporter) -> None:
    hopper = Hopper(132)
    exporter.shows(gpu(hopper.page(0), model=H100_NAME))
    bench = Bench(exporter)
    bench.limits = H100
    for second in (30, 60, 90, 90):
        bench.collects(hopper.page(second), model=H100_NAME)
    (reading,) = bench.read()
    assert reading.work == Gap(GapReason.COUNTER_STALLED)
    assert device_of(bench)[:2] == (Evidence.GAP, "the cycle counters 1084-1096 stand still")
    assert bench.tally.recovered_ns == 0


def test_the_exporters_a100_is_the_one_that_nvml_lists(exporter: Exporter) -> None:
    roster = Roster(("nvml", "dcgm"))
    bench = Bench(exporter)
    (device,) = bench.source.devices()
    roster.offer("nvml", [replace(device, evidence=Evidence.UTILIZATION)])
    roster.offer("dcgm", [device])
    best = roster.best(A100_UID)
    assert best is not None
    assert best[0] == "dcgm"


def test_nothing_listens_is_absence_with_the_remedy() -> None:
    with exporting("") as gone:
        url = gone.url
    with pytest.raises(SourceUnavailableError, match="Connection refused") as caught:
        open_source(SourceSettings(FakeClock(), table(), {"dcgm_url": url, "dcgm_interval_seconds": None}))
    assert caught.value.absent
    assert "--cap-add SYS_ADMIN" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "page", "says"),
    [(404, "", "answers 404"), (200, "<html>a web shop</html>", "shows no GPU"), (200, "", "shows no GPU")],
)
def test_something_else_that_answers_is_no_absence(exporter: Exporter, status: int, page: str, says: str) -> None:
    exporter.status = status
    exporter.shows(page)
    with pytest.raises(SourceUnavailableError, match=says) as caught:
        open_source(SourceSettings(FakeClock(), table(), {"dcgm_url": exporter.url}))
    assert not caught.value.absent
    assert "see whether it runs" in caught.value.hint


def test_an_endless_page_is_cut_off(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flopsd.sources.dcgm._PAGE_BYTES_MAX", 100)
    with pytest.raises(SourceUnavailableError, match="more than 100 bytes"):
        DcgmSource(FakeClock(), table(), exporter.url)


def test_only_http_is_asked_and_no_password_is_told(exporter: Exporter) -> None:
    with pytest.raises(SourceUnavailableError, match="no address of an exporter"):
        DcgmSource(FakeClock(), table(), "file:///etc/passwd")
    source = DcgmSource(FakeClock(), table(), exporter.url)
    source._url = "http://me:secret@node:9400/metrics"
    assert source.describe()["url"] == "http://node:9400/metrics"
