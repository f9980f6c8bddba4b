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


def probe(
    names: Sequence[str], opener: Callable[[str], Source], clock: Clock, answer_seconds: float = ANSWER_SECONDS
) -> Probe:
    """Probe all sources at once, each opened by its name. Never raises for a source's fault."""
    interrupted, answers = threading.Event(), dict[str, tuple[ProbedSource, tuple[Device, ...]]]()

    def ask(name: str) -> None:
        answers[name] = _ask(name, opener, clock, interrupted)

    threads = [threading.Thread(target=ask, args=(name,), name=f"probe-{name}", daemon=True) for name in names]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join(answer_seconds)  # a source that hangs does not stop the others
    except BaseException:
        interrupted.set()
        for thread in threads:
            thread.join(CLOSE_SECONDS)  # or the process that a source started would outlive this one
        raise
    arbiter = Arbiter(names)
    sources: list[ProbedSource] = []
    uids: dict[DeviceUid, None] = {}
    for name in names:
        hung = ProbedSource(name, fault=_HANGS.format(answer_seconds), hint=_HUNG)
        found, devices = answers.get(name, (hung, ()))
        sources.append(found)
        arbiter.offer(name, devices)
        uids |= dict.fromkeys(device.uid for device in devices)
    best = [(offer[1], offer[0]) for uid in uids if (offer := arbiter.best(uid)) is not None]
    return Probe(tuple(sources), tuple(best))


def _ask(
    name: str, opener: Callable[[str], Source], clock: Clock, interrupted: threading.Event
) -> tuple[ProbedSource, tuple[Device, ...]]:
    """Open, read and close one source; return what it shows."""
    try:
        source = opener(name)
        try:
            for pause in _PAUSES_SECONDS:
                clock.wait(interrupted, pause)
                read_source(source, clock)
            return ProbedSource(name, facts_of(source)), devices_of(source)
        finally:
            close_source(source)
    except SourceError as fault:
        absent = isinstance(fault, SourceUnavailableError) and not fault.is_failure
        return ProbedSource(name, fault=str(fault), hint=fault.hint, absent=absent), ()
    except BaseException as fault:  # noqa: BLE001 - a thread that ends silently would look like one that hangs
        return ProbedSource(name, fault=f"source {name!r} failed: {fault!r}"), ()
