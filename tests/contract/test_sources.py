"""Our own sources keep the contract that plug-ins must keep."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from flopsd.core.model import Busy, Counted, DeviceUid, Evidence, Gap, GapReason, Growth, Pipe, Reading, Sweep, Totals
from flopsd.settings.data_files import config_dir
from flopsd.sources import Source, SourceInfo, SourceSettings
from flopsd.sources.replay.source import ReplaySource
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.testing import FakeClock, ScriptedSource, SourceContract
from tests.support.runs import A100, H100
from tests.support.scenario import Fault, Gpu, Scenario, Segment, Slice, a100, h100
from tests.support.sim import SharedClock, simulated

LOAD = (Segment(950, hmma=0.62, fp32=0.11, fp64=0.01, util=97, watts=610), Segment(50, hmma=0.91, imma=0.05, util=100))
A100_LOAD = (Segment(700, util=100, mhz=1410), Segment(300, util=12, mhz=1140))
NEURON = replace(
    H100, uid="ND-0", index=2, vendor="aws", model="Trainium2", pci_device_id=None, sm_count=None,
    sm_clock_max_mhz=None, evidence=Evidence.COUNT, evidence_reason="counted in software",
)  # fmt: skip


class Nvml(SourceContract):
    """GPUs through the real pynvml and the stand-in library."""

    name = "nvml"
    gpus: tuple[Gpu, ...]

    @pytest.fixture(autouse=True)
    def _simulated(self, standin: Path, tmp_path: Path) -> Iterator[None]:
        self.shared, self.folder = SharedClock(tmp_path / "clock"), tmp_path
        with simulated(standin, tmp_path, Scenario(self.gpus), self.shared):
            yield

    def clock(self) -> Clock:
        return self.shared

    def open_nothing(self, settings: SourceSettings) -> Source:
        Scenario((), epoch_ns=self.shared.boottime_ns()).write(self.folder / "scenario.txt")
        return self.open(settings)


class TestNvml(Nvml):
    gpus = (h100(LOAD), a100(A100_LOAD))


class TestNvmlCycles(Nvml):
    """Running counters on a GPU, in a slice, and a GPU whose clock is sampled."""

    gpus = (
        h100(LOAD, counters="sum"),
        h100(LOAD, mig=True, counters="average", slices=(Slice(1, 60, LOAD), Slice(2, 16, LOAD))),
    )


class TestNvmlFault(Nvml):
    """The stand-in plans its faults: the first GPU is lost as soon as the contract has seen it work."""

    gpus = (h100(LOAD, (Fault(1000 * SourceContract.reads + 500, 10**9, "gpu_lost"),)), h100(LOAD), a100(A100_LOAD))

    def break_one(self, source: Source) -> DeviceUid:
        return source.devices()[0].uid


class TestReplay(SourceContract):
    name = "replay"
    options = {"file": str(config_dir() / "recordings" / "h100x2.jsonl")}  # noqa: RUF012

    def open_nothing(self, settings: SourceSettings) -> Source:
        return self.open(replace(settings, options={"file": "/nowhere.jsonl"}))


class TestScripted(SourceContract):
    """All kinds of work: running counters, activity with doubt, a vendor's count, a ceiling."""

    name = "script"

    def info(self) -> SourceInfo:
        return SourceInfo("script", "a script", self.open, tuple(Evidence), "write one")

    def open(self, settings: SourceSettings) -> Source:
        clock = settings.clock
        devices = (replace(H100, evidence=Evidence.CYCLES), A100, NEURON)
        begin_ns, since_ns, self.broken = clock.boottime_ns(), clock.boottime_ns(), ""

        def script() -> Sweep:
            nonlocal since_ns
            now_ns, last_ns = clock.boottime_ns(), since_ns
            if now_ns == last_ns:
                return Sweep(())
            since_ns, cycles = now_ns, 132 * 1755 * (now_ns - begin_ns) // 1000
            totals = Totals("boot-1", cycles, {Pipe.TENSOR: cycles // 2, Pipe.FP32: cycles // 9})
            works: dict[str, Growth | Busy | Counted] = {
                H100.uid: Growth((Pipe.FP16,)),
                A100.uid: Busy(108 * 1410),
                NEURON.uid: Counted(10**12),
            }
            return Sweep(
                tuple(
                    Reading(
                        uid,
                        last_ns,
                        now_ns,
                        Gap(GapReason.DEVICE_LOST) if uid == self.broken else work,
                        {} if uid == NEURON.uid else {"energy_mj": now_ns // NS_PER_S},
                        totals if uid == H100.uid else None,
                    )
                    for uid, work in works.items()
                )
            )

        return ScriptedSource("script", devices, script)

    def break_one(self, source: Source) -> DeviceUid:  # noqa: ARG002
        self.broken = A100.uid
        return self.broken


def test_a_recording_is_replayed_repeatedly_without_a_hole() -> None:
    clock, recording = FakeClock(), (config_dir() / "recordings" / "h100x2.jsonl").read_bytes()
    source, begin_ns = ReplaySource(recording, "h100x2.jsonl", clock), clock.boottime_ns()
    source.read()
    rows = [json.loads(line) for line in recording.splitlines()[1:]]
    lap_ns = max(row[2] for row in rows)
    found: dict[str, list[Reading]] = {device.uid: [] for device in source.devices()}
    for _ in range(10):
        clock.advance(lap_ns // 4)
        for reading in source.read().readings:
            found[reading.device].append(reading)
    for index, readings in enumerate(found.values()):
        assert all(one.end_ns == other.begin_ns for one, other in pairwise(readings))
        ends_ns = [row[2] for row in rows if row[0] == index]
        laps = [begin_ns + lap * lap_ns + end_ns for lap in range(3) for end_ns in ends_ns]
        assert [reading.end_ns for reading in readings] == [end_ns for end_ns in laps if end_ns <= clock.boottime_ns()]
