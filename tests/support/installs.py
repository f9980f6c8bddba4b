"""Healthy installs of different kinds, written by the real writer and exposed by the real exporter, on a clock
stepped by hand."""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from flopsd.core.declarations import NOTHING_DECLARED, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.model import Busy, Device, Evidence, Gap, GapReason, Gauges, Growth, Pipe, Precision, Reading, Sweep
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.settings.data_files import load_policies
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.prometheus import Exposition
from flopsd.telemetry.snapshot import JournalState
from tests.support.hour import BF16
from tests.support.prometheus import World
from tests.support.story import A100, CONTEXT, CYCLES_H100, H100, Second, Story, Work, active

MINUTES, STEP_SECONDS, SEAL_SECONDS = 30, 15, 900
SHORT_MINUTES, PAUSE_SECONDS = (
    12,
    3600,
)  # between two installs in one Prometheus: longer than the ranges of their rules
TRAINED = OperatorDeclarations(Phase.TRAIN, Method.FULL, Recomputation.NONE)
TRAINS = active(132, 1755, {Pipe.TENSOR_HMMA: 481_113, Pipe.TENSOR_IMMA: 0, Pipe.FP32: 99_999, Pipe.FP64: 7})
EIGHT_BUSY = [replace(A100, uid=f"GPU-a{index}", index=index) for index in range(8)]
SECOND_H100 = replace(H100, uid="GPU-h1", index=1)


@dataclass(frozen=True)
class Install:
    """The differences between installs. By default nothing is declared, and there is one H100 with running counters."""

    plan: dict[Device, Callable[[Second], Work | None]]
    platform: str = "host"
    precision: Precision | None = None
    declared: OperatorDeclarations = NOTHING_DECLARED
    replay: bool = False
    energy: bool = True  # whether its devices have energy counters


INSTALLS = {
    "host": Install({CYCLES_H100: lambda _: Growth()}),
    "exec": Install({CYCLES_H100: lambda _: Growth(), SECOND_H100: TRAINS}, "slurm", BF16, TRAINED),
    "sidecar": Install({H100: TRAINS, SECOND_H100: TRAINS}, "kubernetes"),
    "daemonset": Install({H100: TRAINS, SECOND_H100: lambda _: Gap(GapReason.OTHER_JOB)}, "kubernetes"),
    "a100 without counters": Install(dict.fromkeys(EIGHT_BUSY, lambda it: Busy((it.end_ns - it.begin_ns) * 108 * 141 // 100))),
    "replay": Install({H100: TRAINS}, replay=True),
    "no energy counter": Install({H100: TRAINS}, energy=False),
}  # fmt: skip


class Watched(Story):
    """A run whose page is read once a minute, as by a scrape."""

    def __init__(self, folder: Path, name: str, install: Install) -> None:
        self.install, self.samples, self.at = install, dict[str, dict[int, float]](), f'job="flopsd",instance="{name}"'
        super().__init__(
            folder, tuple(install.plan), precision=install.precision, declared=install.declared, run=name,
            replay=install.replay, context=replace(CONTEXT, platform=install.platform, node=f"node of {name}"),
            policies=load_policies(),
        )  # fmt: skip
        self.begin_ns = self.clock.wall_ns()
        self.gauges = {
            device.uid: Gauges({Pipe.TENSOR_HMMA: 0.48} if device.evidence is Evidence.ACTIVITY else {}, 0.9, 1410)
            for device in self.devices
        }

    def minute(self, number: int) -> None:
        for _ in range(60 // STEP_SECONDS):
            self.clock.advance(STEP_SECONDS * NS_PER_S)
            second = Second(self.since_ns, self.clock.boottime_ns())
            readings: list[Reading] = self._readings(self.install.plan, second)
            if not self.install.energy:
                readings = [replace(reading, counters={}) for reading in readings]
            self.writer.take(
                Message("told", second.end_ns, self.devices, Sweep(tuple(readings), self.gauges), read_seconds=0.001)
            )
            self.since_ns = second.end_ns
        assert self.writer.checkpoint()
        now_ns = self.clock.wall_ns()
        sealed = (now_ns - self.begin_ns) // (SEAL_SECONDS * NS_PER_S) * SEAL_SECONDS * NS_PER_S
        sealed_ns = self.clock.boottime_ns() - (now_ns - self.begin_ns) + sealed if sealed else None
        state = JournalState(now_ns, SEAL_SECONDS * NS_PER_S, sealed_ns)
        page = Exposition().render(replace(self.writer.snapshot, journal_state=state), "")[0].decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                labels = ",".join([self.at, *(f"{key}={json.dumps(value)}" for key, value in sample.labels.items())])
                self.samples.setdefault(f"{sample.name}{{{labels}}}", {})[number] = sample.value
        self.samples.setdefault(f"up{{{self.at}}}", {})[number] = 1

    def world(self) -> World:
        """Its series for `promtool test rules`, where time begins at zero."""
        return {
            series: " ".join(
                "_" if (value := found.get(number)) is None else repr(value - self._epoch(series))
                for number in range(MINUTES + 1)
            )
            for series, found in self.samples.items()
        }

    def stamped(self, begin: int) -> Iterator[str]:
        """Its series as OpenMetrics, shifted to begin at a time in seconds."""
        for series, found in self.samples.items():
            moved = begin if self._epoch(series) else 0
            for number, value in found.items():
                yield f"{series} {value - self._epoch(series) + moved!r} {begin + number * 60}\n"

    def _epoch(self, series: str) -> float:
        clock = series.partition("{")[0].endswith(("_timestamp_seconds", "time_seconds"))
        return self.begin_ns / NS_PER_S if clock else 0


def pages(folder: Path, before: int, names: Collection[str]) -> tuple[str, dict[str, int]]:
    """Twelve minutes of each of these installs as OpenMetrics lines, and the last second of each. They follow one
    another, with pauses, up to the second `before`, so that each has Prometheus to itself."""
    text, ends, begin = list[str](), dict[str, int](), before - len(names) * (SHORT_MINUTES * 60 + PAUSE_SECONDS)
    for number, name in enumerate(names):
        stated = Watched(folder / f"install{number}", name, INSTALLS[name])
        for minute in range(1, SHORT_MINUTES + 1):
            stated.minute(minute)
        stated.kill()
        text += stated.stamped(begin)
        ends[name] = begin + SHORT_MINUTES * 60
        begin = ends[name] + PAUSE_SECONDS
    return "".join(text), ends
