"""The seam to hardware: what a source is, how it is found by name, and how its faults are wrapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from flopsd.clock import Clock
from flopsd.core.model import Device, DeviceUid, Sweep
from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceError, SourceUnavailableError

GROUP = "flopsd.sources"
BUILT_IN = ("nvml", "dcgm", "neuron", "replay")
# Tried in this order by --source probe. A replay is never found by probing: it is no hardware.
PROBED = ("nvml", "dcgm", "neuron")


class Source(Protocol):
    """What flopsd asks of a source of readings. One thread calls it.

    `devices` may change between reads, the evidence in them too. `read` gives for every device one reading
    that begins where the last one ended, or none when there is nothing new yet; a device that cannot be
    read gives a Gap with its reason, and never stops the others. `flopsd.testing.contract` checks all of it.
    """

    name: str

    def devices(self) -> Sequence[Device]: ...

    def read(self) -> Sweep: ...

    def describe(self) -> Mapping[str, Any]:
        """Versions and facts for the ledger: text and ints only. A replay says so in `replay`."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What a source may know of the settings."""

    clock: Clock
    peaks: PeakTable
    options: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[DeviceUid, str] = field(
        default_factory=dict
    )  # of the totals last journalled on this boot; complete when `read` is called, not before


Opener = Callable[[SourceSettings], Source]


def open_source(name: str, settings: SourceSettings) -> Source:
    """Open a built-in source, or the one that a plug-in registers in the entry-point group `flopsd.sources`.

    Raises SourceUnavailableError: not registered, its library is missing, nothing to read here.
    """
    try:
        return _opener(name)(settings)
    except SourceUnavailableError:
        raise
    except Exception as fault:
        raise SourceUnavailableError(f"source {name!r} cannot be opened: {fault!r}") from fault


def _opener(name: str) -> Opener:
    if name in BUILT_IN:
        built_in: Opener = import_module(f"flopsd.sources.{name}").open_source
        return built_in
    from importlib.metadata import entry_points  # loaded only for plug-ins: it costs two megabytes

    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise SourceUnavailableError(
            f"there is no source named {name!r}", hint=f"sources here: {', '.join((*BUILT_IN, *sorted(points)))}"
        )
    plugged_in: Opener = points[name].load()
    return plugged_in


def read_source(source: Source) -> Sweep:
    """One read. Whatever the plug-in raises comes out as SourceError."""
    try:
        return source.read()
    except SourceError:
        raise
    except Exception as fault:
        raise SourceError(f"source {source.name!r} failed: {fault!r}") from fault
