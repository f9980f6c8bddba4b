"""The stand-in loaded into this process, on a clock that is stepped by hand."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flopsd.testing import FakeClock
from tests.support.scenario import LIBRARY, Scenario


class SharedClock(FakeClock):
    """A fake clock that the stand-in reads too."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 16)
        self._share()

    def advance(self, ns: int) -> None:
        super().advance(ns)
        self._share()

    def step_wall(self, ns: int) -> None:
        super().step_wall(ns)
        self._share()

    def _share(self) -> None:
        self._page[:16] = struct.pack("qq", self._boottime_ns, self._wall_ns)


@contextmanager
def simulated(standin: Path, folder: Path, scenario: Scenario, clock: SharedClock) -> Iterator[None]:
    """Let pynvml in this process find the stand-in with `scenario`, whose time zero is the clock's now."""
    scenario.epoch_ns = clock.boottime_ns()
    told = {
        "NVML_STANDIN_SCENARIO": str(scenario.write(folder / "scenario.txt")),
        "NVML_STANDIN_CLOCK": str(folder / "clock"),
    }
    before = {name: os.environ.get(name) for name in told}
    ctypes.CDLL(str(standin / LIBRARY), mode=ctypes.RTLD_GLOBAL)  # its soname is what pynvml asks the loader for
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
