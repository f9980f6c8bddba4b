"""The stand-in loaded into this process, on a clock that is stepped by hand; readings are folded into tallies as by
the writer, without journal and threads."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flopsd.core.figures import Figures
from flopsd.core.ledger.tally_records import tally_from_record, tally_record
from flopsd.core.meter import advance
from flopsd.core.model import DeviceUid, Gap, GapReason, Precision
from flopsd.core.rows import Rating, rows, total_of
from flopsd.core.tally import Tally
from flopsd.sources import Source
from flopsd.sources.calls import poll_source
from flopsd.testing import FakeClock
from tests.support.scenario import LIBRARY, Scenario
from tests.support.strategies import table

MAX_STEPS = 64


class SharedClock(FakeClock):
    """A fake clock that the stand-in reads too. It shares its wall-clock steps, since a driver's samples keep their
    timestamps."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._steps: list[int] = []  # for each step its time, and the wall clock's lead over the boot time before it
        path.write_bytes(bytes(8 * (3 + 2 * MAX_STEPS)))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 0)
        self._share()

    def advance(self, ns: int) -> None:
        super().advance(ns)
        self._share()

    def step_wall(self, ns: int) -> None:
        self._steps += [self._boottime_ns, self._wall_ns - self._boottime_ns]
        super().step_wall(ns)
        self._share()

    def _share(self) -> None:
        stated = (self._boottime_ns, self._wall_ns, len(self._steps) // 2, *self._steps)
        self._page[: 8 * len(stated)] = struct.pack(f"{len(stated)}q", *stated)


def _stop_nvml(standin: Path) -> None:
    """A source that is closed while a GPU does not answer, as on a busy machine, leaves NVML initialised, and only
    the first initialisation reads a scenario."""
    library = ctypes.CDLL(str(standin / LIBRARY), mode=ctypes.RTLD_GLOBAL)  # the soname that pynvml asks for
    while library.nvmlShutdown() == 0:
        pass


@contextmanager
def simulated(standin: Path, folder: Path, scenario: Scenario, clock: SharedClock) -> Iterator[None]:
    """Let pynvml in this process find the stand-in with `scenario`, whose time zero is the clock's current time."""
    scenario.epoch_ns = clock.boottime_ns()
    stated = {
        "NVML_STANDIN_SCENARIO": str(scenario.write(folder / "scenario.txt")),
        "NVML_STANDIN_CLOCK": str(folder / "clock"),
    }
    before = {name: os.environ.get(name) for name in stated}
    _stop_nvml(standin)
    os.environ.update(stated)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def total(tally: Tally, rating: Rating) -> Figures:
    return total_of(rows(tally, rating), tally)


def pass_time(source: Source, clock: FakeClock, ns: int) -> None:
    """Let `ns` pass. Meanwhile the source takes its samples when they are due, as in the daemon's reader."""
    until_ns = clock.boottime_ns() + ns
    while (due_ns := poll_source(source, until_ns)) is not None:
        clock.advance(max(0, due_ns - clock.boottime_ns()))
    clock.advance(until_ns - clock.boottime_ns())


class Fold:
    """The tallies of a source's devices. `die` keeps what kill -9 leaves: the journalled tallies, unchanged."""

    def __init__(self, source: Source, clock: FakeClock, tallies: Mapping[DeviceUid, Tally] | None = None) -> None:
        self.source, self.clock = source, clock
        self.tallies = dict(tallies or {})
        self.gaps: list[dict[DeviceUid, GapReason | None]] = []

    def read(self, ms: int, times: int = 1) -> Fold:
        for _ in range(times):
            pass_time(self.source, self.clock, ms * 1_000_000)
            stated: dict[DeviceUid, GapReason | None] = {}
            sweep = self.source.read()
            devices = {device.uid: device for device in self.source.devices()}
            for reading in sweep.readings:
                device = devices[reading.device]
                limits = table().limits(device, table().resolve(device))
                before = self.tallies.get(device.uid) or Tally(reading.begin_ns, reading.begin_ns)
                self.tallies[device.uid] = after = advance(before, reading, limits)
                grown = [r for r, ns in after.gap_ns.items() if ns > before.gap_ns.get(r, 0)]
                stated[device.uid] = reading.work.reason if isinstance(reading.work, Gap) else next(iter(grown), None)
            self.gaps.append(stated)
        return self

    def reasons(self, uid: DeviceUid) -> list[GapReason | None]:
        return [stated[uid] for stated in self.gaps if uid in stated]

    def figures(self, uid: DeviceUid, precision: Precision | None = None) -> Figures:
        device = next(device for device in self.source.devices() if device.uid == uid)
        part = table().resolve(device)
        return total(self.tallies[uid], Rating(part, table().limits(device, part), precision, table()))

    def journalled(self) -> dict[DeviceUid, Tally]:
        """The tallies as read back from the journal, to be continued."""
        records = {uid: json.loads(json.dumps(tally_record(tally))) for uid, tally in self.tallies.items()}
        return {uid: tally_from_record(record, self.tallies[uid].begin_ns) for uid, record in records.items()}
