"""No alert fires on a healthy install: half an hour of six of them, told by the real writer and shown by the real exporter,
under the committed rules in the real promtool. Time passes on a clock stepped by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flopsd.core.declarations import NOTHING_DECLARED, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.model import Busy, Device, Gap, GapReason, Growth, Pipe, Precision, Reading, Sweep
from flopsd.daemon.source_tracker import Message
from flopsd.settings.data_files import load_policies
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.prometheus import Exposition
from flopsd.telemetry.snapshot import JournalState
from tests.support.hour import BF16
from tests.support.prometheus import Case, World, promtool_says
from tests.support.story import A100, CONTEXT, CYCLES_H100, H100, Second, Story, Work, active

MINUTES, STEP_SECONDS, SEAL_SECONDS = 30, 15, 900
TRAINED = OperatorDeclarations(Phase.TRAIN, Method.FULL, Recomputation.NONE)
TRAINS = active(132, 1755, {Pipe.TENSOR_HMMA: 481_113, Pipe.TENSOR_IMMA: 0, Pipe.FP32: 99_999, Pipe.FP64: 7})
EIGHT_BUSY = [replace(A100, uid=f"GPU-a{index}", index=index) for index in range(8)]
SECOND_H100 = replace(H100, uid="GPU-h1", index=1)


@dataclass(frozen=True)
class Install:
    """What differs between installs, by default: nothing is declared, one H100 with running counters."""

    plan: dict[Device, Callable[[Second], Work | None]]
    platform: str = "host"
    precision: Precision | None = None
    declared: OperatorDeclarations = NOTHING_DECLARED
    replay: bool = False


INSTALLS = {
    "host": Install({CYCLES_H100: lambda _: Growth()}),
    "exec": Install({CYCLES_H100: lambda _: Growth(), SECOND_H100: TRAINS}, "slurm", BF16, TRAINED),
    "sidecar": Install({H100: TRAINS, SECOND_H100: TRAINS}, "kubernetes"),
    "daemonset": Install({H100: TRAINS, SECOND_H100: lambda _: Gap(GapReason.OTHER_JOB)}, "kubernetes"),
    "a100 without counters": Install(dict.fromkeys(EIGHT_BUSY, lambda it: Busy((it.end_ns - it.begin_ns) * 108 * 141 // 100))),
    "replay": Install({H100: TRAINS}, replay=True),
}  # fmt: skip


class Watched(Story):
    """A run whose page is read once a minute, as a scrape would."""

    def __init__(self, folder: Path, name: str, install: Install) -> None:
        self.install, self.samples, self.at = install, dict[str, dict[int, float]](), f'job="flopsd",instance="{name}"'
        super().__init__(
            folder, tuple(install.plan), precision=install.precision, declared=install.declared, run=name,
            replay=install.replay, context=replace(CONTEXT, platform=install.platform, node=f"node of {name}"),
            policies=load_policies(),
        )  # fmt: skip
        self.begin_ns = self.clock.wall_ns()

    def minute(self, number: int) -> None:
        for _ in range(60 // STEP_SECONDS):
            self.clock.advance(STEP_SECONDS * NS_PER_S)
            second = Second(self.since_ns, self.clock.boottime_ns())
            readings: list[Reading] = self._readings(self.install.plan, second)
            self.writer.take(Message("told", second.end_ns, self.devices, Sweep(tuple(readings)), read_seconds=0.001))
            self.since_ns = second.end_ns
        assert self.writer.checkpoint()
        now_ns = self.clock.wall_ns()
        sealed = (now_ns - self.begin_ns) // (SEAL_SECONDS * NS_PER_S) * SEAL_SECONDS * NS_PER_S
        state = JournalState(now_ns, SEAL_SECONDS * NS_PER_S, self.begin_ns + sealed if sealed else None)
        page = Exposition().render(replace(self.writer.snapshot, journal_state=state), "")[0].decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                labels = ",".join([self.at, *(f"{key}={json.dumps(value)}" for key, value in sample.labels.items())])
                value = sample.value
                if sample.name.endswith(("_timestamp_seconds", "time_seconds")):
                    value -= self.begin_ns / NS_PER_S  # promtool's time begins at zero
                self.samples.setdefault(f"{sample.name}{{{labels}}}", {})[number] = value
        self.samples.setdefault(f"up{{{self.at}}}", {})[number] = 1

    def world(self) -> World:
        return {
            name: " ".join(
                "_" if (value := found.get(number)) is None else repr(value) for number in range(MINUTES + 1)
            )
            for name, found in self.samples.items()
        }


@pytest.mark.tool("promtool")
@pytest.mark.parametrize("name", INSTALLS)
def test_nothing_fires_on_a_healthy_install(tmp_path: Path, name: str) -> None:
    told = Watched(tmp_path / "state", name, INSTALLS[name])
    for number in range(1, MINUTES + 1):
        told.minute(number)
    told.kill()
    world = told.world()
    assert any(series.startswith("flopsd_device_info{") for series in world)
    done = promtool_says(
        tmp_path, [Case(name, world, MINUTES, {"ALERTS": [], "count(run:flopsd_nodes:count)": [({}, 1)]})]
    )
    assert done.returncode == 0, done.stdout + done.stderr
