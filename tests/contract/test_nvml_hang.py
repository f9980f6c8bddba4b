"""A GPU whose driver hangs: the others are still read, and its work meanwhile is recovered when it answers."""

import threading
from dataclasses import replace

import pytest

from flopsd.core.figures import Figures
from flopsd.core.model import Evidence, Pipe
from flopsd.sources.nvml.gpu_threads import GpuThreads
from flopsd.sources.nvml.ownership import NvmlProcesses
from flopsd.system.clock import SystemClock
from flopsd.testing import FakeClock
from tests.contract.conftest import Open
from tests.support.process import wait_until
from tests.support.scenario import Fault, Gpu, Process, Segment, h100
from tests.support.sim import Fold

LOAD = (Segment(400, mhz=1980, hmma=0.7), Segment(700, mhz=1410, hmma=0.2))
SECOND = 10**9
BF16_RATE = 4096  # FLOP per SM-cycle


def uid(index: int) -> str:
    return f"GPU-5a4d0000-0000-4000-8000-{index:012}"


def holds(figures: Figures, gpu: Gpu, fold: Fold, until_ns: int) -> bool:
    begin_ns = fold.tallies[uid(0)].begin_ns - 1000 * SECOND
    true = gpu.sm_cycles(Pipe.TENSOR_HMMA, begin_ns, until_ns - 1000 * SECOND, 132) * BF16_RATE
    return figures.high_flop is not None and figures.low_flop <= true <= figures.high_flop


@pytest.mark.parametrize("kind", ["hang", "hang_after"])
@pytest.mark.parametrize(("gpus", "hang_ms"), [(8, 1500), (16, 30_000)])
def test_a_hanging_gpu_costs_the_others_nothing(
    open_sim: Open, kind: str, gpus: int, hang_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flopsd")
    well = h100(LOAD)
    sick = replace(well, faults=(Fault(3400, 3400 + hang_ms, kind),))
    source, clock = open_sim(well, sick, *[well] * (gpus - 2))
    fold = Fold(source, clock).read(10).read(1000, 4 + hang_ms // 1000)
    assert len(fold.tallies) == gpus
    healthy = [fold.tallies[uid(index)] for index in range(gpus) if index != 1]
    assert {tally.total_gap_ns for tally in healthy} == {10_000_000}  # until the first sample
    assert {tally.watermark_ns for tally in healthy} == {clock.boottime_ns()}
    clock.advance(SECOND)
    wait_until(lambda: fold.read(10).reasons(uid(1)) and fold.tallies[uid(1)].watermark_ns == clock.boottime_ns(), "it")
    tally = fold.tallies[uid(1)]
    assert tally.known_ns(Evidence.ACTIVITY) == tally.span_ns - 10_000_000
    fold.read(1000, 2)
    said = [text.partition(";")[0] for text in caplog.messages if text.startswith("GPU 1: ")]
    assert said == ["GPU 1: the driver hangs", "GPU 1: the driver answers again"]
    for index in range(gpus):
        assert holds(fold.figures(uid(index)), well, fold, fold.tallies[uid(index)].watermark_ns)


def test_a_gpu_that_hangs_at_the_start_is_listed_and_named_when_it_answers(open_sim: Open) -> None:
    well = h100(LOAD)
    source, clock = open_sim(replace(well, faults=(Fault(0, 2000, "hang"),)), well)
    assert [device.uid for device in source.devices()] == ["nvml-index-0", uid(1)]
    fold = Fold(source, clock).read(10).read(1000, 3)
    assert fold.tallies[uid(1)].total_gap_ns == 10_000_000
    wait_until(lambda: fold.read(10) and uid(0) in fold.tallies, "the GPU under its own name")
    assert [device.uid for device in source.devices()] == [uid(0), uid(1)]
    assert source.read().renamed["nvml-index-0"].uid == uid(0)


def test_processes_of_other_gpus_are_listed_while_one_gpu_hangs(open_sim: Open) -> None:
    well = h100(LOAD, processes=(Process(0, 10**9, 11),))
    _, clock = open_sim(replace(well, faults=(Fault(1000, 2000, "hang"),)), well)
    clock.advance(SECOND)
    processes = NvmlProcesses()
    assert processes.on(uid(0)) is None
    assert processes.on(uid(1)) == frozenset({11})
    assert processes.on(uid(0)) is None
    clock.advance(SECOND)
    wait_until(lambda: processes.on(uid(0)) == frozenset({11}), "the answer of the GPU that hung")


@pytest.fixture
def threads() -> GpuThreads:
    return GpuThreads(SystemClock())


def test_a_hanging_call_is_not_repeated_and_gives_its_result_later() -> None:
    threads, answer, calls = GpuThreads(FakeClock()), threading.Event(), []

    def hangs() -> str:
        calls.append(1)
        answer.wait()
        return "late"

    assert threads.run({"sick": hangs, "well": lambda: "here"}) == [("well", "here")]
    assert threads.hanging == {"sick"}
    assert threads.run({"sick": hangs, "well": lambda: "again"}) == [("well", "again")]
    answer.set()
    assert wait_until(lambda: threads.run({}), "the late result") == [("sick", "late")]
    assert len(calls) == 1


def test_a_call_without_a_thread_is_made_in_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, answer = GpuThreads(FakeClock()), threading.Event()
    with monkeypatch.context() as now:
        start, left = threading.Thread.start, iter([None])

        def start_once(thread: threading.Thread) -> None:
            if next(left, thread) is thread:
                raise RuntimeError("can't start new thread")
            start(thread)

        now.setattr(threading.Thread, "start", start_once)
        assert threads.run({"sick": answer.wait, "well": lambda: "here"}) == []
        assert threads.hanging == {"sick"}
    assert threads.run({"well": lambda: "here"}) == [("well", "here")]
    answer.set()
