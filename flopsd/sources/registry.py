"""Finds built-in and plug-in sources by name, and collects what they declare."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from flopsd.errors import SourceUnavailableError
from flopsd.settings.schema import SETTINGS, Setting
from flopsd.settings.suggestions import did_you_mean
from flopsd.sources import Source, SourceInfo, SourceSettings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "flopsd.sources"
BUILT_IN = ("nvml", "dcgm", "neuron", "replay")  # probed in this order


class KnownSources(NamedTuple):
    """All installed sources: what they declare, their options as settings, and why plug-ins are unusable."""

    infos: tuple[SourceInfo, ...]
    settings: tuple[Setting, ...]
    faults: tuple[SourceUnavailableError, ...] = ()


def known_sources() -> KnownSources:
    """Collect what all sources declare. A plug-in that cannot be used is a fault, and its options are unknown."""
    infos, faults = [built_in(name) for name in BUILT_IN], []
    settings = [setting for info in infos for setting in settings_of(info)]
    # By name, so that which one of two conflicting plug-ins is refused does not depend on the order of folders.
    for point in sorted(_registered() if _any_plug_in() else [], key=lambda point: point.name):
        try:
            info = find(point.name)
            more = settings_of(info)
            _require_free(point, more, (*SETTINGS, *settings))
        except SourceUnavailableError as fault:
            faults.append(fault)
            continue
        infos.append(info)
        settings += more
    return KnownSources(tuple(infos), tuple(settings), tuple(faults))


def settings_of(info: SourceInfo) -> tuple[Setting, ...]:
    return tuple(
        Setting(
            key=info.key(option),
            metavar=option.metavar,
            help=f"{option.help} (default: {option.default_text or option.default})",
            parse=option.parse,
        )
        for option in info.options
    )


def probed() -> tuple[str, ...]:
    return tuple(name for name in BUILT_IN if built_in(name).hardware)


def built_in(name: str) -> SourceInfo:
    info: SourceInfo = import_module(f"flopsd.sources.{name}").SOURCE
    return info


def find(name: str) -> SourceInfo:
    """Return what a source declares, whether built in or registered by a plug-in in the entry-point group. Raises
    SourceUnavailableError, which names the distribution: not registered, registered twice, or a plug-in that cannot be
    used."""
    return find_with_origin(name)[0]


def open_source(name: str, settings: SourceSettings, found: tuple[SourceInfo, str] | None = None) -> Source:
    """Open a source; options that `settings` leaves out get their defaults. `found`: what `find_with_origin` returned.
    Raises SourceUnavailableError: as `find`, or a package is missing, or nothing can be read here."""
    info, origin = found or find_with_origin(name)
    for package in info.packages:
        try:
            import_module(package.module)
        except ImportError as fault:
            raise SourceUnavailableError(
                f"the Python package {package.name} is not installed",
                hint=f"pip install '{package.install}'",
                absent=True,
            ) from fault
    options = {**info.options_from({}), **settings.options}
    try:
        source = info.open(replace(settings, options=options))
    except SourceUnavailableError as fault:
        fault.hint = fault.hint or info.remedy
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        raise SourceUnavailableError(f"source {name!r}{origin} cannot be opened: {fault!r}") from fault
    if origin:
        _require_source(name, origin, source)
    return source


def find_with_origin(name: str) -> tuple[SourceInfo, str]:
    """As `find`, and also return where a plug-in came from, for messages; "" for a built-in source."""
    points = _registered() if name not in BUILT_IN or _any_plug_in() else []
    found = [point for point in points if point.name == name]
    origins = [_origin(point) for point in found]
    if name in BUILT_IN:
        if found:
            raise SourceUnavailableError(
                f"the name {name!r} is a built-in source's, and a plug-in{' and'.join(origins)} registers it too",
                hint=_uninstall(found) + ", or ask its authors for another name",
            )
        return built_in(name), ""
    if not found:
        known = sorted({*BUILT_IN, *(point.name for point in points)})
        raise SourceUnavailableError(
            f"there is no source named {name!r}{did_you_mean(name, known)}", hint=f"sources here: {', '.join(known)}"
        )
    if len(found) > 1:
        raise SourceUnavailableError(
            f"the source {name!r} is registered more than once:{' and'.join(origins)}",
            hint=_uninstall(found) + ": only one may have this name",
        )
    return _load(found[0], origins[0]), origins[0]


def _load(point: EntryPoint, origin: str) -> SourceInfo:
    import inspect

    try:
        info = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        raise SourceUnavailableError(
            f"source {point.name!r}{origin} cannot be loaded: {fault!r}",
            hint="it may be written for another version of flopsd, or lack a package; reinstall it or ask its authors",
        ) from fault
    what = f"source {point.name!r}{origin}"
    if not isinstance(info, SourceInfo):
        if callable(info):
            raise SourceUnavailableError(
                f"{what} is written for an earlier version of flopsd: its entry point {point.value} is a function that "
                "opens the source; flopsd now expects a flopsd.sources.SourceInfo there, which declares the source's "
                "options, evidence and devices, and names that function as `open`",
                hint=f"install a newer {_distribution(point)}, or ask its authors; docs/plugins.md shows the change",
            )
        raise SourceUnavailableError(
            f"{what}: its entry point {point.value} is a {type(info).__name__}, not a flopsd.sources.SourceInfo",
            hint="ask its authors; docs/plugins.md shows what is expected",
        )
    if info.name != point.name:
        raise SourceUnavailableError(
            f"{what} declares the name {info.name!r}",
            hint="its name and its entry point's must be the same; ask its authors",
        )
    try:
        inspect.signature(info.open).bind(None)
    except (TypeError, ValueError) as fault:
        raise SourceUnavailableError(
            f"{what}: its `open` cannot be called with one argument, its SourceSettings: {fault}",
            hint="it may be written for another version of flopsd; ask its authors",
        ) from fault
    return info


def _require_source(name: str, origin: str, source: Any) -> None:
    """Raises SourceUnavailableError if a plug-in opened no source of that name: a later error would be less clear."""
    missing = [what for what in ("devices", "read", "describe", "close") if not callable(getattr(source, what, None))]
    if missing:
        raise SourceUnavailableError(
            f"source {name!r}{origin} gave {type(source).__name__}, which is not a source: "
            f"{', '.join(missing)} cannot be called",
            hint="flopsd.sources.Source is what is expected; ask its authors",
        )
    if getattr(source, "name", None) != name:
        raise SourceUnavailableError(
            f"source {name!r}{origin} calls itself {getattr(source, 'name', None)!r}",
            hint="its name and its entry point's must be the same; ask its authors",
        )


def _require_free(point: EntryPoint, settings: Iterable[Setting], taken: Sequence[Setting]) -> None:
    """Raises SourceUnavailableError if an option has the name of another setting."""
    names = {name for setting in taken for name in (setting.key, setting.flag, setting.variable)}
    for setting in settings:
        if names & {setting.key, setting.flag, setting.variable}:
            raise SourceUnavailableError(
                f"source {point.name!r}{_origin(point)} declares the option {setting.key}, the name of another setting",
                hint=f"ask the authors of {_distribution(point)} to rename the option or the source",
            )


def _registered() -> list[EntryPoint]:
    from importlib.metadata import entry_points  # imported only for plug-ins: it takes two megabytes

    return list(entry_points(group=GROUP))


def _any_plug_in() -> bool:
    """Whether any distribution seems to register a source; cheaper than asking which."""
    header = f"[{GROUP}]".encode()
    for folder in sys.path:
        try:
            packages = [name for name in os.listdir(folder or ".") if name.endswith("-info")]
        except OSError:
            continue
        for package in packages:
            try:
                with open(os.path.join(folder, package, "entry_points.txt"), "rb") as file:
                    if header in file.read():
                        return True
            except OSError:
                continue  # the package has none, it is not readable, or pip has just removed it
    return False


def _distribution(point: EntryPoint) -> str:
    return "its distribution" if point.dist is None else str(point.dist.name)


def _origin(point: EntryPoint) -> str:
    return " of an unnamed distribution" if point.dist is None else f" of {point.dist.name} {point.dist.version}"


def _uninstall(points: Sequence[EntryPoint]) -> str:
    return "pip uninstall " + " or ".join(sorted({point.dist.name for point in points if point.dist is not None}))
