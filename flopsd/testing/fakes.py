"""A manually stepped clock and a scripted source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flopsd.core.model import Device, Sweep
from flopsd.errors import SourceError
from flopsd.system.clock import NS_PER_S


class FakeClock:
    """A clock that moves only when a test advances it. Waiting advances it by the whole waiting time."""

    def __init__(self, boottime_ns: int = 1000 * NS_PER_S, wall_ns: int = 1_790_000_000 * NS_PER_S) -> None:
        self._boottime_ns, self._wall_ns = boottime_ns, wall_ns

    def boottime_ns(self) -> int:
        return self._boottime_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.advance(round(max(0.0, seconds) * NS_PER_S))
        return event.is_set()

    def advance(self, ns: int) -> None:
        """Advance both clocks by `ns`."""
        self._boottime_ns += ns
        self._wall_ns += ns

    def step_wall(self, ns: int) -> None:
        """Step only the wall clock, as an operator or NTP does."""
        self._wall_ns += ns


class ScriptedSource:
    """A source that returns what a function returns."""

    def __init__(self, name: str, devices: Sequence[Device], script: Callable[[], Sweep]) -> None:
        self.name = name
        self._devices, self._script = devices, script
        self.closed = False

    def devices(self) -> Sequence[Device]:
        return self._devices

    def read(self) -> Sweep:
        if self.closed:
            raise SourceError(f"source {self.name!r} is closed")
        return self._script()

    def describe(self) -> Mapping[str, Any]:
        return {"replay": None}

    def close(self) -> None:
        self.closed = True
