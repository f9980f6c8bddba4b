"""A run whose counters an earlier daemon start on this boot has proven, for tests in real time: a proof takes at
least fifteen seconds, and longer on a busy machine."""

import os
from pathlib import Path

from flopsd.core.model import Active, Device, Evidence, Pipe, Reading, Sweep, Totals
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.settings.platform import find_context
from flopsd.sources.nvml.counter_calibration import Calibration, Scale
from flopsd.system.clock import NS_PER_S, SystemClock
from flopsd.testing import FakeClock
from tests.support.runs import Run
from tests.support.scenario import Gpu, Scenario

SCALES = {"average": Scale(132), "sum": Scale(1), "quarter": Scale(1, 4)}


def write_proven(state: Path, scenario: Scenario, run_id: str) -> None:
    """Begin the run in `state`, a second before the scenario begins, and kill it. It reads percentages of almost no
    work, and the counters as they stand when the scenario begins: in the stand-in each pipe's counter is a quarter
    of all cycles."""
    now = SystemClock()
    ago_ns = now.boottime_ns() - scenario.epoch_ns + NS_PER_S
    clock = FakeClock(now.boottime_ns() - ago_ns, wall_ns=now.wall_ns() - ago_ns)
    proven = {scenario.uuid(at): (at, gpu) for at, gpu in enumerate(scenario.gpus) if gpu.counters in SCALES}
    devices = tuple(
        Device(uid, at, "nvidia", gpu.name, sm_count=132, sm_clock_max_mhz=gpu.max_mhz, evidence=Evidence.CYCLES)
        for uid, (at, gpu) in proven.items()
    )
    run = Run(state, devices=devices, context=find_context(os.environ), run_id=run_id, clock=clock, sources=("nvml",))
    clock.advance(NS_PER_S // 2)
    work = Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 1})
    readings = tuple(
        Reading(uid, run.since_ns, clock.boottime_ns(), work, {}, _totals(gpu)) for uid, (_, gpu) in proven.items()
    )
    run.writer.take(Message("nvml", clock.boottime_ns(), devices, Sweep(readings), read_seconds=0.0))
    run.kill()


def _totals(gpu: Gpu) -> Totals:
    origin = Calibration(SCALES[gpu.counters], SCALES[gpu.counters], "GPM of driver 595.91.07").origin
    return Totals(origin, gpu.before_epoch * 132, dict.fromkeys(Pipe, gpu.before_epoch * 132 // 4))
