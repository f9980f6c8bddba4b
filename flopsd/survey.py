"""What each source would give here, device by device: opened, read for a good second, closed again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flopsd.clock import Clock
from flopsd.core.model import Device, DeviceUid
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.roster import Roster
from flopsd.sources import Source, read_source

# The scale of running counters takes two intervals, the longer one of 0.8 s, and work on the device.
_UNSHOWN = ("library", "library_sha256")  # for the ledger, and too long for a line
_PAUSES_SECONDS = (0.2, 1.0, 0.2)


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One source: its facts when it could be opened, else why not and what to do."""

    name: str
    facts: str = ""
    fault: str = ""
    hint: str = ""
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """All sources asked, and every device with the source that would read it."""

    sources: tuple[Surveyed, ...]
    devices: tuple[tuple[Device, str], ...]


def survey(names: Sequence[str], opener: Callable[[str], Source], clock: Clock) -> Survey:
    """Ask all sources at once, each opened by its name. Never raises for a source's fault."""
    opened: dict[str, Source] = {}
    told: list[Surveyed] = []
    for name in names:
        try:
            opened[name] = opener(name)
        except SourceUnavailableError as fault:
            told.append(Surveyed(name, fault=str(fault), hint=fault.hint, absent=fault.absent))
    roster = Roster(names)
    broken: dict[str, SourceError] = {}
    try:
        for pause in (0.0, *_PAUSES_SECONDS):
            clock.wait(threading.Event(), pause)
            for name, source in opened.items():
                if name not in broken:
                    try:
                        read_source(source)
                    except SourceError as fault:
                        broken[name] = fault
        uids: dict[DeviceUid, None] = {}
        for name, source in opened.items():
            if name in broken:
                told.append(Surveyed(name, fault=str(broken[name]), hint=broken[name].hint))
                continue
            facts = ", ".join(
                f"{key} {value}" for key, value in source.describe().items() if value and key not in _UNSHOWN
            )
            told.append(Surveyed(name, facts=facts))
            devices = source.devices()
            roster.offer(name, devices)
            uids.update(dict.fromkeys(device.uid for device in devices))
    finally:
        for source in opened.values():
            source.close()
    best = [(offer[1], offer[0]) for uid in uids if (offer := roster.best(uid)) is not None]
    order = {name: place for place, name in enumerate(names)}
    return Survey(tuple(sorted(told, key=lambda one: order[one.name])), tuple(best))
