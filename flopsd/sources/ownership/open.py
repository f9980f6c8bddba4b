"""Makes the rule that the setting `devices` chooses, and wraps a source in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.errors import OwnershipError, SourceUnavailableError
from flopsd.settings.device_selection import DevicesSetting, Whose
from flopsd.sources import Source, SourceInfo
from flopsd.sources.calls import close_source
from flopsd.sources.ownership.rule import AllRule, Job, NamedRule, OwnershipRule, VendorDevices, VisibleRule
from flopsd.sources.validate import shown
from flopsd.system.clock import NS_PER_S, Clock

if TYPE_CHECKING:
    from flopsd.sources.ownership.filtered_source import FilteredSource
    from flopsd.sources.ownership.processes import JobProcesses


def limited_to_job(
    source: Source, info: SourceInfo, setting: DevicesSetting, job: Job, clock: Clock, interval_seconds: float = 1.0
) -> Source:
    """Return `source` as it is if all devices are metered and the job's processes are not known, else `own(source)`.
    Raises SourceUnavailableError as `own`, and for whatever the source's declaration of its devices raises."""
    if setting.whose is Whose.ALL and job.root_pid is None:
        return source
    try:
        vendor = VendorDevices() if info.ownership is None else info.ownership(job)
        return own(source, vendor, setting, job, clock, interval_seconds)
    except (SourceUnavailableError, KeyboardInterrupt):
        raise
    except BaseException as fault:
        close_source(source)
        why = f"source {info.name!r} cannot tell which devices are this job's: {shown(fault)}"
        raise SourceUnavailableError(why) from fault


def own(
    source: Source,
    vendor: VendorDevices,
    setting: DevicesSetting,
    job: Job,
    clock: Clock,
    interval_seconds: float = 1.0,
) -> FilteredSource:
    """Return `source` with this job's devices only. Takes it over, and closes it on failure. Raises
    SourceUnavailableError, with the remedy, if what the rule needs is missing or does not answer."""
    try:
        rule = rule_of(setting, job, vendor)
    except OwnershipError as fault:
        source.close()
        raise SourceUnavailableError(f"devices: {setting}: {fault}", hint=fault.hint) from fault
    from flopsd.sources.ownership.filtered_source import FilteredSource

    interval_ns = round(interval_seconds * NS_PER_S)
    return FilteredSource(source, rule, clock, sharing=_sharing(setting, job, vendor), interval_ns=interval_ns)


def rule_of(setting: DevicesSetting, job: Job, vendor: VendorDevices) -> OwnershipRule:
    """Return the rule that the setting chooses. Raises OwnershipError if something that it needs is missing."""
    if setting.whose is Whose.VISIBLE:
        return VisibleRule(job.environment, vendor)
    if setting.whose is Whose.NAMED:
        return NamedRule(setting.names, vendor)
    if setting.whose is Whose.POD:
        from flopsd.sources.ownership.kubernetes import PodRule, this_pod
        from flopsd.sources.ownership.podresources import PodResources

        return PodRule(PodResources(), this_pod(job.environment), vendor)
    if setting.whose is Whose.JOB:
        from flopsd.sources.ownership.dcgm_job_mapping import JobRule, mapping_dir, this_job

        return JobRule(mapping_dir(job.environment), setting.job or this_job(job.environment, job.name), vendor)
    if setting.whose is Whose.PROCESSES:
        from flopsd.sources.ownership.processes import ProcessRule

        return ProcessRule(_processes(job), vendor)
    return AllRule()


def _sharing(setting: DevicesSetting, job: Job, vendor: VendorDevices) -> OwnershipRule | None:
    """Return a rule that counts others' processes, if the job's are known. It adds to a verdict, never decides it."""
    if job.root_pid is None or setting.whose is Whose.PROCESSES:
        return None
    from flopsd.sources.ownership.processes import SharingRule

    try:
        return SharingRule(_processes(job), vendor)
    except OwnershipError:
        return None


def _processes(job: Job) -> JobProcesses:
    from flopsd.sources.ownership.processes import JobProcesses  # psutil costs a metering daemon a megabyte

    if job.root_pid is None:
        raise OwnershipError(
            "the job's first process is not known", hint="start the job by `flopsd exec`, or choose another rule"
        )
    host_proc = job.environment.get("HOST_PROC")
    return JobProcesses(job.root_pid, Path(host_proc) if host_proc else None)
