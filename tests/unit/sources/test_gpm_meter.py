"""The GPM counters of one GPU, read by read, from a scripted driver: proof of the counters, and lies."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from flopsd.core.meter import advance
from flopsd.core.model import Active, Evidence, Gap, GapReason, Gauges, Growth, Limits, Pipe, Reading, Totals
from flopsd.core.tally import Tally
from flopsd.sources.nvml.driver import UnusableError
from flopsd.sources.nvml.gpm_meter import GpmMeter
from tests.support.gpm_gpu import IDLE, MHZ, SECOND, SMS, Gpu
from tests.support.nvml_answers import NvmlFault
from tests.support.story import H100

MS = 10**6


def proven(gpu: Gpu) -> Gpu:
    """Do work that proves the counters, and take one more reading."""
    assert any(isinstance(gpu.runs(0.5).work, Growth) for _ in range(20))
    assert gpu.meter.evidence == (Evidence.CYCLES, "", "")
    return gpu


def reason(reading: Reading) -> GapReason:
    assert isinstance(reading.work, Gap), reading.work
    return reading.work.reason


@pytest.mark.parametrize("vector", [(), (Pipe.FP32,), (Pipe.FP64, Pipe.FP32, Pipe.FP16)])
def test_counters_are_proven_though_some_pipes_have_only_a_percentage(vector: tuple[Pipe, ...]) -> None:
    counted = (Pipe.TENSOR, Pipe.TENSOR_HMMA, *vector)
    gpu = Gpu(counted, vector_share=1.0)
    readings = [gpu.runs(0.5) for _ in range(20)]
    known = [one.totals is not None for one in readings]
    at = known.index(True)
    assert isinstance(readings[at].work, Active), "the interval in which they are proven is by percentages"
    growth = readings[at + 1].work
    assert growth == Growth(tuple(pipe for pipe in (Pipe.FP64, Pipe.FP32, Pipe.FP16) if pipe not in vector))
    totals = readings[-1].totals
    assert totals is not None
    assert tuple(totals.sm_cycles) == counted


def test_counters_that_fell_are_a_gap_of_one_reading() -> None:
    gpu = proven(Gpu())
    gpu.counters[Pipe.TENSOR] -= 10**11
    assert reason(gpu.runs(0.0)) is GapReason.COUNTER_RESET
    assert isinstance(gpu.runs(0.5).work, Growth)
    gpu.elapsed -= 10**13
    assert reason(gpu.runs(0.0)) is GapReason.COUNTER_RESET


def test_the_clock_of_late_reads_reveals_proven_counters_that_run_too_fast() -> None:
    gpu = proven(Gpu())
    gpu.mhz = 900 * MHZ // 1000 - 5
    found = [gpu.runs(0.5, 1.1) for _ in range(60)]
    assert sum(isinstance(reading.work, Gap) for reading in found) == 1
    assert gpu.meter.evidence[0] is Evidence.ACTIVITY
    assert "differ from the SM clock by over a tenth" in gpu.meter.evidence[1]


def test_slow_calls_and_missed_polls_add_doubt_and_no_gap() -> None:
    """As on a machine too busy to read the clock between two readings."""
    gpu = Gpu((), is_polled=False, took_ns=[45 * MS] * 2)
    tally = advance(Tally(0, 0), gpu.runs(0.99, 0.1), Limits(SMS, MHZ))
    before_ns = tally.gap_ns
    tally = advance(tally, gpu.runs(0.99, 0.1), Limits(SMS, MHZ))
    cycles, doubt = (
        amounts[Evidence.ACTIVITY, Pipe.TENSOR_HMMA]
        for amounts in (tally.active_sm_cycles, tally.uncertainty_sm_cycles)
    )
    assert tally.gap_ns == before_ns
    assert doubt > cycles == round(0.99 * SMS * MHZ * 145_000)


def test_activity_without_a_clock_is_a_gap_and_idleness_is_not() -> None:
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
def test_zero_activity_at_full_load_is_a_lie(utilization: float | None, power: float | None, is_a_lie: bool) -> None:
    gpu = Gpu(counted=())
    gpu.runs(0.5)
    gpu.utilization, gpu.power = utilization, power
    reading = gpu.runs(0.0)
    assert isinstance(reading.work, Gap) is is_a_lie
    gpu.runs(0.0)
    assert isinstance(gpu.runs(0.0).work, Gap) is (utilization == 0.9), "nothing waits so long without computing"
    gpu.utilization, gpu.power = 1.0, 1.0
    assert isinstance(gpu.runs(0.01).work, Active), "whatever ran a little is not a lie"


def test_a_device_without_limits_is_read_and_becomes_a_gap_in_the_daemon() -> None:
    gpu = Gpu()
    driver, gpm = gpu.meter._driver, gpu.meter._gpm
    meter = GpmMeter(driver, gpm, H100, gpu.handle, None, lambda: None)
    gpu.ratios = {**IDLE, Pipe.TENSOR: 0.5}
    for _ in range(2):
        gpu.clock.advance(SECOND)
        reading, _ = meter.read()
    assert reading is not None
    assert isinstance(reading.work, Active)
    assert reading.work.sm_cycles == dict.fromkeys(IDLE, 0)
    assert not meter.polls, "no clock would help"


def test_a_reading_and_its_gauges_have_their_counters() -> None:
    slice_of = replace(H100, uid="MIG-1", parent=H100.uid)
    for device, counters, utilization in ((H100, {"reads": 7}, 0.25), (slice_of, {}, None)):
        gpu = Gpu((), device=device, utilization=0.25)
        begin_ns = gpu.clock.boottime_ns()
        gpu.clock.advance(SECOND)
        gap = Reading(device.uid, begin_ns, begin_ns + SECOND, Gap(GapReason.STARTING), counters)
        assert gpu.meter.read() == (gap, Gauges({}, utilization, MHZ))
        gpu.ratios = {**IDLE, Pipe.TENSOR: 0.5, Pipe.TENSOR_HMMA: 0.25}
        gpu.clock.advance(SECOND)
        reading, gauges = gpu.meter.read()
        assert gauges == Gauges({**IDLE, Pipe.TENSOR: 0.25, Pipe.TENSOR_HMMA: 0.25}, utilization, MHZ)
        assert reading is not None
        assert (reading.device, reading.begin_ns, reading.end_ns) == (device.uid, gap.end_ns, gap.end_ns + SECOND)
        assert (reading.counters, reading.totals) == (counters, None)
        gpu.clock.advance(SECOND)
        totals, reason = Totals("x", 1, {}), GapReason.DEVICE_LOST
        assert gpu.meter.fail(reason, totals) == Reading(
            device.uid, reading.end_ns, reading.end_ns + SECOND, Gap(reason), {}, totals
        )


def test_a_read_that_comes_too_soon_gives_nothing() -> None:
    gpu = Gpu(())
    gpu.runs(0.5)
    gpu.clock.advance(100 * MS - 1)
    assert gpu.meter.read() == (None, None)
    gpu.clock.advance(1)
    reading, _ = gpu.meter.read()
    assert reading is not None
    assert reading.end_ns - reading.begin_ns == 100 * MS


@pytest.mark.parametrize(
    ("took_ms", "edge_ms", "begin_ms"),
    [((10, 20), 30, 5), ((50, 0), 50, 25), ((51, 4, 20), 24, 53), ((60, 50, 50), 100, 85)],
)
def test_a_sample_is_dated_anywhere_within_its_call_and_repeated_if_slow(
    took_ms: tuple[int, ...], edge_ms: int, begin_ms: int
) -> None:
    gpu = Gpu(())
    at_ns = gpu.clock.boottime_ns() + SECOND
    gpu.took_ns = [ms * MS for ms in took_ms]
    first, second = gpu.runs(0.5), gpu.runs(0.5, 0.5)
    assert first.end_ns == second.begin_ns == at_ns + begin_ms * MS
    assert isinstance(second.work, Active)
    edges = edge_ms * 1000 * MHZ // 2  # the same again lies between a sample and the first or last poll
    assert second.work.uncertainty_sm_cycles[Pipe.TENSOR_HMMA] == (2 * edges + 1) * SMS // 2


def test_a_sample_that_is_slow_twice_is_left_for_a_later_reading() -> None:
    gpu = Gpu(())
    first = gpu.runs(0.5)
    gpu.took_ns = [51 * MS, 51 * MS]
    gpu.clock.advance(SECOND)
    assert gpu.meter.read() == (None, None)
    second = gpu.runs(0.5)
    assert (second.begin_ns, second.end_ns) == (first.end_ns, gpu.clock.boottime_ns())


@pytest.mark.parametrize(
    ("streams", "raised"),
    [
        (True, None), (NvmlFault(3), None), (NvmlFault(6), None), (NvmlFault(13), None), (NvmlFault(4), NvmlFault),
        (False, UnusableError),
    ],
)  # fmt: skip
def test_counters_that_are_off_are_switched_on_without_a_fault_at_first(
    streams: bool | Exception, raised: type[Exception] | None
) -> None:
    for is_first in (True, False):
        gpu = Gpu(())
        if not is_first:
            gpu.runs(0.5)
        gpu.streams = streams
        gpu.clock.advance(SECOND)
        words = None if raised is not UnusableError else "STARTING" if is_first else "COUNTERS_DISABLED"
        with nullcontext() if raised is None else pytest.raises(raised, match=words):
            gpu.meter.read()
        assert gpu.made == (["stream first 1"] if raised is UnusableError else [])


def test_a_new_handle_is_used_and_the_old_buffers_are_released() -> None:
    gpu = Gpu(())
    gpu.runs(0.5)
    gpu.meter.fail(GapReason.DEVICE_LOST)
    assert reason(gpu.runs(0.5)) is GapReason.DEVICE_LOST
    gpu.handle = "second"
    gpu.meter.reach("second")
    gpu.meter.take(gpu.gpm("other"))
    assert gpu.made == ["release gpm"]
    assert reason(gpu.runs(0.5)) is GapReason.STARTING, "the new buffers have no sample to compare with"
    assert isinstance(gpu.runs(0.5).work, Active)
    gpu.meter.release()
    assert gpu.made == ["release gpm", "release other"]


def test_a_clock_without_polls_is_first_taken_from_the_second_read() -> None:
    gpu = Gpu((), is_polled=False)
    gpu.runs(0.5, 0.5)
    gpu.mhz = 600
    works = [gpu.runs(0.5, 0.5).work for _ in range(2)]
    assert [work.sm_cycles[Pipe.TENSOR_HMMA] for work in works if isinstance(work, Active)] == [600 * SMS * 250_000] * 2


def test_a_clock_is_polled_where_counters_do_not_count() -> None:
    for counted, polls in (((), True), ((Pipe.TENSOR, Pipe.TENSOR_HMMA), False)):
        gpu = Gpu(counted)
        assert not gpu.meter.polls, "there is no sample to compare with yet"
        for _ in range(150):
            gpu.runs(0.5)
        assert gpu.meter.polls is polls
        now_ns = gpu.clock.boottime_ns()
        due_ns = gpu.meter.next_poll_ns(now_ns, now_ns + 50 * MS)
        assert (due_ns is not None) is polls
        gpu.meter.poll()
        if due_ns is None:
            continue
        assert now_ns <= due_ns < now_ns + 50 * MS
        gpu.clock.advance(due_ns - now_ns)
        gpu.meter.poll()
        assert gpu.meter.next_poll_ns(now_ns, now_ns + 50 * MS) is None
