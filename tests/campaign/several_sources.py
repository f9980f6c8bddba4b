"""`python -m tests.campaign.several_sources`: GPUs that a dcgm-exporter shows, NVML, or both, each with faults of its
own, under a daemon that stalls and is killed, on a disk that fills up; each ledger is compared with the truth.

The sources are read as by the daemon's threads, one after another on a clock stepped by hand.
"""

import argparse
import logging
import random
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pynvml

from flopsd.core.model import UNIDENTIFIED, Device, DeviceUid
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.loop import REOPEN_SECONDS, SourceReader
from flopsd.errors import JournalError, OwnershipError
from flopsd.journal.journal import Journal
from flopsd.sources import Source, SourceSettings
from flopsd.sources.calls import before_last_read, poll_source
from flopsd.sources.dcgm.source import DcgmSource
from flopsd.sources.nvml.sm_clock import open_clocks
from flopsd.sources.nvml.source import NvmlSource
from flopsd.sources.ownership.filtered_source import FilteredSource
from flopsd.sources.ownership.rule import Ownership, OwnershipResult
from flopsd.system.clock import NS_PER_S
from tests.campaign.exporter import MS, ShownExporter
from tests.campaign.sick import KINDS, Sick
from tests.campaign.simulation import DECLARED, new_run, origins_of, sealed_and_judged
from tests.support.runs import Run
from tests.support.scenario import Scenario, compile_standin
from tests.support.sim import SharedClock, simulated
from tests.support.strategies import table


class Reader:
    """One source, read as by the daemon's thread but driven by hand."""

    def __init__(self, name: str, opener: Callable[[], Source], runs: list[Run], clock: SharedClock, ms: int) -> None:
        self.reader = SourceReader(name, opener, self._post, clock, ms / 1000, threading.Event())
        self._runs, self._clock, self._every_ns = runs, clock, ms * MS
        self.due_ns = clock.boottime_ns() + self._every_ns // 5

    @property
    def source(self) -> Source | None:
        return self.reader._source

    def read(self, draw: random.Random) -> None:
        """Read or open the source, and plan the next time."""
        self.reader._once(stopping=False)
        now_ns, every_ns = self._clock.boottime_ns(), self._every_ns
        if self.source is None:
            self.due_ns = now_ns + round(REOPEN_SECONDS * NS_PER_S)
            return
        self.due_ns += every_ns * max(1, -(-(now_ns - self.due_ns) // every_ns))
        self.due_ns = max(now_ns, self.due_ns + draw.randrange(-every_ns // 4, every_ns // 4))

    def close(self) -> None:
        if self.source is not None:
            self.source.close()

    def _post(self, message: Message) -> None:
        for run in self._runs:
            run.writer.take(message)


def judge(case: Sick, standin: Path, folder: Path, seed: int = 0) -> list[str]:
    """The faults found in the ledgers of a case, one ledger for each declaration."""
    clock = SharedClock(folder / "clock")
    with simulated(standin, folder, Scenario(case.gpus), clock):
        begin_ns = clock.boottime_ns()
        runs = [new_run(folder / str(at), clock, declared, case.sources) for at, declared in enumerate(DECLARED)]
        with full_disk(case, clock):
            shown = _meter(case, runs, clock, random.Random(seed))
        end_ns = clock.boottime_ns()
    found: list[str] = []
    for declared, run in zip(DECLARED, runs, strict=True):
        judged, predicate = sealed_and_judged(case, declared, run, folder / f"{declared}.json", end_ns - begin_ns)
        found += [
            f"{one.device}, {declared}, {one.quantity}: {one.true} is not in {one.stated}"
            for one in judged
            if not one.holds
        ]
        for device in predicate["devices"] if case.is_stated and case.sources == ("dcgm",) else ():
            active = {row["seconds"] for row in device["work"] if row["evidence"] == "activity"}
            if (claimed := max(map(float, active), default=0.0)) > 1.05 * shown.seen_seconds + 2:
                found.append(f"{device['uuid']}: {claimed} s of activity, of {shown.seen_seconds} s that were shown")
    return found


@contextmanager
def full_disk(case: Sick, clock: SharedClock) -> Iterator[None]:
    begin_ns, append, note = clock.boottime_ns(), Journal.append, Journal.note

    def refuse(call: Callable[..., Any], journal: Journal, *args: Any, **how: Any) -> Any:
        now_ms = (clock.boottime_ns() - begin_ns) // MS
        if any(from_ms <= now_ms < to_ms for from_ms, to_ms in case.full_ms):
            raise JournalError("no space left on the device")
        return call(journal, *args, **how)

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **how: refuse(call, *args, **how)

    with patch.object(Journal, "append", refusing(append)), patch.object(Journal, "note", refusing(note)):
        yield


def _meter(case: Sick, runs: list[Run], clock: SharedClock, draw: random.Random) -> ShownExporter:
    shown = ShownExporter(case.exporter, case.gpus, clock)
    readers = _readers(case, runs, clock, shown, {}, draw)
    begin_ns, lives = clock.boottime_ns(), len(case.down_ms) + 1
    end_ns = begin_ns + case.seconds * NS_PER_S
    events: list[tuple[int, str, Any]] = [
        *((case.seconds * 1000 * at // lives, "kill", ms) for at, ms in enumerate(case.down_ms, 1)),
        *((at, "step", ms) for at, ms in case.wall_steps_ms),
        *((at, "sleep", ms) for at, ms in case.sleeps_ms),
        *((at, "stall", how) for at, *how in case.stalls_ms),
    ]
    events.sort(key=lambda event: event[0])
    while clock.boottime_ns() < end_ns:
        while events and events[0][0] * MS <= clock.boottime_ns() - begin_ns:
            _, kind, how = events.pop(0)
            if kind == "kill":
                origins = origins_of(runs[0])
                for reader in readers:
                    reader.close()
                for run in runs:
                    run.kill()
                clock.advance(how * MS)
                for run in runs:
                    if case.reboots:
                        # The driver's clock goes on, as on a machine that was restored from a snapshot.
                        boot = run.context.boot_id.partition("+")[0]
                        run.context = replace(run.context, boot_id=f"{boot}+{clock.boottime_ns()}")
                    run.start()
                readers = _readers(case, runs, clock, shown, origins, draw)
            elif kind == "step":
                clock.step_wall(how * MS)
            elif kind == "sleep":
                clock.advance(how * MS)
            else:
                clock.advance(how[0] * MS)
                for run in runs if how[1] else ():
                    run.writer.tick()
        reader = min(readers, key=lambda one: one.due_ns)
        _pass([one.source for one in readers if one.source is not None], clock, reader.due_ns)
        reader.read(draw)
        if reader.source is None and draw.random() < 0.5:
            for run in runs:
                run.writer.tick()
    for reader in readers:
        if case.owned_ms and reader.source is not None:  # the ownership is queried once more
            before_last_read(reader.source)
            reader.read(draw)
        reader.close()
    return shown


def _pass(sources: list[Source], clock: SharedClock, until_ns: int) -> None:
    """Let time pass, with the polls that each source needs meanwhile."""
    while due := [ns for source in sources if (ns := poll_source(source, until_ns)) is not None]:
        clock.advance(max(0, min(due) - clock.boottime_ns()))
    clock.advance(max(0, until_ns - clock.boottime_ns()))


def _readers(
    case: Sick, runs: list[Run], clock: SharedClock, shown: ShownExporter, origins: Mapping[DeviceUid, str],
    draw: random.Random,
) -> list[Reader]:  # fmt: skip
    def nvml() -> Source:
        clock.advance(MS)
        source = NvmlSource(pynvml, SourceSettings(clock, table(), origins=origins))
        clock.advance(MS)
        return source

    def dcgm() -> Source:
        clocks = partial(open_clocks, clock, table()) if case.has_clocks else lambda _: None
        every_seconds, url = case.exporter.stated_ms / 1000, "http://exporter:9400/metrics"
        with patch("urllib.request.build_opener", lambda *_: shown):
            return DcgmSource(clock, table(), url, every_seconds, origins, clocks)

    openers: dict[str, Callable[[], Source]] = {"nvml": nvml, "dcgm": dcgm}

    def owned(opener: Callable[[], Source]) -> Source:
        rule = Turns(case, clock, shown.epoch_ns)
        return FilteredSource(opener(), rule, clock, interval_ns=case.every_ms * MS, draw_below=draw.randrange)

    return [
        Reader(name, partial(owned, openers[name]) if case.owned_ms else openers[name], runs, clock, case.every_ms)
        for name in case.sources
    ]


class Turns:
    """The current ownership of the GPUs of a case."""

    words, constant, lasting = "by turns", False, False

    def __init__(self, case: Sick, clock: SharedClock, begin_ns: int) -> None:
        self._case, self._clock, self._begin_ns = case, clock, begin_ns

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        now_ms = (self._clock.boottime_ns() - self._begin_ns) // MS
        if any(a <= now_ms < b for a, b in self._case.unasked_ms):
            raise OwnershipError("nobody tells")
        return OwnershipResult({device.uid: Ownership(self._is_ours(device, now_ms)) for device in devices})

    def _is_ours(self, device: Device, now_ms: int) -> bool | None:
        spans = None if device.model == UNIDENTIFIED else self._case.owned_ms[int(device.uid[-12:])]
        return None if spans is None else any(a <= now_ms < b for a, b in spans)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.several_sources", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=60, help="of each kind (default 60)")
    parser.add_argument("--kinds", nargs="*", choices=sorted(KINDS), default=sorted(KINDS))
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        standin = compile_standin(Path(folder) / "standin").parent
        for kind in args.kinds:
            for seed in range(args.seed, args.seed + args.cases):
                case, place = KINDS[kind](seed), Path(folder) / f"{kind}-{seed}"
                place.mkdir()
                found = judge(case, standin, place, seed)
                wrong += len(found)
                sys.stdout.write("".join(f"{case.name}: {one}\n" for one in found))
                sys.stdout.flush()
    sys.stdout.write(f"{args.cases * len(args.kinds)} machines with several sources: {wrong} violations\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
