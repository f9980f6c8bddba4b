"""Opens the sources for one job on this machine: those that --source names, or those that are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from functools import partial

from flopsd.core.dataclass import dataclass
from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceUnavailableError
from flopsd.settings.platform import Context
from flopsd.settings.schema import Settings
from flopsd.sources import Source, SourceInfo, SourceSettings
from flopsd.sources.ownership.open import limited_to_job
from flopsd.sources.ownership.rule import Job
from flopsd.sources.registry import find_with_origin, open_source, probed


def open_sources(opening: SourceOpener, *, later: bool) -> dict[str, Callable[[], Source]]:
    """Return a function for each source that opens it. Unless `later`, open the sources now, so that a failure becomes
    an exit code; of sources that are only probed for, one has to open. Raises SourceUnavailableError."""
    is_probe = opening.settings.sources == ("probe",)
    openers: dict[str, Callable[[], Source]] = {}
    absent: list[SourceUnavailableError] = []
    for name in probed() if is_probe else opening.settings.sources:
        openers[name] = partial(opening.open, name)
        if later:
            continue
        try:
            openers[name] = _first(openers[name](), openers[name])
        except SourceUnavailableError as fault:
            if fault.is_failure:
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


@dataclass(frozen=True, slots=True)
class SourceOpener:
    """Opens sources by name, all with the same settings and job."""

    settings: Settings
    source: SourceSettings
    job: Job
    found: dict[str, tuple[SourceInfo, str]] = field(default_factory=dict)  # looking for a plug-in reads many files

    def open(self, name: str) -> Source:
        """Open a source by name, limited to this job's devices. Raises SourceUnavailableError."""
        try:
            if name not in self.found:
                self.found[name] = find_with_origin(name)
            info, _ = self.found[name]
            options = info.options_from(self.settings.source_options)
            source = open_source(name, replace(self.source, options=options), self.found[name])
        except SourceUnavailableError as fault:
            fault.named = self.settings.sources != ("probe",)
            raise
        if not info.hardware:
            return source  # recorded devices belong to no job
        return limited_to_job(
            source, info, self.settings.devices, self.job, self.source.clock, self.settings.interval_seconds
        )


def _first(source: Source, again: Callable[[], Source]) -> Callable[[], Source]:
    """Return a function that returns `source`, which is open, at the first call, and opens it `again` at later ones."""
    opened = [source]
    return lambda: opened.pop() if opened else again()
