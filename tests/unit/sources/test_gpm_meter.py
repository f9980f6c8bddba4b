"""One GPU's GPM counters, read by read, from a driver that says what the test wants: proof of the counters, and lies."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from flopsd.core.model import Active, Evidence, Gap, GapReason, Growth, Limits, Pipe, Reading
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
    driver: str = "595.91.07"

    def __post_init__(self) -> None:
        self.counters = dict.fromkeys(self.counted, 10**12)
        driver: Any = SimpleNamespace(
            version=self.driver,
            clock=self.clock,
            lib=SimpleNamespace(NVMLError=RuntimeError, nvmlGpmQueryIfStreamingEnabled=lambda _: True),
            optional=lambda call, *arguments: call(*arguments),
            counters=lambda _: {},
            utilization_ratio=lambda _: self.utilization,
            power_ratio=lambda _: self.power,
            sm_clock_samples=lambda *_: [],
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
    """A sample to compare with, one to begin the self-test, seconds of work that prove the counters, and one more."""
    for _ in range(5):
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


@pytest.mark.parametrize(
    ("driver", "why", "fix"),
    [
        ("580.105.08", "this driver has no running cycle counters", "a driver of R595 or newer"),
        ("595.91.07", "this driver has no running cycle counters for this GPU", ""),
    ],
)
def test_a_newer_driver_is_recommended_only_where_it_would_help(driver: str, why: str, fix: str) -> None:
    gpu = Gpu(counted=(), driver=driver)
    gpu.runs(0.5)
    gpu.runs(0.5)
    assert gpu.meter.evidence[:2] == (Evidence.ACTIVITY, why)
    assert gpu.meter.evidence[2][: len("a driver of R595 or newer")] == fix


def test_a_second_proves_nothing_since_counters_may_be_a_tenth_of_one_old() -> None:
    gpu = Gpu()
    gpu.runs(0.5, 0.3)
    gpu.runs(0.5, 0.3)
    assert gpu.runs(0.5, 0.99).totals is None
    assert gpu.runs(0.5, 0.02 + 0.1).totals is not None


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


def test_the_clock_of_reads_that_come_late_shows_that_proven_counters_run_too_fast() -> None:
    gpu = proven(Gpu())
    gpu.mhz = 900 * MHZ // 1000 - 5
    found = [gpu.runs(0.5, 1.1) for _ in range(60)]
    assert sum(isinstance(reading.work, Gap) for reading in found) == 1
    assert gpu.meter.evidence[0] is Evidence.ACTIVITY
    assert "differ by over a tenth" in gpu.meter.evidence[1]


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
    [(0.9, 0.2, True), (0.89, 0.2, False), (0.9, 0.19, False), (None, 0.2, False), (0.9, None, False)],
)
def test_zero_at_full_load_is_a_lie(utilization: float | None, power: float | None, is_a_lie: bool) -> None:
    gpu = Gpu(counted=())
    gpu.runs(0.5)
    gpu.utilization, gpu.power = utilization, power
    reading = gpu.runs(0.0)
    assert isinstance(reading.work, Gap) is is_a_lie
    gpu.runs(0.0)
    assert isinstance(gpu.runs(0.0).work, Gap) is (utilization == 0.9), "nothing waits so long without computing"
    gpu.utilization, gpu.power = 1.0, 1.0
    assert isinstance(gpu.runs(0.01).work, Active), "whatever ran a little is not a lie"


def test_a_device_without_limits_is_read_and_the_daemon_makes_a_gap_of_it() -> None:
    gpu = Gpu()
    driver, gpm = gpu.meter._driver, gpu.meter._gpm
    meter = GpmMeter(driver, gpm, H100, object(), None, lambda: None)
    assert meter._sm_count == 0
