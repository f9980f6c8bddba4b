"""One case, from the driver to the verified ledger: the real source, writer, journal and seal on a clock stepped by
hand."""

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pynvml

from flopsd.core.figures import NO_FIGURES, Figures, figures_from, sum_figures
from flopsd.core.model import UNIDENTIFIED, Device, DeviceUid, Pipe, Precision
from flopsd.core.part import Part
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.sources import SourceSettings
from flopsd.sources.calls import before_last_read
from flopsd.sources.nvml.source import NvmlSource
from flopsd.system.clock import NS_PER_S
from tests.campaign.cases import FOREVER, Case
from tests.support.process import wait_until
from tests.support.runs import Run, verified
from tests.support.scenario import Gpu, Scenario
from tests.support.sim import SharedClock, pass_time, simulated
from tests.support.strategies import table

FORMATS = ("tf32", "bf16", "fp8")  # possible formats of the tensor work where none was declared
DECLARED = (None, "bf16")


@dataclass(frozen=True)
class Judged:
    """One device of one ledger: its FLOP figures, and the extremes of the possible truth."""

    case: str
    device: str
    declared: str | None
    quantity: str
    stated: Figures
    true: tuple[int, int]
    gpu: str  # the UUID of the whole GPU

    @property
    def holds(self) -> bool:
        """Whether every possible truth lies between low and high, within one part in 10^12 for the rounding of
        floats."""
        least, most = self.true
        low, high = self.stated.low_flop, self.stated.high_flop
        return low <= least + least // 10**12 + 1 and (high is None or most - most // 10**12 - 1 <= high)


def judge(case: Case, standin: Path, folder: Path, seed: int = 0) -> list[Judged]:
    """The devices of the ledgers of a case, one ledger for each declaration."""
    clock = SharedClock(folder / "clock")
    with simulated(standin, folder, Scenario(case.gpus), clock):
        begin_ns = clock.boottime_ns()
        runs = [new_run(folder / str(at), clock, declared) for at, declared in enumerate(DECLARED)]
        _meter(case, runs, clock, random.Random(seed))
        end_ns = clock.boottime_ns()
    found: list[Judged] = []
    for declared, run in zip(DECLARED, runs, strict=True):
        found += sealed_and_judged(case, declared, run, folder / f"{declared}.json", end_ns - begin_ns)[0]
    return found


def sealed_and_judged(
    case: Case, declared: str | None, run: Run, ledger: Path, duration_ns: int
) -> tuple[list[Judged], dict[str, Any]]:
    """The devices in the ledger of a run that began at the machine's epoch, and the ledger's figures."""
    run.finish()
    predicate = verified(run.seal(ledger)).statement["predicate"]
    held = _held_against(case, declared, predicate, 0, duration_ns)
    come_and_go = any(part.faults for gpu in case.gpus for part in gpu.slices) or "mig_flip" in {
        fault.kind for gpu in case.gpus for fault in gpu.faults
    }
    return list(_by_gpu(held) if come_and_go else held), predicate


def _by_gpu(found: Iterable[Judged]) -> Iterator[Judged]:
    """Group slices with their GPU: while no slice of a GPU is visible, its time is in the account of the whole GPU."""
    groups: dict[tuple[str, str], list[Judged]] = {}
    for one in found:
        groups.setdefault((one.gpu, one.quantity), []).append(one)
    for group in groups.values():
        true = sum(one.true[0] for one in group), sum(one.true[1] for one in group)
        yield replace(group[0], stated=sum_figures(one.stated for one in group), true=true)


def new_run(folder: Path, clock: SharedClock, declared: str | None, sources: tuple[str, ...] = ("nvml",)) -> Run:
    precision = None if declared is None else Precision(((declared, 1_000_000),), "test")
    return Run(folder, devices=(), precision=precision, clock=clock, sources=sources)


def _meter(case: Case, runs: list[Run], clock: SharedClock, draw: random.Random) -> None:
    """Read about once a second, as the daemon does, and kill the daemon when the case says so."""
    with ExitStack() as stack:
        source = _open(clock, {}, stack)
        end_ns = clock.boottime_ns() + case.seconds * NS_PER_S
        lives = len(case.down_ms) + 1
        kills = [clock.boottime_ns() + case.seconds * NS_PER_S * at // lives for at in range(1, lives)]
        down_ms = list(case.down_ms)
        begin_ns, due_ns = clock.boottime_ns(), clock.boottime_ns() + NS_PER_S // 5
        steps, sleeps = list(case.wall_steps_ms), list(case.sleeps_ms)
        while clock.boottime_ns() < end_ns:
            if kills and clock.boottime_ns() >= kills[0]:
                kills.pop(0)
                source.close()
                origins = origins_of(runs[0])
                for run in runs:
                    run.kill()
                    if case.is_damaged and len(kills) == len(case.down_ms) - 1:
                        _damage(run, draw)
                clock.advance(down_ms.pop(0) * 1_000_000)
                for run in runs:
                    run.start()
                source, due_ns = _open(clock, origins, stack), clock.boottime_ns() + NS_PER_S // 5
            passed_ms = (clock.boottime_ns() - begin_ns) // 1_000_000
            while steps and steps[0][0] <= passed_ms:
                clock.step_wall(steps.pop(0)[1] * 1_000_000)
            if sleeps and sleeps[0][0] <= passed_ms:
                clock.advance(sleeps.pop(0)[1] * 1_000_000)
                due_ns = max(due_ns, clock.boottime_ns())
            at_ns = due_ns + draw.randrange(-NS_PER_S // 5, NS_PER_S // 5)
            pass_time(source, clock, max(0, at_ns - clock.boottime_ns()))
            _read(source, runs, clock)
            due_ns += NS_PER_S
        before_last_read(source)
        _read(source, runs, clock)
        if any("hang" in fault.kind for gpu in case.gpus for fault in gpu.faults):
            wait_until(lambda: _read(source, runs, clock) == len(source.devices()), "readings of all GPUs")


def _damage(run: Run, draw: random.Random) -> None:
    """Truncate a file of the journal at any byte, change a byte, or lose everything after it."""
    path = draw.choice([run.state.journal, run.state.pending])
    content = path.read_bytes()
    if not content:
        return
    at = draw.randrange(len(content))
    rest = {"cut": b"", "flip": bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :], "zero": bytes(9)}
    path.write_bytes(content[:at] + rest[draw.choice(sorted(rest))])


def _open(clock: SharedClock, origins: dict[DeviceUid, str], stack: ExitStack) -> NvmlSource:
    source = NvmlSource(pynvml, SourceSettings(clock, table(), origins=origins))
    stack.callback(source.close)
    return source


def origins_of(run: Run) -> dict[DeviceUid, str]:
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
    entries: dict[str, list[dict[str, Any]]] = {}
    for given in predicate["devices"]:  # a GPU that could not be identified at first has two entries
        identified = given["uuid"].startswith("nvml-index-") and given["serial"] is not None
        entries.setdefault(machine.uuid(int(given["serial"][3:])) if identified else given["uuid"], []).append(given)
    owned = {
        machine.uuid(at): [(a * 1_000_000, min(b * 1_000_000, end_ns)) for a, b in spans if a * 1_000_000 < end_ns]
        for at, spans in enumerate(case.owned_ms)
    }
    is_open = any(given["model"] == UNIDENTIFIED for given in predicate["devices"])  # it may be any of the missing GPUs
    missing = {uid: spans for uid, spans in owned.items() if uid not in entries and not is_open}
    for uid, spans in missing.items():  # a GPU is found, and its owner queried, within twenty seconds
        long = [1 for a, b in spans if b - max(a, loads[uid].appears_ms * 1_000_000) > 25 * NS_PER_S]
        yield Judged(case.name, uid[-4:], declared, "executed", NO_FIGURES, (0, len(long)), uid)
    for uid, parts in entries.items():
        given = parts[-1]
        if given["model"] == UNIDENTIFIED:
            assert given["executed"]["high"] is None
            continue
        sm_count = given["smCount"] or given["smCountExpected"]
        gpu, sms = (loads[uid], sm_count) if uid in loads else _slice(case, given["parent"], uid)
        part = table().resolve(_device(given))
        formats = FORMATS if declared is None else (declared,)
        pipes = [pipe for pipe in Pipe if pipe is not Pipe.TENSOR]
        spans = owned.get(uid, [(begin_ns, end_ns)])
        counted = {pipe: sum(gpu.sm_cycles(pipe, a, b, sms) for a, b in spans) for pipe in pipes}
        # An absent GPU computes nothing. Its counters go on here, so that `low` may include that time.
        absent = [(0, gpu.appears_ms), *((f.from_ms, f.to_ms) for f in gpu.faults if f.kind == "gone")]
        switched = [(f.from_ms, f.to_ms) for f in gpu.faults if f.kind == "mig_flip"]
        absent += stretches_without(0, FOREVER, switched) if gpu.mig is (given["parent"] is None) else switched
        absent_ns = [(a * 1_000_000, b * 1_000_000) for a, b in absent]
        there = [part for a, b in spans for part in stretches_without(a, b, absent_ns)]
        worked = {pipe: sum(gpu.sm_cycles(pipe, a, b, sms) for a, b in there) for pipe in pipes}
        least, most = (
            [int(sum(n * _rate(part, pipe, name) for pipe, n in work.items())) for name in formats]
            for work in (counted, worked)
        )
        rate = part.integer_rates(Pipe.TENSOR_IMMA, None).measured or 0
        integers = int(counted[Pipe.TENSOR_IMMA] * rate), int(worked[Pipe.TENSOR_IMMA] * rate)
        for quantity, true in (("executed", (min(least), max(most))), ("integerOperations", integers)):
            stated = sum_figures(figures_from(one[quantity]) for one in parts)
            yield Judged(case.name, uid[-4:], declared, quantity, stated, true, given["parent"] or uid)


def stretches_without(begin_ns: int, end_ns: int, absent: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of [begin_ns, end_ns) outside these spans."""
    found = []
    for from_ns, to_ns in sorted(absent):
        if from_ns > begin_ns:
            found.append((begin_ns, min(from_ns, end_ns)))
        begin_ns = max(begin_ns, min(to_ns, end_ns))
    return [(a, b) for a, b in (*found, (begin_ns, end_ns)) if a < b]


def _slice(case: Case, parent: str, uid: str) -> tuple[Gpu, int]:
    whole = case.gpus[int(parent[-12:])]
    flips = (fault for fault in whole.faults if fault.kind == "mig_flip")
    part = next(one for one in whole.slices if uid.endswith(f"{one.gi:03d}{one.ci:03d}"))
    return replace(whole, segments=part.segments, faults=(*part.faults, *flips)), part.sms


def _device(given: dict[str, Any]) -> Device:
    pci = given["pciDeviceId"]
    return Device(
        given["uuid"], given["index"], "nvidia", given["model"], pci_device_id=None if pci is None else int(pci, 16)
    )


def _rate(part: Part, pipe: Pipe, name: str) -> int:
    """FLOP per SM-cycle by the table's conversion, which is not under test here."""
    return part.rates(pipe, Precision(((name, 1_000_000),), "truth")).measured or 0
