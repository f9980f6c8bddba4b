"""Opens the sources of this machine for one job: those that were named, or those that are here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceUnavailableError
from flopsd.settings.load import config_dir
from flopsd.settings.platform import Context
from flopsd.settings.schema import Settings
from flopsd.sources import PROBED, Source, SourceSettings, open_source
from flopsd.sources.ownership.open import Job, own_if_asked


def open_sources(opening: SourceOpener, *, later: bool) -> dict[str, Callable[[], Source]]:
    """How to open each source. Unless that is left for `later`, they are opened here and now, so that a failure is
    an exit code; of those that are only probed for, one is enough."""
    probed = opening.settings.sources == ("probe",)
    openers: dict[str, Callable[[], Source]] = {}
    absent: list[SourceUnavailableError] = []
    for name in PROBED if probed else opening.settings.sources:
        openers[name] = _OpenerThread(name, opening)
        if later:
            continue
        try:
            openers[name] = _OpenedSource(openers[name](), openers[name])
        except SourceUnavailableError as fault:
            if not (probed and fault.absent):
                raise
            absent.append(fault)
    if not later and len(absent) == len(openers):
        raise SourceUnavailableError(
            "no accelerator is found here: " + "; ".join(map(str, absent)),
            hint=f"{absent[0].hint}; `flopsd doctor` says more, `flopsd run --source replay` shows how it would look",
        )
    return openers


def cores_per_chip(context: Context, table: PeakTable) -> int | None:
    known = table.instances.get(context.instance_type or "")
    return None if known is None else table.parts[known.accelerator].cores_per_chip


def source_options(settings: Settings) -> dict[str, object]:
    """What sources may know of the settings, by their keys; None is a source's own default."""
    return {
        "replay_file": settings.replay_file or str(config_dir() / "recordings" / "h100x2.jsonl"),
        "dcgm_url": settings.dcgm_url,
        "dcgm_interval_seconds": settings.dcgm_interval_seconds,
        "neuron_monitor": settings.neuron_monitor,
    }


@dataclass(frozen=True, slots=True)
class SourceOpener:
    """What every source is opened with."""

    settings: Settings
    source: SourceSettings
    job: Job

    def open(self, name: str) -> Source:
        """A source by name, with this job's devices only. Raises SourceUnavailableError."""
        try:
            source = open_source(name, self.source)
        except SourceUnavailableError as fault:
            # What was asked for by name and is not here is a fault; what was only probed for is not.
            fault.absent = fault.absent and self.settings.sources == ("probe",)
            raise
        if name == "replay":
            return source  # its devices are nobody's
        return own_if_asked(source, self.settings.devices, self.job, self.source.clock)


@dataclass(slots=True)
class _OpenerThread:
    """Opens one source by name, as often as it is asked."""

    name: str
    opening: SourceOpener

    def __call__(self) -> Source:
        return self.opening.open(self.name)


@dataclass(slots=True)
class _OpenedSource:
    """Gives an already open source once, and opens anew after that."""

    source: Source | None
    again: Callable[[], Source]

    def __call__(self) -> Source:
        source, self.source = self.source, None
        return source if source is not None else self.again()
