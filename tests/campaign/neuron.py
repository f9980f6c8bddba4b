"""`python -m tests.campaign.neuron`: random Neuron machines under a neuron-monitor that truncates, repeats, reorders,
omits and dies; each ledger is compared with the truth.

The work of a process is known in closed form: each of its cores runs executions of one length and FLOP, one after
another. The monitor credits an execution once it has completed, as the runtime does.
"""

import argparse
import io
import json
import logging
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from flopsd.core.figures import figures_from
from flopsd.errors import SourceUnavailableError
from flopsd.sources import Source
from flopsd.sources.neuron.held_readings import HELD_NS
from flopsd.sources.neuron.monitor_process import LINE_MAX_BYTES, Failure, StreamItem, _read_on
from flopsd.sources.neuron.source import NeuronSource
from flopsd.sources.neuron.sysfs import Tree
from flopsd.system.clock import NS_PER_S
from tests.campaign.several_sources import Reader
from tests.campaign.simulation import new_run
from tests.support.runs import Run, verified
from tests.support.sim import SharedClock
from tests.support.strategies import table

MS = 1_000_000
# (device type, instance type, chips, physical cores of a chip, logical configurations)
MACHINES = (
    ("trainium1", "trn1.2xlarge", 1, 2, (1,)),
    ("trainium1", "trn1.32xlarge", 16, 2, (1,)),
    ("inferentia2", "inf2.24xlarge", 6, 2, (1,)),
    ("trainium2", "trn2.3xlarge", 1, 8, (1, 2)),
    ("trainium2", "trn2.48xlarge", 16, 8, (1, 2)),
)
LINE_FAULTS = (
    "cut", "swallow", "twice", "again", "swap", "late", "skip", "lose", "runtime_error", "group_error", "no_group",
    "null_group", "no_report", "nan", "negative", "huge", "huger", "text", "core_missing", "no_rate", "no_percent",
    "no_hardware", "null_hardware", "none_seen", "fewer_seen", "more_seen", "flap", "flap_lost", "no_period", "long_period", "blank", "frozen",
)  # fmt: skip
# A core that was never listed is not missed, and one omitted for longer than HELD_NS has to be taken for ended.
LEAVING_OUT = ("flap", "flap_lost", "core_missing")
LIFE_FAULTS = ("dies", "hangs", "reload")


@dataclass(frozen=True)
class Process:
    """A process with the runtime open on some cores, whose executions last `busy_ns`, each followed by `idle_ns`."""

    pid: int
    cores: tuple[int, ...]
    begin_ns: int
    end_ns: int
    busy_ns: int
    idle_ns: int
    flop: int

    def completed(self, begin_ns: int, end_ns: int) -> int:
        """Executions of one core that end in (begin, end]."""
        return self._ended(end_ns) - self._ended(begin_ns)

    def _ended(self, at_ns: int) -> int:
        passed = min(at_ns, self.end_ns) - self.begin_ns
        return max(0, (passed + self.idle_ns) // (self.busy_ns + self.idle_ns))

    def begun(self, begin_ns: int, end_ns: int) -> int:
        """Executions of one core that lie at least partly in [begin, end)."""
        every = self.busy_ns + self.idle_ns
        last = -(-(min(end_ns, self.end_ns) - self.begin_ns) // every)
        first = self._ended(begin_ns)
        return max(0, last - first)

    def busy(self, begin_ns: int, end_ns: int) -> int:
        def until(at_ns: int) -> int:
            passed = max(0, min(at_ns, self.end_ns) - self.begin_ns)
            whole, rest = divmod(passed, self.busy_ns + self.idle_ns)
            return whole * self.busy_ns + min(rest, self.busy_ns)

        return until(end_ns) - until(begin_ns)


@dataclass(frozen=True)
class Machine:
    name: str
    kind: str
    instance: str
    chips: int
    per_chip: int  # logical cores
    lnc: int
    processes: tuple[Process, ...]
    lists_all: bool  # whether every runtime lists every core, or only those in use
    rate_field: str
    seconds: int
    down_ms: tuple[int, ...]
    faults: tuple[tuple[int, int, str], ...] = ()  # begin, end (ms), kind
    first_ms: int = 300  # time until a monitor's first line
    every_ms: int = 1000
    period_ms: int = 1000  # of the monitor

    def fault(self, at_ns: int, kinds: Sequence[str]) -> str | None:
        at_ms = at_ns // MS
        return next((kind for from_ms, to_ms, kind in self.faults if from_ms <= at_ms < to_ms and kind in kinds), None)


def machine(seed: int, only: Sequence[str] = ()) -> Machine:
    draw = random.Random(seed)
    kind, instance, chips, physical, configs = draw.choice(MACHINES)
    lnc = draw.choice(configs)
    per_chip = physical // lnc
    seconds = draw.choice((8, 30, 90))
    # The highest rate of a logical core, dense.
    peak = {"trainium1": 191, "inferentia2": 190, "trainium2": 667}[kind] * 10**12 // per_chip
    processes, count = list[Process](), draw.choice((1, 1, 2, 3, 5))
    for at in range(count):
        cores = sorted(draw.sample(range(chips * per_chip), min(chips * per_chip, draw.choice((1, 2, 4, 32)))))
        begin_ms = draw.choice((-60_000, 0, draw.randrange(seconds * 1000)))
        length_ms = draw.choice((400, 1500, 7000, 10**9))
        busy_ms = draw.choice((1, 13, 140, 700, 3100))
        idle_ms = draw.choice((0, 0, busy_ms // 2, busy_ms * 2))
        share = draw.choice((0.2, 0.6, 0.95))
        flop = int(peak * share) * busy_ms // 1000 // count
        pid = 100 + at
        processes.append(
            Process(pid, tuple(cores), begin_ms * MS, (begin_ms + length_ms) * MS, busy_ms * MS, idle_ms * MS, flop)
        )
        if draw.random() < 0.4:  # the process is started again, with the same or another pid
            again_ms = begin_ms + length_ms + draw.choice((20, 600, 3000))
            pid = draw.choice((pid, pid + 1000))
            processes.append(
                Process(pid, tuple(cores), again_ms * MS, (again_ms + 10**9) * MS, busy_ms * MS, idle_ms * MS, flop)
            )
    kinds = only or (*LINE_FAULTS, *LIFE_FAULTS)
    begins = [draw.randrange(2000, seconds * 1000) for _ in range(draw.choice((0, 2, 4, 8, 12)))]
    faults = tuple((at, at + draw.choice((1000, 1000, 2500, 7000, 14_000)), draw.choice(kinds)) for at in begins)
    return Machine(
        f"neuron {seed}", kind, instance, chips, per_chip, lnc, tuple(processes), draw.random() < 0.5,
        draw.choice(("effective_flops", "effective_flops", "flops")), seconds,
        tuple(draw.choice((7, 480, 1500, 9000)) for _ in range(draw.choice((0, 0, 1, 3)))), faults,
        draw.choice((100, 300, 4000)), draw.choice((1000, 1000, 1000, 3000)), draw.choice((1000, 1000, 1000, 5000)),
    )  # fmt: skip


@dataclass
class World:
    """State shared by all starts of the monitor."""

    machine: Machine
    epoch_ns: int
    draw: random.Random
    frozen: bytes | None = None
    is_known: bool = False  # whether all chips were shown once: a chip never shown cannot be known to be missing


class Monitor:
    """One start of neuron-monitor, in place of MonitorProcess."""

    world: ClassVar[World]

    def __init__(self, _: str, clock: SharedClock) -> None:
        world = self._world = Monitor.world
        self._clock, self.version = clock, "2.1"
        now_ns = clock.boottime_ns() - world.epoch_ns
        self._died = self._hangs = False
        self._reload = world.machine.fault(now_ns, ("reload",)) is not None  # this start saw no device, and never will
        self._next_ns = now_ns + world.machine.first_ms * MS
        self._last: dict[Process, int] = {}
        self._shown: set[Process] = set()  # whose cores were listed in a line without a fault
        self._began_ns = now_ns
        self._items: list[StreamItem] = []
        self._held: list[bytes] = []
        self._before = b""
        self._left_out_ns: int | None = None  # the time since which something is omitted
        if world.machine.fault(now_ns, ("start_fails",)):
            raise SourceUnavailableError("it cannot be started")

    def wait(self, seconds: float) -> bool:
        until_ns = self._clock.boottime_ns() + round(seconds * NS_PER_S)
        while not self._items and self._clock.boottime_ns() < until_ns:
            self._clock.advance(50 * MS)
            self._print()
        return bool(self._items)

    def drain(self) -> list[StreamItem]:
        self._print()
        items, self._items = self._items, []
        return items

    def close(self, *, wait: bool = True) -> None:  # noqa: ARG002
        self._died = True

    def _print(self) -> None:
        now_ns = self._clock.boottime_ns() - self._world.epoch_ns
        while not self._died and not self._hangs and self._next_ns <= now_ns:
            at_ns = self._next_ns
            self._next_ns += self._world.machine.period_ms * MS + self._world.draw.randrange(-2 * MS, 3 * MS)
            self._step(at_ns)

    def _put(self, at_ns: int, data: bytes) -> None:
        """Put the data that a read of the pipe returns at a moment: any number of lines."""
        stream = io.BytesIO(data)
        while (line := stream.readline(LINE_MAX_BYTES)) != b"":
            if line.strip():
                what = _read_on(line, stream)
                self._items.append(StreamItem(self._world.epoch_ns + at_ns, what))

    def _step(self, at_ns: int) -> None:
        machine, draw = self._world.machine, self._world.draw
        life = machine.fault(at_ns, LIFE_FAULTS)
        if life == "hangs":
            self._hangs = True
            return
        if life == "dies" or (life == "reload" and not self._reload):
            if draw.random() < 0.5:
                self._put(at_ns, self._line(at_ns, None)[: draw.randrange(200)])
            self._items.append(StreamItem(self._world.epoch_ns + at_ns, Failure("it ended", ended=True)))
            self._died = True
            return
        kind = machine.fault(at_ns, LINE_FAULTS)
        if kind in LEAVING_OUT:
            self._left_out_ns = self._left_out_ns or at_ns
            here = {process for process in machine.processes if process.begin_ns <= at_ns < process.end_ns}
            if not here <= self._shown or at_ns - self._left_out_ns >= HELD_NS - 10 * MS:
                kind = None
        if kind not in LEAVING_OUT:
            self._left_out_ns = None
        if kind == "skip":
            return
        line = self._line(at_ns, kind)
        if kind == "frozen" and (self._world.frozen or b'"pid"' in line):
            self._world.frozen = line = self._world.frozen or line
        else:
            self._world.frozen = None
        if kind in ("swap", "late"):
            self._held.append(line)
            return
        lines = [line]
        if self._held:
            held, self._held = self._held, []
            lines = [line, *held] if draw.random() < 0.5 else [*held, line]
        if kind == "twice":
            lines.append(line)
        if kind == "again" and self._before:
            lines.insert(draw.randrange(2), self._before)
        if kind == "lose":
            lines = []
        if kind == "blank":
            lines.insert(0, b"\n\n  \n")
        if kind == "cut":
            lines = [one[: draw.randrange(len(one))] + b"\n" for one in lines]
        if kind == "swallow":  # half of the line, and the next one on the same line
            lines = [lines[0][: draw.randrange(len(lines[0]))]]
        self._before = line
        self._put(at_ns, b"".join(lines))

    def _line(self, at_ns: int, kind: str | None) -> bytes:
        machine = self._world.machine
        runtimes: list[dict[str, Any]] = []
        for process in machine.processes:
            if not process.begin_ns <= at_ns < process.end_ns:
                continue
            since_ns = self._last.get(process, max(process.begin_ns, self._began_ns))
            if kind == "flap" and process is machine.processes[0]:
                continue
            self._last[process] = at_ns
            if kind is None and not self._reload:
                self._shown.add(process)
            if kind == "flap_lost" and process is machine.processes[0]:
                continue
            runtimes.append(self._runtime(process, since_ns, max(1, at_ns - since_ns), kind))
        self._world.draw.shuffle(runtimes)
        count = machine.chips
        hardware: dict[str, Any] | None = {
            "neuron_device_type": machine.kind, "neuron_device_version": "v3", "neuroncore_version": "v2",
            "neuron_device_count": count, "neuron_device_memory_size": 34359738368,
            "neuroncore_per_device_count": machine.per_chip, "logical_neuroncore_config": machine.lnc, "error": "",
        }  # fmt: skip
        assert hardware is not None
        if kind == "none_seen" or self._reload:
            hardware = {"neuron_device_count": 0, "error": ""}
            runtimes = []
            self._shown.clear()  # after HELD_NS it is another process
        if kind == "fewer_seen" and self._world.is_known:
            hardware["neuron_device_count"] = max(1, count - 1)
            kept = hardware["neuron_device_count"] * machine.per_chip
            for runtime in runtimes:
                listed = runtime["report"]["neuroncore_counters"]["neuroncores_in_use"]
                runtime["report"]["neuroncore_counters"]["neuroncores_in_use"] = {
                    index: core for index, core in listed.items() if int(index) < kept
                }
        if kind == "more_seen":
            hardware["neuron_device_count"] = count + 1
        if kind == "null_hardware":
            hardware = None
        self._world.is_known |= kind is None and not self._reload
        document = {
            "neuron_runtime_data": runtimes or (None if self._world.draw.random() < 0.5 else []),
            "system_data": {"neuron_hw_counters": {"period": machine.period_ms / 1000, "error": ""}},
            "instance_info": {"instance_type": machine.instance, "instance_id": "i-0011223344556677a", "error": ""},
            "neuron_hardware_info": hardware,
        }
        if kind == "no_hardware":
            del document["neuron_hardware_info"]
        return json.dumps(document).encode() + b"\n"

    def _runtime(self, process: Process, since_ns: int, period_ns: int, kind: str | None) -> dict[str, Any]:
        machine, draw = self._world.machine, self._world.draw
        cores: dict[str, Any] = {}
        end_ns = since_ns + period_ns
        for core in range(machine.chips * machine.per_chip) if machine.lists_all else process.cores:
            flop = busy_ns = 0
            if core in process.cores:
                flop = process.completed(since_ns, end_ns) * process.flop
                busy_ns = process.busy(since_ns, end_ns)
            cores[str(core)] = {
                machine.rate_field: round(flop * NS_PER_S / period_ns),
                "neuroncore_utilization": round(100 * busy_ns / period_ns, 2),
            }
        group: Any = {"period": period_ns / NS_PER_S, "neuroncores_in_use": cores, "error": ""}
        report: Any = {"neuroncore_counters": group}
        one = str(draw.choice(process.cores))
        error = ""
        match kind:
            case "runtime_error":
                error = "rpc failed"
            case "group_error":
                group |= {"error": "cannot open", "neuroncores_in_use": draw.choice(({}, None, cores))}
            case "no_group":
                report = {}
            case "null_group":
                report = {"neuroncore_counters": None}
            case "no_report":
                report = None
            case "nan":
                cores[one][machine.rate_field] = float("nan")
            case "negative":
                cores[one][machine.rate_field] = -1
            case "huge":
                cores[one][machine.rate_field] = 10**29
            case "huger":
                cores[one][machine.rate_field] = 2**63
            case "text":
                cores[one][machine.rate_field] = str(cores[one][machine.rate_field])
            case "core_missing":
                del cores[one]
            case "no_rate":
                del cores[one][machine.rate_field]
            case "no_percent":
                del cores[one]["neuroncore_utilization"]
            case "no_period":
                group["period"] = draw.choice((0, None, -1, 0.0))
            case "long_period":
                group["period"] = 10**25
            case _:
                pass
        return {"pid": process.pid, "address": "", "neuron_runtime_tag": "t", "error": error, "report": report}


def judge(case: Machine, folder: Path, seed: int) -> list[str]:
    """The faults found in the ledger of a case."""
    clock, draw = SharedClock(folder / "clock"), random.Random(seed)
    Monitor.world = World(case, clock.boottime_ns(), random.Random(seed))
    with patch("flopsd.sources.neuron.source.MonitorProcess", Monitor):
        run = new_run(folder / "run", clock, "bf16", ("neuron",))
        _meter(case, run, clock, draw)
    ended_ns = clock.boottime_ns() - Monitor.world.epoch_ns
    run.finish()
    predicate = verified(run.seal(folder / "ledger.json")).statement["predicate"]
    return list(held_against(case, predicate, 0, ended_ns))


def _meter(case: Machine, run: Run, clock: SharedClock, draw: random.Random) -> None:
    def opener() -> Source:
        return NeuronSource(clock, table(), Tree("/nowhere", "/nowhere"), "/opt/monitor")

    begin_ns = clock.boottime_ns()
    end_ns = begin_ns + case.seconds * NS_PER_S
    lives = len(case.down_ms) + 1
    kills = [(begin_ns + case.seconds * NS_PER_S * at // lives, ms) for at, ms in enumerate(case.down_ms, 1)]
    reader = Reader("neuron", opener, [run], clock, case.every_ms)
    while clock.boottime_ns() < end_ns:
        if kills and clock.boottime_ns() >= kills[0][0]:
            reader.close()
            run.kill()
            clock.advance(kills.pop(0)[1] * MS)
            run.start()
            reader = Reader("neuron", opener, [run], clock, case.every_ms)
        clock.advance(max(0, reader.due_ns - clock.boottime_ns()))
        reader.read(draw)
        if draw.random() < 0.3:
            run.writer.tick()
    reader.close()


def held_against(case: Machine, predicate: dict[str, Any], begin_ns: int, end_ns: int) -> Iterator[str]:
    """Without the margin, and with no more work in a gap than the processes could do in its time: as exactly as the
    count."""
    devices = {device["uuid"]: device for device in predicate["devices"]}
    for chip in range(case.chips):
        least = most = flying = 0
        rate = 0.0
        for process in case.processes:
            cores = [core for core in process.cores if core // case.per_chip == chip]
            if process.end_ns - process.begin_ns > case.period_ms * MS:  # otherwise perhaps no report listed it
                least += len(cores) * process.completed(begin_ns, end_ns) * process.flop
            most += len(cores) * process.begun(begin_ns, end_ns) * process.flop
            flying += len(cores) * process.flop
            rate += len(cores) * process.flop / (process.busy_ns + process.idle_ns) * NS_PER_S
        # Of an execution that began before the run and ended in it, only a part belongs to the run.
        least = max(0, least - flying)
        device = devices.pop(f"neuron{chip}", None)
        if device is None:
            if predicate["totals"]["executed"]["high"] is not None:
                yield f"neuron{chip} is not in the ledger, which has an upper bound"
            continue
        stated = figures_from(device["executed"])
        counted = stated.measured_flop or 0
        if stated.high_flop is None:
            continue
        # Each restart may find an execution in flight, whose part before it no report has.
        gaps = round(float(device["gapSeconds"]) * rate) + flying * (1 + len(case.down_ms))
        if counted > most + most // 10**6 + 10**6:
            yield f"neuron{chip}: {counted:.4e} is counted, of {most:.4e} at most"
        if counted + gaps < least - least // 10**6 - 10**6:
            yield f"neuron{chip}: {counted:.4e} is counted and {gaps:.4e} may be missing, of {least:.4e} at least"
    if set(devices) - {"unknown"}:
        extra = {uid for uid, one in devices.items() if figures_from(one["executed"]).low_flop}
        if extra:
            yield f"{extra} are not here"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.neuron", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=(), help="faults (default all)")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    wrong = 0
    for seed in range(args.seed, args.seed + args.cases):
        case = machine(seed, args.only)
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = judge(case, Path(folder), seed)
            except Exception as fault:  # noqa: BLE001
                found = [f"{type(fault).__name__}: {fault}"]
        wrong += bool(found)
        if found:
            kinds = [(a, b, k) for a, b, k in sorted(case.faults)]
            sys.stdout.write(
                f"{case.name} ({case.kind} {case.chips}x{case.per_chip} {kinds}): {found[0]} ({len(found)})\n"
            )
            sys.stdout.flush()
    sys.stdout.write(f"{args.cases} machines: {wrong} wrong\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
