"""What each source would give here, device by device: each is opened, read for about 1.4 s and closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopsd.core.model import Device
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import Source
from flopsd.sources.arbitration import Arbiter
from flopsd.sources.calls import close_source, devices_of, facts_of, read_source
from flopsd.system.clock import Clock

# The scale of running counters takes two intervals, the longer one of 0.8 s, and work on the device.
_PAUSES_SECONDS = (0.0, 0.2, 1.0, 0.2)


@dataclass(frozen=True, slots=True)
class ProbedSource:
    """One source: its facts when it could be opened, else why not and what to do."""

    name: str
    facts: str = ""
    fault: str = ""
    hint: str = ""
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """All sources asked, and every device with the source that would read it."""

    sources: tuple[ProbedSource, ...]
    devices: tuple[tuple[Device, str], ...]


def probe(names: Sequence[str], opener: Callable[[str], Source], clock: Clock) -> Probe:
    """Ask all sources at once, each opened by its name. Never raises for a source's fault."""
    opened: dict[str, Source] = {}
    found: list[ProbedSource] = []
    for name in names:
        try:
            opened[name] = opener(name)
        except SourceError as fault:
            absent = isinstance(fault, SourceUnavailableError) and fault.absent
            found.append(ProbedSource(name, fault=str(fault), hint=fault.hint, absent=absent))
    arbiter = Arbiter(names)
    broken: dict[str, SourceError] = {}
    facts: dict[str, str] = {}
    listed: dict[str, tuple[Device, ...]] = {}
    try:
        for at, pause in enumerate(_PAUSES_SECONDS, start=1):
            clock.wait(threading.Event(), pause)
            for name, source in opened.items():
                if name in broken:
                    continue
                try:
                    read_source(source, clock)
                    if at == len(_PAUSES_SECONDS):
                        facts[name] = _as_text(facts_of(source))
                        listed[name] = devices_of(source)
                except SourceError as fault:
                    broken[name] = fault
    finally:
        for source in opened.values():
            close_source(source)
    found += [ProbedSource(name, fault=str(fault), hint=fault.hint) for name, fault in broken.items()]
    found += [ProbedSource(name, facts=facts[name]) for name in listed]
    for name, devices in listed.items():
        arbiter.offer(name, devices)
    uids = dict.fromkeys(device.uid for devices in listed.values() for device in devices)
    best = [(offer[1], offer[0]) for uid in uids if (offer := arbiter.best(uid)) is not None]
    return Probe(tuple(sorted(found, key=lambda one: names.index(one.name))), tuple(best))


def _as_text(facts: Mapping[str, Any]) -> str:
    recording = facts.get("replay")
    if recording:
        return f"plays {recording.get('recording', 'a recording')}: {recording.get('origin', 'origin unknown')}"
    too_long = ("library", "library_sha256")  # they are for the ledger
    return ", ".join(f"{key} {value}" for key, value in facts.items() if value and key not in too_long)
