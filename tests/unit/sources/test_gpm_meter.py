"""One GPU's GPM counters, read by read, from a driver that says what the test wants: proof of the counters, and lies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from flopsd.core.model import Active, Evidence, Gap, GapReason, Growth, Limits, Pipe, Reading
from flopsd.sources.nvml.counter_calibration import (
    Calibration,
    Scale,
    SelfTest,
    SelfTestFailedError,
    contradicts,
    judge,
    remembered,
)
from flopsd.sources.nvml.gpm import Metrics
from flopsd.sources.nvml.gpm_meter import GpmMeter
from flopsd.testing import FakeClock
from tests.support.story import H100

SMS, MHZ = 132, 1000
SECOND = 10**9
IDLE = dict.fromkeys((Pipe.TENSOR, Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA, Pipe.FP64, Pipe.FP32), 0.0)


@dataclass
class Gpu:
    """A GPU at a steady clock. Its counters are SM-cycles; `counted` are the pipes that have one."""

    counted: tuple[Pipe, ...] = (Pipe.TENSOR, Pipe.TENSOR_HMMA)
    clock: FakeClock = field(default_factory=FakeClock)
    elapsed: int = 10**12
    counters: dict[Pipe, int] = field(default_factory=dict)
    ratios: dict[Pipe, float] = field(default_factory=lambda: dict(IDLE))
    mhz: int | None = MHZ
    utilization: float | None = 0.5
    power: float | None = 0.5

    def __post_init__(self) -> None:
        self.counters = dict.fromkeys(self.counted, 10**12)
        driver: Any = SimpleNamespace(
            clock=self.clock,
            lib=SimpleNamespace(NVMLError=RuntimeError, nvmlGpmQueryIfStreamingEnabled=lambda _: True),
            optional=lambda call, *arguments: call(*arguments),
            counters=lambda _: {},
            utilization_ratio=lambda _: self.utilization,
            power_ratio=lambda _: self.power,
            sm_clock_samples=lambda *_: None,
            sm_clock_mhz=lambda *_: self.mhz,
        )
        gpm: Any = SimpleNamespace(
            sample=lambda: None, keep=lambda: None, release=lambda: None, metrics=lambda: self._metrics()
        )
        self.meter = GpmMeter(driver, gpm, H100, object(), Limits(SMS, MHZ), lambda: None)

    def _metrics(self) -> Metrics:
        return Metrics(dict(self.ratios), (), self.elapsed, dict(self.counters))

    def runs(self, share: float, seconds: float = 1.0, counted_share: float | None = None) -> Reading:
        """Tensor work of `share` of all cycles, and a reading. The counters may tell another share."""
        ns = round(seconds * SECOND)
        cycles = SMS * MHZ * ns // 1000
        self.elapsed += cycles
        for pipe in self.counters:
            self.counters[pipe] += round(cycles * (share if counted_share is None else counted_share))
        self.ratios = {**IDLE, Pipe.TENSOR: share, Pipe.TENSOR_HMMA: share, Pipe.FP32: share / 2}
        self.clock.advance(ns)
        reading, _ = self.meter.read()
        assert reading is not None
        return reading


def proven(gpu: Gpu) -> Gpu:
    """A sample to compare with, one to begin the self-test, a second of work that proves the counters, and one more."""
    for _ in range(4):
        reading = gpu.runs(0.5)
    assert isinstance(reading.work, Growth)
    assert gpu.meter.evidence == (Evidence.CYCLES, "", "")
    return gpu


def reason(reading: Reading) -> GapReason:
    assert isinstance(reading.work, Gap), reading.work
    return reading.work.reason


def test_counters_are_proven_though_some_pipes_have_a_percentage_only() -> None:
    reading = proven(Gpu()).runs(0.25)
    assert isinstance(reading.work, Growth)
    assert set(reading.work.unread) == {Pipe.FP64, Pipe.FP32, Pipe.FP16}
    assert reading.totals is not None
    assert set(reading.totals.sm_cycles) == {Pipe.TENSOR, Pipe.TENSOR_HMMA}


def test_until_they_are_proven_percentages_count() -> None:
    gpu = Gpu()
    assert reason(gpu.runs(0.5)) is GapReason.STARTING
    reading = gpu.runs(0.5)
    assert isinstance(reading.work, Active)
    assert reading.work.evidence is Evidence.ACTIVITY
    assert reading.work.sm_cycles[Pipe.TENSOR_HMMA] == SMS * MHZ * 10**6 // 2
    assert reading.work.sm_cycles[Pipe.TENSOR] == 0, "all of it is in the sub-pipe"


def test_less_than_eight_tenths_of_a_second_prove_nothing() -> None:
    gpu = Gpu()
    gpu.runs(0.5, 0.3)
    gpu.runs(0.5, 0.3)
    assert gpu.runs(0.5, 0.4).totals is None
    assert gpu.runs(0.5, 0.4).totals is not None, "0.8 s are enough"


def test_counters_that_fell_are_a_gap_of_one_reading() -> None:
    gpu = proven(Gpu())
    gpu.counters[Pipe.TENSOR] -= 10**11
    assert reason(gpu.runs(0.0)) is GapReason.COUNTER_RESET
    assert isinstance(gpu.runs(0.5).work, Growth)
    gpu.elapsed -= 10**13
    assert reason(gpu.runs(0.0)) is GapReason.COUNTER_RESET


@pytest.mark.parametrize(("seconds", "stalled"), [(0.4, False), (0.5, True), (0.6, True)])
def test_a_clock_that_stands_for_half_a_second_has_stalled(seconds: float, stalled: bool) -> None:
    gpu = proven(Gpu())
    gpu.elapsed -= round(SMS * MHZ * seconds * 10**6)
    reading = gpu.runs(0.0, seconds)
    assert isinstance(reading.work, Gap) is stalled
    if stalled:
        assert reason(reading) is GapReason.COUNTER_STALLED


def test_counters_that_contradict_the_percentages_three_times_are_not_used_any_more() -> None:
    gpu = proven(Gpu())
    for _ in range(3):
        assert gpu.meter.evidence[0] is Evidence.CYCLES
        assert reason(gpu.runs(0.5, counted_share=0.3)) is GapReason.CONTRADICTORY
    evidence, why, fix = gpu.meter.evidence
    assert evidence is Evidence.ACTIVITY
    assert "contradict the percentages" in why
    assert fix
    assert isinstance(gpu.runs(0.5, counted_share=0.3).work, Active)


def test_two_contradictions_and_a_good_reading_are_forgiven() -> None:
    gpu = proven(Gpu())
    for _ in range(4):
        assert reason(gpu.runs(0.5, counted_share=0.3)) is GapReason.CONTRADICTORY
        assert reason(gpu.runs(0.5, counted_share=0.3)) is GapReason.CONTRADICTORY
        assert isinstance(gpu.runs(0.5).work, Growth)


def test_after_a_fault_the_percentages_are_of_another_interval_and_prove_nothing() -> None:
    gpu = proven(Gpu())
    gpu.clock.advance(SECOND)
    gpu.elapsed += SMS * MHZ * 10**6
    assert reason(gpu.meter.fail(GapReason.DRIVER_TIMEOUT)) is GapReason.DRIVER_TIMEOUT
    assert reason(gpu.runs(0.5)) is GapReason.DRIVER_TIMEOUT, "the first sample after it has nothing to compare with"
    assert isinstance(gpu.runs(0.5).work, Growth)


def test_activity_without_a_clock_is_a_gap_and_idleness_is_none() -> None:
    gpu = Gpu(counted=())
    gpu.runs(0.5)
    gpu.mhz = None
    assert reason(gpu.runs(0.5)) is GapReason.OUT_OF_RANGE
    idle = gpu.runs(0.0)
    assert isinstance(idle.work, Active)
    assert not any(idle.work.sm_cycles.values())


@pytest.mark.parametrize(
    ("utilization", "power", "is_a_lie"),
    [(0.9, 0.5, True), (0.89, 0.5, False), (0.9, 0.49, False), (None, 0.5, False), (0.9, None, False)],
)
def test_zero_at_full_load_is_a_lie(utilization: float | None, power: float | None, is_a_lie: bool) -> None:
    gpu = Gpu(counted=())
    gpu.runs(0.5)
    gpu.utilization, gpu.power = utilization, power
    reading = gpu.runs(0.0)
    assert isinstance(reading.work, Gap) is is_a_lie
    gpu.utilization, gpu.power = 1.0, 1.0
    assert isinstance(gpu.runs(0.01).work, Active), "whatever ran a little is no lie"


SOUND = SelfTest(1000, {Pipe.TENSOR: 500}, {Pipe.TENSOR: 0.5}, 0, 2000, 2000)  # averaged over the SMs


def test_counters_that_fit_give_their_scale() -> None:
    assert judge(SOUND, SMS) == Calibration(Scale(SMS), Scale(SMS))


@pytest.mark.parametrize("active", [0, 5])
def test_an_interval_without_elapsed_cycles_tells_nothing(active: int) -> None:
    """The counters are up to 100 ms old: two samples may show the same. Any scale would fit zero."""
    assert judge(replace(SOUND, elapsed=0, active={Pipe.TENSOR: active}), SMS) is None


def test_a_clock_that_stood_still_tells_nothing() -> None:
    assert judge(replace(SOUND, window_cycles=0, window_elapsed_after=0), SMS) is None


def test_counters_that_contradict_the_percentages_fail() -> None:
    with pytest.raises(SelfTestFailedError, match=r"tensor 0\.3000 for 0\.5000"):
        judge(replace(SOUND, active={Pipe.TENSOR: 300}), SMS)


def test_counters_that_are_differences_are_told_even_where_two_of_them_are_alike() -> None:
    with pytest.raises(SelfTestFailedError, match="differences between samples"):
        judge(replace(SOUND, elapsed=0, window_elapsed_before=2000), SMS)


@pytest.mark.parametrize("pipes", [Scale(SMS), Scale(1), Scale(1, 4)])
@pytest.mark.parametrize("elapsed", [Scale(SMS), Scale(1), Scale(1, 4)])
def test_an_origin_names_its_calibration(pipes: Scale, elapsed: Scale) -> None:
    one = Calibration(pipes, elapsed)
    assert remembered(one.origin, SMS) == one
    assert remembered(one.origin + ", since boot 7", SMS) == one
    assert remembered(one.origin + "7", SMS) is None
    assert remembered(None, SMS) is None
    assert remembered(one.origin, SMS, "others") is None
    found = one.totals(400, {Pipe.TENSOR: 200})
    assert found.elapsed_sm_cycles == 400 * elapsed.times // elapsed.per
    assert found.sm_cycles == {Pipe.TENSOR: 200 * pipes.times // pipes.per}


@pytest.mark.parametrize(
    ("active", "is_contradiction"), [(500, False), (550, False), (450, False), (551, True), (449, True)]
)
def test_proven_counters_may_differ_from_the_percentage_by_five_percent_of_all_cycles(
    active: int, is_contradiction: bool
) -> None:
    trial = replace(SOUND, active={Pipe.TENSOR: active})
    assert contradicts(Calibration(Scale(1), Scale(1)), trial) is is_contradiction


@pytest.mark.parametrize(("grown", "fits"), [(2000, True), (1000, True), (3000, True), (999, False), (3001, False)])
def test_elapsed_cycles_may_differ_from_the_clock_by_half(grown: int, fits: bool) -> None:
    trial = replace(SOUND, window_elapsed_before=10**9, window_elapsed_after=10**9 + grown)
    if fits:
        assert judge(trial, SMS) == Calibration(Scale(SMS), Scale(SMS))
    else:
        with pytest.raises(SelfTestFailedError, match="while the SM clock ran 2000 cycles on 132 SMs"):
            judge(trial, SMS)


@pytest.mark.parametrize(("ratio", "tells"), [(0.01, True), (0.0099, False)])
def test_a_percentage_below_one_tells_no_scale(ratio: float, tells: bool) -> None:
    trial = replace(SOUND, active={Pipe.TENSOR: 10}, ratios={Pipe.TENSOR: ratio})
    assert (judge(trial, SMS) is not None) is tells


def test_pipes_that_ask_for_different_scales_fail() -> None:
    trial = replace(SOUND, active={Pipe.TENSOR: 500, Pipe.FP32: 500 * SMS}, ratios={Pipe.TENSOR: 0.5, Pipe.FP32: 0.5})
    with pytest.raises(SelfTestFailedError, match=r"tensor 0\.5000 for 0\.5000, fp32 66"):
        judge(trial, SMS)
