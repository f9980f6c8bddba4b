"""The seam to hardware: what a source is, how it is found by name, and how its faults are wrapped."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from flopsd.core.model import Device, DeviceUid, Sweep
from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources.validate import check_devices, check_facts, check_sweep
from flopsd.system.clock import Clock

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

log = logging.getLogger("flopsd")
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

    Raises SourceUnavailableError: not registered or by two, its library is missing, nothing to read here. A
    plug-in's own fault names the distribution it came with.
    """
    origin, opener = _opener(name)
    try:
        source = opener(settings)
    except (SourceUnavailableError, KeyboardInterrupt):
        raise
    except BaseException as fault:
        raise SourceUnavailableError(f"source {name!r}{origin} cannot be opened: {fault!r}") from fault
    if origin:
        _check(name, origin, source)
    return source


def _opener(name: str) -> tuple[str, Opener]:
    """How to open a source, and where a plug-in came from, in words; empty for a built-in one."""
    points = _registered() if name not in BUILT_IN or _any_plug_in() else []
    found = [point for point in points if point.name == name]
    origins = [_origin(point) for point in found]
    if name in BUILT_IN:
        if found:
            raise SourceUnavailableError(
                f"the name {name!r} is a built-in source's, and a plug-in{' and'.join(origins)} registers it too",
                hint=_uninstall(found) + ", or ask its authors for another name",
            )
        built_in: Opener = import_module(f"flopsd.sources.{name}").open_source
        return "", built_in
    if not found:
        known = sorted({*BUILT_IN, *(point.name for point in points)})
        raise SourceUnavailableError(f"there is no source named {name!r}", hint=f"sources here: {', '.join(known)}")
    if len(found) > 1:
        raise SourceUnavailableError(
            f"the source {name!r} is registered more than once:{' and'.join(origins)}",
            hint=_uninstall(found) + ": only one can be meant",
        )
    return origins[0], _load(found[0], origins[0])


def _load(point: EntryPoint, origin: str) -> Opener:
    import inspect

    try:
        opener = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        raise SourceUnavailableError(
            f"source {point.name!r}{origin} cannot be loaded: {fault!r}",
            hint="install it again with what it needs, or ask its authors",
        ) from fault
    try:
        inspect.signature(opener).bind(None)
    except (TypeError, ValueError) as fault:
        raise SourceUnavailableError(
            f"source {point.name!r}{origin}: {point.value} cannot be called with one argument, its SourceSettings: "
            f"{fault}",
            hint="it was made for another version of flopsd; ask its authors",
        ) from fault
    checked: Opener = opener
    return checked


def _check(name: str, origin: str, source: Any) -> None:
    """That what a plug-in opened is a source of that name: later it would be too late to say so clearly."""
    missing = [what for what in ("devices", "read", "describe", "close") if not callable(getattr(source, what, None))]
    if missing:
        raise SourceUnavailableError(
            f"source {name!r}{origin} gave {type(source).__name__}, which is no source: "
            f"{', '.join(missing)} cannot be called",
            hint="flopsd.sources.Source says what is asked of it; ask its authors",
        )
    if getattr(source, "name", None) != name:
        raise SourceUnavailableError(
            f"source {name!r}{origin} calls itself {getattr(source, 'name', None)!r}",
            hint="its name and its entry point's must be the same; ask its authors",
        )


def _registered() -> list[EntryPoint]:
    from importlib.metadata import entry_points  # loaded only for plug-ins: it costs two megabytes

    return list(entry_points(group=GROUP))


def _any_plug_in() -> bool:
    """Whether any distribution seems to register a source; cheaper than to ask which."""
    for folder in sys.path:
        for file in Path(folder).glob("*-info/entry_points.txt"):
            try:
                if f"[{GROUP}]" in file.read_text(encoding="utf-8", errors="replace"):
                    return True
            except OSError:
                continue  # not readable, or gone again while pip works
    return False


def _origin(point: EntryPoint) -> str:
    return " of an unnamed distribution" if point.dist is None else f" of {point.dist.name} {point.dist.version}"


def _uninstall(points: Sequence[EntryPoint]) -> str:
    return "pip uninstall " + " or ".join(sorted({point.dist.name for point in points if point.dist is not None}))


def read_source(source: Source, clock: Clock) -> Sweep:
    """One read, checked: see `seam`. Raises SourceError."""

    def read() -> Sweep:
        sweep = source.read()
        return _fit(source, sweep, lambda: check_sweep(sweep, clock.boottime_ns()))

    return ask(source, read)


def devices_of(source: Source) -> tuple[Device, ...]:
    """The devices that are listed now, checked. Raises SourceError."""

    def devices() -> tuple[Device, ...]:
        listed = tuple(source.devices())
        return _fit(source, listed, lambda: check_devices(listed))

    return ask(source, devices)


def facts_of(source: Source) -> Mapping[str, Any]:
    """What the source says of itself, checked. Raises SourceError."""

    def facts() -> Mapping[str, Any]:
        told = source.describe()
        return _fit(source, told, lambda: check_facts(told))

    return ask(source, facts)


def close_source(source: Source) -> None:
    """Close it. A fault in that is said and no more: all that it read is told already."""
    try:
        ask(source, source.close)
    except SourceError as fault:
        log.warning("%s", fault)


def ask(source: Source, call: Callable[[], T]) -> T:
    """What one call to a source gives. What the plug-in raises, an exit and a panic too, comes out as SourceError."""
    try:
        return call()
    except (SourceError, KeyboardInterrupt):
        raise
    except BaseException as fault:
        raise SourceError(f"source {source.name!r} failed: {fault!r}") from fault


def _fit(source: Source, told: T, check: Callable[[], None]) -> T:
    try:
        check()
    except ValueError as fault:
        raise SourceError(
            f"source {source.name!r}: {fault}",
            hint="nothing of this is counted; it is a fault of the source, and its authors see it in "
            "flopsd.testing.SourceContract",
        ) from fault
    return told
