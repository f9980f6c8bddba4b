"""Opens the sources for one job on this machine: those that --source names, or those that are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceUnavailableError
from flopsd.settings.load import config_dir
from flopsd.settings.platform import Context
from flopsd.settings.schema import Settings
from flopsd.sources import PROBED, Source, SourceSettings, open_source
from flopsd.sources.ownership.open import Job, own_if_asked


def open_sources(opening: SourceOpener, *, later: bool) -> dict[str, Callable[[], Source]]:
    """A function for each source that opens it. Unless `later`, the sources are opened now, so that a failure becomes
    an exit code; of sources that are only probed for, one has to open. Raises SourceUnavailableError."""
    probed = opening.settings.sources == ("probe",)
    openers: dict[str, Callable[[], Source]] = {}
    absent: list[SourceUnavailableError] = []
    for name in PROBED if probed else opening.settings.sources:
        openers[name] = partial(opening.open, name)
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
            "no accelerator was found: " + "; ".join(map(str, absent)),
            hint=f"{absent[0].hint}; `flopsd doctor` shows more; `flopsd run --source replay` replays a recording",
        )
    return openers


def cores_per_chip(context: Context, table: PeakTable) -> int | None:
    known = table.instances.get(context.instance_type or "")
    return None if known is None else table.parts[known.accelerator].cores_per_chip


def source_options(settings: Settings) -> dict[str, object]:
    """The settings that sources read, by their keys; None: the source's default."""
    return {
        "replay_file": settings.replay_file or str(config_dir() / "recordings" / "h100x2.jsonl"),
        "dcgm_url": settings.dcgm_url,
        "dcgm_interval_seconds": settings.dcgm_interval_seconds,
        "neuron_monitor": settings.neuron_monitor,
    }


@dataclass(frozen=True, slots=True)
class SourceOpener:
    """Opens sources by name, all with the same settings and job."""

    settings: Settings
    source: SourceSettings
    job: Job

    def open(self, name: str) -> Source:
        """A source by name, limited to this job's devices. Raises SourceUnavailableError."""
        try:
            source = open_source(name, self.source)
        except SourceUnavailableError as fault:
            # A missing source is a fault where it was named, not where it was only probed for.
            fault.absent = fault.absent and self.settings.sources == ("probe",)
            raise
        if name == "replay":
            return source  # recorded devices belong to no job
        return own_if_asked(source, self.settings.devices, self.job, self.source.clock)


@dataclass(slots=True)
class _OpenedSource:
    """Returns an already open source at the first call, and opens it again at each later one."""

    source: Source | None
    again: Callable[[], Source]

    def __call__(self) -> Source:
        source, self.source = self.source, None
        return source if source is not None else self.again()
