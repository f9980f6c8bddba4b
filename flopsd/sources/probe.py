"""Finds out what each source would read here, device by device: each is opened, read for about 1.4 s and closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Device, DeviceUid
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import Source
from flopsd.sources.arbitration import Arbiter
from flopsd.sources.calls import close_source, devices_of, facts_of, read_source
from flopsd.system.clock import Clock

# Finding the scale of running counters takes two intervals, the longer one of 0.8 s, and work on the device.
_PAUSES_SECONDS = (0.0, 0.2, 1.0, 0.2)
ANSWER_SECONDS, CLOSE_SECONDS = 30.0, 2.0
_HANGS = "no answer within {:g} s: a call of its driver or server has not returned"
_HUNG = "look in dmesg for errors of the driver, and check that the server answers"


@dataclass(frozen=True, slots=True)
class ProbedSource:
    """One source: its facts if it could be opened, else why not and what to do."""

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    hint: str = ""
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """All sources asked, and every device with the source that would read it."""

    sources: tuple[ProbedSource, ...]
    devices: tuple[tuple[Device, str], ...]


class _Asked(threading.Thread):
    """Opens, reads and closes one source in a thread of its own: a source that hangs does not stop the others."""

    def __init__(self, name: str, opener: Callable[[str], Source], clock: Clock, stop: threading.Event) -> None:
        super().__init__(name=f"probe-{name}", daemon=True)
        self._opener, self._clock, self._stop_event = opener, clock, stop
        self.source = name
        self.found: tuple[ProbedSource, tuple[Device, ...]] | None = None

    def run(self) -> None:
        try:
            self.found = self._ask()
        except SourceError as fault:
            absent = isinstance(fault, SourceUnavailableError) and not fault.is_failure
            self.found = ProbedSource(self.source, fault=str(fault), hint=fault.hint, absent=absent), ()
        except BaseException as fault:  # noqa: BLE001 - a thread that ends silently would look like one that hangs
            self.found = ProbedSource(self.source, fault=f"source {self.source!r} failed: {fault!r}"), ()

    def _ask(self) -> tuple[ProbedSource, tuple[Device, ...]]:
        source = self._opener(self.source)
        try:
            for pause in _PAUSES_SECONDS:
                self._clock.wait(self._stop_event, pause)
                read_source(source, self._clock)
            return ProbedSource(self.source, facts_of(source)), devices_of(source)
        finally:
            close_source(source)


def probe(
    names: Sequence[str], opener: Callable[[str], Source], clock: Clock, answer_seconds: float = ANSWER_SECONDS
) -> Probe:
    """Probe all sources at once, each opened by its name. Never raises for a source's fault."""
    interrupted = threading.Event()
    asked = [_Asked(name, opener, clock, interrupted) for name in names]
    for one in asked:
        one.start()
    try:
        for one in asked:
            one.join(answer_seconds)
    except BaseException:
        interrupted.set()
        for one in asked:
            one.join(CLOSE_SECONDS)  # or the process that a source started would outlive this one
        raise
    arbiter = Arbiter(names)
    sources: list[ProbedSource] = []
    uids: dict[DeviceUid, None] = {}
    for one in asked:
        found, devices = one.found or (ProbedSource(one.source, fault=_HANGS.format(answer_seconds), hint=_HUNG), ())
        sources.append(found)
        arbiter.offer(one.source, devices)
        uids |= dict.fromkeys(device.uid for device in devices)
    best = [(offer[1], offer[0]) for uid in uids if (offer := arbiter.best(uid)) is not None]
    return Probe(tuple(sources), tuple(best))
