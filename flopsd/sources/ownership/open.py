"""Puts a rule together from the setting, and wraps a source in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.errors import OwnershipError, SourceUnavailableError
from flopsd.settings.device_selection import DevicesSetting, Whose
from flopsd.sources import Source
from flopsd.sources.ownership.device_names import NamedRule
from flopsd.sources.ownership.filtered_source import FilteredSource
from flopsd.sources.ownership.nvml_lookup import NvmlLookup
from flopsd.sources.ownership.rule import AllRule, Lookup, OwnershipRule
from flopsd.sources.ownership.visible_devices import VisibleRule
from flopsd.system.clock import Clock

if TYPE_CHECKING:
    from flopsd.sources.ownership.processes import JobProcesses


@dataclass(frozen=True, slots=True)
class Job:
    """What is known of this job where flopsd runs. None: it is not known."""

    environment: Mapping[str, str]
    name: str | None = None  # the platform's
    root_pid: int | None = None  # the process that the job's others descend from
    cores_per_chip: int | None = None  # of the AWS chips here


def own_if_asked(source: Source, setting: DevicesSetting, job: Job, clock: Clock) -> Source:
    """`source` as it is where all devices are measured and nothing tells who else uses them, else `own` of it."""
    if setting.whose is Whose.ALL and job.root_pid is None:
        return source
    return own(source, setting, job, clock)


def own(
    source: Source, setting: DevicesSetting, job: Job, clock: Clock, lookup: Lookup | None = None
) -> FilteredSource:
    """`source` with this job's devices only. Takes it over, and closes it on failure.

    Raises SourceUnavailableError with the remedy: what the rule needs is missing or does not answer.
    """
    lookup = lookup if lookup is not None else NvmlLookup()
    try:
        rule = rule_of(setting, job, lookup)
    except OwnershipError as fault:
        source.close()
        raise SourceUnavailableError(f"devices: {setting}: {fault}", hint=fault.hint) from fault
    return FilteredSource(source, rule, clock, sharing=_sharing(setting, job, lookup))


def rule_of(setting: DevicesSetting, job: Job, lookup: Lookup) -> OwnershipRule:
    """The rule that the setting chooses. Raises OwnershipError: something that it needs is not here."""
    if setting.whose is Whose.VISIBLE:
        return VisibleRule(job.environment, lookup, job.cores_per_chip)
    if setting.whose is Whose.NAMED:
        return NamedRule(setting.names, lookup)
    if setting.whose is Whose.POD:
        from flopsd.sources.ownership.kubernetes import PodRule, this_pod
        from flopsd.sources.ownership.podresources import PodResources

        return PodRule(PodResources(), this_pod(job.environment), lookup, job.cores_per_chip)
    if setting.whose is Whose.JOB:
        from flopsd.sources.ownership.dcgm_job_mapping import JobRule, mapping_dir, this_job

        return JobRule(mapping_dir(job.environment), setting.job or this_job(job.environment, job.name), lookup)
    if setting.whose is Whose.PROCESSES:
        from flopsd.sources.ownership.processes import ProcessRule

        return ProcessRule(_processes(job), lookup)
    return AllRule()


def _sharing(setting: DevicesSetting, job: Job, lookup: Lookup) -> OwnershipRule | None:
    """What tells of others' processes, where the job's are known. It is a help, never a condition."""
    if job.root_pid is None or setting.whose is Whose.PROCESSES:
        return None
    from flopsd.sources.ownership.processes import SharingRule

    try:
        return SharingRule(_processes(job), lookup)
    except OwnershipError:
        return None


def _processes(job: Job) -> JobProcesses:
    from flopsd.sources.ownership.processes import JobProcesses  # psutil costs a metering daemon a megabyte

    if job.root_pid is None:
        raise OwnershipError(
            "the job's first process is not known", hint="start the job by `flopsd exec`, or choose another rule"
        )
    told = job.environment.get("HOST_PROC")
    return JobProcesses(job.root_pid, Path(told) if told else None)
