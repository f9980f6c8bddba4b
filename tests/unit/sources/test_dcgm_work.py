"""One collection of DCGM fields as work: each rule at its limits, without an exporter."""

from collections.abc import Mapping

import pytest

from flopsd.core.clock_integral import Cycles
from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import Active, Busy, Evidence, GapReason, Limits, Pipe, Totals
from flopsd.sources.dcgm.device import device_of
from flopsd.sources.dcgm.exposition import Field, GpuPage
from flopsd.sources.dcgm.gpu import _integral
from flopsd.sources.dcgm.work import Expected, active, ceiling, counted_between, expect, ratios, totals, unread_counters
from flopsd.sources.nvml.counter_calibration import Calibration, SampleInterval, Scale
from flopsd.sources.validate import check_devices
from flopsd.system.clock import NS_PER_S

S, LIMITS = NS_PER_S, Limits(108, 1410)
TENSOR, HMMA, IMMA, DFMA = Field.TENSOR, Field.HMMA, Field.IMMA, Field.DFMA
ELAPSED, MMA = Field.CYCLES_ELAPSED, Field.CYCLES_MMA


@pytest.mark.parametrize(
    ("label", "index"),
    [("7", 7), ("999999999", 999_999_999), ("1" * 10, 3), ("1" * 5000, 3), ("-1", 3), ("x", 3), ("", 3)],
)
def test_an_impossible_index_or_name_costs_nothing_else_of_the_page(label: str, index: int) -> None:
    device = device_of(GpuPage("GPU-1", {"gpu": label, "modelName": "x" * 1001, "pci_bus_id": "y" * 1000}), 3)
    assert (device.index, device.model, device.pci_bus_id) == (index, "unidentified", "y" * 1000)
    check_devices([device])


def page(values: Mapping[Field, float], **more: object) -> GpuPage:
    return GpuPage("GPU-1", {}, dict(values), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, {}),
        ({Field.FP32: 0.0, Field.FP16: 1.005, Field.FP64: 1.006}, {Pipe.FP32: 0.0, Pipe.FP16: 1.0}),
        ({Field.FP32: -0.1, Field.FP16: 1.0}, {Pipe.FP16: 1.0}),
        ({TENSOR: 0.75}, {Pipe.TENSOR: 0.75}),
        ({TENSOR: 1.005}, {Pipe.TENSOR: 1.0}),
        ({TENSOR: 0.0}, {Pipe.TENSOR: 0.0}),
        ({TENSOR: 1.01}, {}),
        ({TENSOR: -0.01}, {}),
        ({HMMA: 0.25}, {Pipe.TENSOR_HMMA: 0.25}),
        ({TENSOR: 0.75, HMMA: 0.25, IMMA: 0.125, DFMA: 0.0},
         {Pipe.TENSOR: 0.375, Pipe.TENSOR_HMMA: 0.25, Pipe.TENSOR_IMMA: 0.125, Pipe.TENSOR_DFMA: 0.0}),
        ({TENSOR: 0.25, HMMA: 0.5}, {Pipe.TENSOR: 0.0, Pipe.TENSOR_HMMA: 0.5}),
    ],
)  # fmt: skip
def test_activity_by_pipe_excludes_the_parts_counted_elsewhere(
    values: Mapping[Field, float], found: Mapping[Pipe, float]
) -> None:
    assert ratios(page(values)) == found


def test_pipes_without_a_field_are_unread() -> None:
    work = active(page({TENSOR: 0.5, Field.FP32: 0.25}), Cycles(1000, 100), 108)
    assert work == Active(
        Evidence.ACTIVITY, {Pipe.TENSOR: 54_000, Pipe.FP32: 27_000}, {Pipe.TENSOR: 5400, Pipe.FP32: 2700},
        (Pipe.FP64, Pipe.FP16),
    )  # fmt: skip
    assert active(page({Field.FP64: 0, Field.FP32: 0, Field.FP16: 0}), Cycles(1000, 0), 1).unread == (Pipe.TENSOR,)


@pytest.mark.parametrize(
    ("percent", "seconds", "busy_s"),
    [
        (0, 0.1, 0.001), (9, 0.1, 0.01), (9.9, 0.1, 0.01), (10, 0.1, 0.011), (99, 1, 1), (100, 1, 1),
        (49, 3, 2.916_666_667), (99, 3, 3),
    ],
)  # fmt: skip
def test_one_utilisation_sample_covers_a_sixth_of_a_second(percent: float, seconds: float, busy_s: float) -> None:
    assert ceiling(percent, LIMITS, round(seconds * S)) == Busy(max_sm_cycles(LIMITS, round(busy_s * S)))


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ({ELAPSED: 5, MMA: 3}, {ELAPSED: 15, MMA: 7}, SampleInterval(10, {Pipe.TENSOR: 4}, {Pipe.TENSOR: 0.0})),
        (
            {ELAPSED: 5, MMA: 3},
            {ELAPSED: 6, MMA: 3, TENSOR: 1.005},
            SampleInterval(1, {Pipe.TENSOR: 0}, {Pipe.TENSOR: 1.005}),
        ),
        ({ELAPSED: 5, MMA: 3}, {ELAPSED: 6, MMA: 3, TENSOR: 1.006}, None),
        ({ELAPSED: 5, MMA: 3}, {ELAPSED: 5, MMA: 3}, None),
        ({ELAPSED: 5, MMA: 3}, {ELAPSED: 4, MMA: 3}, None),
        ({ELAPSED: 5}, {ELAPSED: 15, MMA: 7}, None),
        ({ELAPSED: 5, MMA: 3}, {MMA: 7}, None),
    ],
)
def test_counters_are_compared_where_they_grew(
    before: Mapping[Field, float], now: Mapping[Field, float], found: SampleInterval | None
) -> None:
    assert counted_between(page(before), page(now)) == found


def test_double_precision_is_counted_once_and_missing_counters_are_in_the_origin() -> None:
    scale = Calibration(Scale(2), Scale(3), "DCGM")
    every = {ELAPSED: 100, MMA: 50, Field.CYCLES_HMMA: 20, Field.CYCLES_IMMA: 10, Field.CYCLES_FP64: 4,
             Field.CYCLES_FP32: 5, Field.CYCLES_FP16: 6, Field.CYCLES_DMMA: 7, Field.CYCLES_DFMA: 8}  # fmt: skip
    found = {Pipe.TENSOR_HMMA: 40, Pipe.TENSOR_IMMA: 20, Pipe.FP64: 8, Pipe.FP32: 10, Pipe.FP16: 12, Pipe.TENSOR: 100}
    assert totals(page(every), scale) == Totals("DCGM pipes x2, elapsed x3", 300, {**found, Pipe.TENSOR_DFMA: 16})
    assert totals(page({**every, Field.CYCLES_DMMA: 9}), scale).sm_cycles[Pipe.TENSOR_DFMA] == 18
    few = totals(page({ELAPSED: 1, MMA: 1, Field.CYCLES_FP32: 1}), scale)
    missing = "fp16 fp64 tensor_dfma tensor_hmma tensor_imma"
    assert few == Totals(f"{scale.origin}, without {missing}", 3, {Pipe.TENSOR: 2, Pipe.FP32: 2})
    assert unread_counters(page(every)) == ()
    assert unread_counters(page({ELAPSED: 1, MMA: 1, Field.CYCLES_FP32: 1})) == (Pipe.FP64, Pipe.FP16)
    assert expect(page(every), LIMITS, scale, False, True) == Expected(Evidence.CYCLES)
    assert expect(page({**every, TENSOR: 2.0, HMMA: 3.0}), LIMITS, scale, False, True) == Expected(Evidence.CYCLES)
    assert expect(page({ELAPSED: 1}), LIMITS, scale, False, True).evidence is Evidence.GAP


COUNTERS, PARTS, VECTORS = (
    {ELAPSED: 1.0, MMA: 1.0},
    {DFMA: 0.0},
    dict.fromkeys((Field.FP64, Field.FP32, Field.FP16), 0.0),
)
NAMES = "DCGM_FI_PROF_PIPE_FP64_ACTIVE, DCGM_FI_PROF_PIPE_FP32_ACTIVE, DCGM_FI_PROF_PIPE_FP16_ACTIVE"
SPLIT, BOUNDED = (
    "add 1013-1015 to the CSV (Ampere and newer) to split tensor work by kind",
    "to the CSV: these pipes are only",
)
HOPPER = "with DCGM 4.6 and driver R595 or newer add 1084-1096 to the exporter's CSV"


@pytest.mark.parametrize(
    ("values", "hopper", "reason", "fix"),
    [
        ({**COUNTERS, TENSOR: 0.5}, True, "the self-test has not yet determined the scale of the cycle counters 1084-1096", ""),
        ({**COUNTERS, HMMA: 0.5}, True, "the self-test has not yet determined the scale of the cycle counters 1084-1096",
         "export 1004 too: the self-test compares it with them"),
        ({TENSOR: 0.5, **PARTS, **VECTORS}, True, "no cycle counters on the page", HOPPER),
        ({TENSOR: 0.5, **PARTS, **VECTORS}, False, "only Hopper and newer GPUs have cycle counters", ""),
        ({TENSOR: 0.5, **VECTORS}, False, "only Hopper and newer GPUs have cycle counters", SPLIT),
        ({TENSOR: 0.5, **PARTS}, True, "no cycle counters on the page", f"{HOPPER}; add {NAMES} {BOUNDED} bounded"),
    ],
)  # fmt: skip
def test_the_remedy_names_the_fields_that_would_improve_activity(
    values: Mapping[Field, float], hopper: bool, reason: str, fix: str
) -> None:
    assert expect(page(values), LIMITS, None, True, hopper) == Expected(Evidence.ACTIVITY, reason, fix)


@pytest.mark.parametrize(
    ("begin", "end", "seconds", "known"),
    [
        (2, 28, 30, True), (2.1, 28, 30, False), (2, 27.9, 30, False), (-5, 40, 30, True),
        (1, 3, 4, True), (1.1, 3, 4, False), (1, 2.9, 4, False),
    ],
)  # fmt: skip
def test_clock_samples_may_miss_two_seconds_or_a_quarter_of_the_interval(
    begin: float, end: float, seconds: float, known: bool
) -> None:
    samples = [(round(at * S) + 10 * S, 1000) for at in (begin, end)]
    found = _integral(samples, 10 * S, 10 * S + round(seconds * S))
    assert found == (Cycles(round(seconds * 10**9), 0) if known else None)
    assert _integral([], 0, S) is None


ACTIVE = {TENSOR: 0.5, Field.SM_CLOCK: 1410.0}


@pytest.mark.parametrize(
    ("given", "known", "evidence", "gap"),
    [
        (page(ACTIVE), True, Evidence.ACTIVITY, None),
        (page({HMMA: 0.5}), True, Evidence.ACTIVITY, None),
        (page(ACTIVE), False, Evidence.GAP, GapReason.NOT_SUPPORTED),
        (page({**ACTIVE, Field.GPU_UTIL: 0.0}), False, Evidence.UTILIZATION, None),
        (page({Field.GPU_UTIL: 100.0}), True, Evidence.UTILIZATION, None),
        (page({Field.GPU_UTIL: 100.5}), True, Evidence.GAP, GapReason.OUT_OF_RANGE),
        (page({Field.GPU_UTIL: -0.5}), True, Evidence.GAP, GapReason.OUT_OF_RANGE),
        (page({**ACTIVE, Field.FP32: 1.005}), True, Evidence.ACTIVITY, None),
        (page({**ACTIVE, Field.FP32: 1.006}), True, Evidence.GAP, GapReason.OUT_OF_RANGE),
        (page({**ACTIVE, Field.FP32: -0.001}), True, Evidence.GAP, GapReason.OUT_OF_RANGE),
        (page({TENSOR: 0.5, HMMA: 0.3, IMMA: 0.25}), True, Evidence.ACTIVITY, None),
        (page({TENSOR: 0.5, HMMA: 0.3, IMMA: 0.2501}), True, Evidence.GAP, GapReason.CONTRADICTORY),
        (page({}), True, Evidence.GAP, GapReason.NOT_SUPPORTED),
        (page({}, blanks={TENSOR: "blank"}), True, Evidence.GAP, GapReason.NOT_A_NUMBER),
        (page({}, blanks={HMMA: "not permitted"}), True, Evidence.GAP, GapReason.NO_PERMISSION),
        (page({}, blanks={Field.GPU_UTIL: "blank", Field.SM_CLOCK: "not permitted"}), True, Evidence.GAP,
         GapReason.NO_PERMISSION),
        (page({}, blanks={Field.FP32: "not permitted"}), True, Evidence.GAP, GapReason.NOT_SUPPORTED),
        (page(ACTIVE, slices={"1": "3g.20gb"}), True, Evidence.GAP, GapReason.NOT_SUPPORTED),
    ],
)  # fmt: skip
def test_the_evidence_is_the_best_that_a_page_allows(
    given: GpuPage, known: bool, evidence: Evidence, gap: GapReason | None
) -> None:
    found = expect(given, LIMITS, None, known, False)
    assert (found.evidence, found.gap) == (evidence, gap)
    if evidence is Evidence.UTILIZATION and TENSOR in given.values:
        assert found.fix == ""
        del given.values[Field.SM_CLOCK]
        assert expect(given, LIMITS, None, known, False).fix == "add DCGM_FI_DEV_SM_CLOCK to the exporter's CSV"
    assert expect(given, None, None, known, False).gap is (
        GapReason.NOT_SUPPORTED if given.slices else GapReason.UNKNOWN_DEVICE
    )
