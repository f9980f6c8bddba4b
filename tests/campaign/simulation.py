"""One case, from the driver to the verified ledger: the real source, writer, journal and seal on a clock stepped by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

from flopsd.core.figures import sum_figures
from flopsd.core.ledger.merged_sums import figures_from
from flopsd.core.model import Device, DeviceUid, Figures, Pipe, Precision
from flopsd.core.part import Part
from flopsd.daemon.source_tracker import Message
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.source import NvmlSource
from flopsd.sources.ownership.rule import UNIDENTIFIED
from flopsd.system.clock import NS_PER_S
from tests.campaign.cases import Case
from tests.support.process import wait_until
from tests.support.runs import Run, verified
from tests.support.scenario import Gpu, Scenario
from tests.support.sim import SharedClock, pass_time, simulated
from tests.support.strategies import table

FORMATS = ("tf32", "bf16", "fp8")  # what the tensor work may be where nobody declared it
DECLARED = (None, "bf16")


@dataclass(frozen=True)
class Judged:
    """One device of one ledger: FLOP as it states them, and the extremes of what may be true."""

    case: str
    device: str
    declared: str | None
    quantity: str
    stated: Figures
    true: tuple[int, int]

    @property
    def holds(self) -> bool:
        """Whether every possible truth lies between low and high, one part in 10^12 for the rounding of floats."""
        least, most = self.true
        low, high = self.stated.low_flop, self.stated.high_flop
        return low <= least + least // 10**12 + 1 and (high is None or most - most // 10**12 - 1 <= high)


def judge(case: Case, standin: Path, folder: Path, seed: int = 0) -> list[Judged]:
    """The devices of the ledgers of a case, one for each declaration."""
    clock = SharedClock(folder / "clock")
    with simulated(standin, folder, Scenario(case.gpus), clock):
        begin_ns = clock.boottime_ns()
        runs = [_run(folder / str(at), clock, declared) for at, declared in enumerate(DECLARED)]
        _meter(case, runs, clock, random.Random(seed))
        end_ns = clock.boottime_ns()
    found: list[Judged] = []
    for declared, run in zip(DECLARED, runs, strict=True):
        run.finish()
        sealed = run.seal(folder / f"{declared}.json")
        predicate = verified(sealed).statement["predicate"]
        found += _held_against(case, declared, predicate, begin_ns - 1000 * NS_PER_S, end_ns - 1000 * NS_PER_S)
    return found


def _run(folder: Path, clock: SharedClock, declared: str | None) -> Run:
    precision = None if declared is None else Precision(((declared, 1_000_000),), "test")
    return Run(folder, devices=(), precision=precision, clock=clock, sources=("nvml",))


def _meter(case: Case, runs: list[Run], clock: SharedClock, draw: random.Random) -> None:
    """Read about once a second, as the daemon does, and kill the daemon when the case does."""
    with ExitStack() as stack:
        source = _open(clock, {}, stack)
        end_ns = clock.boottime_ns() + case.seconds * NS_PER_S
        lives = len(case.down_ms) + 1
        kills = [clock.boottime_ns() + case.seconds * NS_PER_S * at // lives for at in range(1, lives)]
        down_ms = list(case.down_ms)
        due_ns = clock.boottime_ns() + NS_PER_S // 5
        while clock.boottime_ns() < end_ns:
            if kills and clock.boottime_ns() >= kills[0]:
                kills.pop(0)
                source.close()
                origins = _origins(runs[0])
                for run in runs:
                    run.kill()
                clock.advance(down_ms.pop(0) * 1_000_000)
                for run in runs:
                    run.start()
                source, due_ns = _open(clock, origins, stack), clock.boottime_ns() + NS_PER_S // 5
            at_ns = due_ns + draw.randrange(-NS_PER_S // 5, NS_PER_S // 5)
            pass_time(source, clock, max(0, at_ns - clock.boottime_ns()))
            _read(source, runs, clock)
            due_ns += NS_PER_S
        if any("hang" in fault.kind for gpu in case.gpus for fault in gpu.faults):
            wait_until(lambda: _read(source, runs, clock) == len(source.devices()), "readings of all GPUs")


def _open(clock: SharedClock, origins: dict[DeviceUid, str], stack: ExitStack) -> NvmlSource:
    source = NvmlSource(pynvml, SourceSettings(clock, table(), origins=origins))
    stack.callback(source.close)
    return source


def _origins(run: Run) -> dict[DeviceUid, str]:
    rated = (one for device in run.writer.snapshot.devices for one in device.rated)
    return {one.uid: one.tally.totals.origin for one in rated if one.tally.totals is not None}


def _read(source: NvmlSource, runs: list[Run], clock: SharedClock) -> int:
    clock.advance(10_000_000)
    sweep = source.read()
    for run in runs:
        run.writer.take(Message("nvml", clock.boottime_ns(), source.devices(), sweep, read_seconds=0.0))
    return len(sweep.readings)


def _held_against(
    case: Case, declared: str | None, predicate: dict[str, Any], begin_ns: int, end_ns: int
) -> Iterator[Judged]:
    machine = Scenario(case.gpus)
    loads = {machine.uuid(at): gpu for at, gpu in enumerate(case.gpus)}
    placeholders = {f"nvml-index-{at}": machine.uuid(at) for at in range(len(case.gpus))}
    entries: dict[str, list[dict[str, Any]]] = {}
    for told in predicate["devices"]:  # a GPU that could not be identified at first has two
        entries.setdefault(placeholders.get(told["uuid"], told["uuid"]), []).append(told)
    for uid, parts in entries.items():
        told = parts[-1]
        if told["model"] == UNIDENTIFIED:
            assert told["executed"]["high"] is None
            continue
        gpu, sms = (loads[uid], told["smCount"]) if uid in loads else _slice(case, told["parent"], uid)
        part = table().resolve(_device(told))
        formats = FORMATS if declared is None else (declared,)
        worked = {pipe: gpu.sm_cycles(pipe, begin_ns, end_ns, sms) for pipe in Pipe if pipe is not Pipe.TENSOR}
        trues = sorted(int(sum(n * _rate(part, pipe, name) for pipe, n in worked.items())) for name in formats)
        integers = int(worked[Pipe.TENSOR_IMMA] * (part.integer_rates(Pipe.TENSOR_IMMA, None).measured or 0))
        for quantity, true in (("executed", (trues[0], trues[-1])), ("integerOperations", (integers, integers))):
            stated = sum_figures(figures_from(one[quantity]) for one in parts)
            yield Judged(case.name, uid[-4:], declared, quantity, stated, true)


def _slice(case: Case, parent: str, uid: str) -> tuple[Gpu, int]:
    whole = case.gpus[int(parent[-12:])]
    part = next(one for one in whole.slices if uid.endswith(f"{one.gi:03d}{one.ci:03d}"))
    return Gpu(whole.name, whole.pci, whole.cores, whole.arch, whole.cc, whole.max_mhz, True, part.segments), part.sms


def _device(told: dict[str, Any]) -> Device:
    return Device(told["uuid"], told["index"], "nvidia", told["model"], pci_device_id=int(told["pciDeviceId"], 16))


def _rate(part: Part, pipe: Pipe, name: str) -> int:
    """FLOP per SM-cycle: the table's conversion, which is not what is tried here."""
    return part.rates(pipe, Precision(((name, 1_000_000),), "truth")).measured or 0
