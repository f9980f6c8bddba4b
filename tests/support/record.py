"""Makes the bundled recording: two simulated H100 behind the stand-in NVML, read by the real NVML source."""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pynvml

from flopsd.core.model import Active, Busy, Evidence, Gap, Gauges, Reading
from flopsd.settings.data_files import load_peaks
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.source import NvmlSource
from flopsd.sources.replay.source import FORMAT
from tests.support.scenario import Scenario, Segment, compile_standin, h100
from tests.support.sim import SharedClock, simulated

SECONDS = 60
ORIGIN = (
    "simulation: two H100 of flopsd's stand-in NVML library with training-like bursts, read at 1 Hz; "
    "nothing here was measured on hardware"
)


def training(ms: int) -> tuple[Segment, ...]:
    """Steps of `ms`: forward and backward, gradient exchange, optimiser, and a pause for a checkpoint."""
    step = (
        Segment(ms, mhz=1410, util=100, watts=640, hmma=0.62, fp32=0.06, fp16=0.01),
        Segment(ms // 8, mhz=1620, util=100, watts=410, hmma=0.03, fp32=0.02),
        Segment(ms // 12, mhz=1590, util=100, watts=480, fp32=0.21),
    )
    return (*step * 6, Segment(900, mhz=1980, util=0, watts=130))


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        standin = compile_standin(folder / "lib").parent
        clock = SharedClock(folder / "clock")
        scenario = Scenario((h100(training(620)), h100(training(640))))
        with simulated(standin, folder, scenario, clock):
            source = NvmlSource(pynvml, SourceSettings(clock, load_peaks()))
            clock.advance(200_000_000)
            source.read()  # the baseline: its gap is not part of the recording
            begin_ns = clock.boottime_ns()
            devices = list(source.devices())
            lines: list[Any] = []
            for _ in range(SECONDS):
                clock.advance(1_000_000_000)
                sweep = source.read()
                lines += [_line(reading, sweep.gauges[reading.device], begin_ns, [d.uid for d in devices])
                          for reading in sweep.readings]  # fmt: skip
            source.close()
    header = {"format": FORMAT, "origin": ORIGIN,
              "devices": [{**asdict(d), "uid": d.uid.replace("GPU-", "REPLAY-")} for d in devices]}  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(json.dumps(line, separators=(",", ":")) for line in [header, *lines]) + "\n")
    print(f"{target}: {len(lines)} readings")


def _line(reading: Reading, gauges: Gauges, begin_ns: int, uids: list[str]) -> list[Any]:
    found: dict[str, Any] = {
        "gauges": {
            "pipes": {pipe.value: round(ratio, 6) for pipe, ratio in gauges.pipe_activity_ratio.items()},
            "utilization": gauges.utilization_ratio,
            "sm_clock_mhz": gauges.sm_clock_mhz,
        }
    }
    work = reading.work
    if isinstance(work, Active):
        assert work.evidence is Evidence.ACTIVITY
        found["activity"] = {pipe.value: cycles for pipe, cycles in work.sm_cycles.items()}
    elif isinstance(work, Busy):
        found["busy"] = work.sm_cycles
    elif isinstance(work, Gap):
        found["gap"] = work.reason.value
    return [uids.index(reading.device), reading.begin_ns - begin_ns, reading.end_ns - begin_ns, found]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
