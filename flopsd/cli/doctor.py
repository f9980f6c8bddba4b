"""Preflight: what works on this machine, what does not, and how to fix it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from flopsd.attestation.signing.key_uri import scheme_of
from flopsd.core.dataclass import dataclass
from flopsd.core.model import ESTIMATING, UNIDENTIFIED, Device, Evidence, Pipe
from flopsd.core.peaks import PeakTable
from flopsd.daemon.ledger_places import copy_destinations, state_dir
from flopsd.daemon.ledgers.state_disk import disk_state, need_of
from flopsd.daemon.open_sources import SourceOpener, cores_per_chip
from flopsd.errors import FlopsdError, JournalError, SourceUnavailableError, UnknownDeviceError
from flopsd.journal.rehearsal import rehearse
from flopsd.journal.state_dir import StateDir
from flopsd.report.terminal import TABLE_COLUMNS, one_line, shown, wrapped
from flopsd.settings.device_selection import Whose
from flopsd.settings.load import check_needs
from flopsd.settings.locations import S3Location
from flopsd.settings.parsers import parse_listen
from flopsd.settings.platform import find_context
from flopsd.settings.schema import Settings
from flopsd.sources import SourceSettings
from flopsd.sources.dcgm import HOSTENGINE, own_program
from flopsd.sources.nvml.mig import MIG_IS_ON
from flopsd.sources.nvml.profiling_access import OPEN, ProfilingAccess
from flopsd.sources.nvml.profiling_advice import advice, mig_advice, words_of
from flopsd.sources.ownership.rule import Job
from flopsd.sources.peak_rows import table_of
from flopsd.sources.probe import Probe, ProbedSource, probe
from flopsd.sources.registry import BUILT_IN, KnownSources, find, probed
from flopsd.system.clock import Clock

_FOR_KEYS = ("sealing", "key in AWS KMS", "key in a PKCS#11 token")  # packages without which no key is tried


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One finding. `state` is ok, warn, fail, or none for something that is absent and not required. `meters` is true
    for a device that can be metered. The check of a device has its evidence, why no stronger one, and in `needs` the
    flag without which `flopsd run` would not find it."""

    name: str
    state: str
    detail: str
    fix: str = ""
    meters: bool = False
    evidence: str = ""
    why: str = ""
    needs: str = ""


def examine(settings: Settings, environment: Mapping[str, str], clock: Clock, known: KnownSources) -> list[Diagnosis]:
    """Run all checks. Findings never raise. If no source is named, plug-in sources are also tried, each separately,
    since `flopsd run` opens them only by name."""
    checks = [Diagnosis("python", "ok", f"{sys.version_info.major}.{sys.version_info.minor} at {sys.executable}")]
    packages = [_package(_FOR_KEYS[0], "cryptography", "seal"), *_needed_packages(settings)]
    checks += packages
    if not any(one.state == "fail" and one.name in _FOR_KEYS for one in packages):
        checks.append(_key(settings, environment))
    try:
        check_needs(replace(settings, peaks=None))  # the peak table has its own line
    except FlopsdError as fault:
        checks += [Diagnosis("settings", "fail", line, fault.hint) for line in fault.lines]
    names = settings.sources if settings.sources != ("probe",) else probed()
    found = list(_sources(settings, names, environment, clock))
    checks += [_state(settings, environment, sum(one.meters for one in found)), _port(settings), *found]
    if settings.sources != ("probe",):
        return checks
    checks += [Diagnosis("plug-in", "fail", str(fault), fault.hint) for fault in known.faults]
    for info in known.infos:
        if info.name not in BUILT_IN:
            for check in _sources(settings, (info.name,), environment, clock):
                if check.name != "instance type" and check not in checks:
                    needs = f"--source {info.name}" if check.meters else ""
                    checks.append(replace(check, meters=False, needs=needs))
    return checks


def _sources(
    settings: Settings, names: Sequence[str], environment: Mapping[str, str], clock: Clock
) -> Iterator[Diagnosis]:
    """Check the peak table, and what these sources would read together."""
    try:
        rated = table_of(settings.peaks, names)
    except FlopsdError as fault:
        yield Diagnosis("peak table", "fail", str(fault), fault.hint)
        return
    table = rated.table
    added = "".join(f", rows of the plug-in {name} included" for name in rated.added)
    yield Diagnosis("peak table", "ok", f"{len(table.parts)} parts, SHA-256 {table.sha256[:16]}…{added}")
    context = find_context(environment)
    job = Job(environment, context.job_name, None, cores_per_chip(context, table))
    # The program that `flopsd run` would start is reported, but not started.
    looking = replace(settings, source_options={**settings.source_options, HOSTENGINE: "off"})
    opening = SourceOpener(looking, SourceSettings(clock, table), job)
    found = probe(names, opening.open, clock)
    yield from (_source(one) for one in found.sources)
    yield from _profiling_counters(found, context.platform, settings.source_options.get(HOSTENGINE))
    yield from _mig(found, context.platform)
    yield from (device_diagnosis(device, source, table) for device, source in found.devices)
    yield from _instance(context.instance_type, [device for device, _ in found.devices], table)


def can_meter(checks: list[Diagnosis]) -> bool:
    return any(check.meters for check in checks)


def doctor_text(checks: list[Diagnosis]) -> str:
    """The findings for a terminal, and the verdict. Absent items need no fix if something else can be metered."""
    lines, meters = [], can_meter(checks)
    needs = sorted({check.needs for check in checks if check.needs})
    for check in checks:
        lines += _lines(f"{check.state:<5} ", f"{check.name}: {check.detail}")
        if check.why:
            lines += _lines("      why not better: ", check.why)
        if check.needs:
            lines += _lines("      -> ", f"`flopsd run {check.needs}` meters it")
        if check.fix and not (meters and check.state == "none"):
            lines += _lines("      -> ", check.fix)
    failed = meters and any(check.state == "fail" for check in checks)
    return shown([*lines, _verdict(meters, needs) + ("; what is marked fail needs a fix" if failed else "")])


def _verdict(meters: bool, needs: Sequence[str]) -> str:
    if meters:
        return "this machine can be metered"
    if needs:
        return f"`flopsd run` alone meters nothing here; with {' '.join(needs)} it meters what a plug-in reads"
    return "no accelerator can be metered here; `flopsd run --source replay` plays a recording"


def _lines(first: str, text: str) -> list[str]:
    return wrapped(one_line(text), "      ", first, TABLE_COLUMNS)


def _package(name: str, module: str, extra: str) -> Diagnosis:
    if find_spec(module) is None:
        return Diagnosis(name, "fail", f"the Python module {module} is not installed", f"pip install 'flopsd[{extra}]'")
    return Diagnosis(name, "ok", f"{module} is installed")


def _needed_packages(settings: Settings) -> list[Diagnosis]:
    """Check the packages that individual settings need: the end of a run is too late to find one missing."""
    scheme, _ = scheme_of(settings.key or "")
    to_s3 = any(isinstance(location, S3Location) for location in copy_destinations(settings, "run", "node"))
    needs = (
        (to_s3, "copies to S3", "botocore", "s3"),
        (scheme == "awskms", _FOR_KEYS[1], "botocore", "kms"),
        (scheme == "pkcs11", _FOR_KEYS[2], "pkcs11", "hsm"),
        ((settings.timestamp_url or settings.witness_url) is not None, "timestamps", "rfc3161_client", "timestamp"),
        (settings.devices.whose is Whose.POD, "devices of the pod", "h2", "kubernetes"),
    )
    return [_package(name, module, extra) for is_asked, name, module, extra in needs if is_asked]


def _key(settings: Settings, environment: Mapping[str, str]) -> Diagnosis:
    from flopsd.attestation.signing.check import check_configured
    from flopsd.attestation.signing.refused_pin import RefusedPin

    folder = state_dir(settings, environment)
    try:
        key = check_configured(settings.key, folder, environment, RefusedPin(StateDir(folder).refused_pin))
    except FlopsdError as fault:
        return Diagnosis("signing key", "fail", str(fault), fault.hint)
    if key is None:
        return Diagnosis("signing key", "ok", f"none is given: the first seal makes an Ed25519 key in {folder}")
    return Diagnosis("signing key", "ok", f"{key.describe()} signs, key id {key.public.keyid}")


def _state(settings: Settings, environment: Mapping[str, str], devices: int) -> Diagnosis:
    folder = StateDir(state_dir(settings, environment))
    existing = next((p for p in (folder.path, *folder.path.parents) if os.path.exists(p)), folder.path)
    try:
        rehearse(existing)
    except JournalError as fault:
        fix = (
            "give --state-dir a writable folder on a disk of this machine; --ledger and --ledger-copy may go elsewhere"
        )
        return Diagnosis("state folder", "fail", f"no journal can be kept in {folder.path}: {fault}", fix)
    need = need_of(settings, folder, devices, disk_state(StateDir(existing), is_rotated=False))
    text = f"{folder.path}, {need.text}"
    if need.is_met:
        return Diagnosis("state folder", "ok", text)
    fix = "give --state-dir a larger disk, or bound what stays on it with --rotate-every and --keep-segments"
    return Diagnosis("state folder", "warn", text, fix)


def _port(settings: Settings) -> Diagnosis:
    if settings.listen is None:
        return Diagnosis("metrics address", "ok", "off")
    from flopsd.telemetry.http.server import bound

    host, ports = parse_listen(settings.listen)
    try:
        bound(host, ports).close()
    except OSError as fault:
        fix = "another flopsd may be running; else give --listen another port"
        return Diagnosis("metrics address", "warn", f"{settings.listen}: {fault.strerror}", fix)
    return Diagnosis("metrics address", "ok", f"{settings.listen} is free")


def _source(one: ProbedSource) -> Diagnosis:
    if one.fault:
        return Diagnosis(f"source {one.name}", "none" if one.absent else "fail", one.fault, one.hint)
    return Diagnosis(f"source {one.name}", "ok", _facts_text(one.facts) or "answers")


def _facts_text(facts: Mapping[str, Any]) -> str:
    recording = facts.get("replay")
    if recording:
        return f"plays {recording.get('recording', 'a recording')}: {recording.get('origin', 'origin unknown')}"
    for_ledger = ("library", "library_sha256", "profiling_counters", "counters_served_by", "mig_monitor", "mig_config")
    return ", ".join(f"{key} {value}" for key, value in facts.items() if value and key not in for_ledger)


def device_diagnosis(device: Device, source: str, table: PeakTable) -> Diagnosis:
    """What `source` would read of a device, rated by its row of `table`."""
    name = f"device {device.index}"
    try:
        part = table.resolve(device)
    except UnknownDeviceError as fault:
        return Diagnosis(name, "fail", str(fault), fault.hint)
    measured = device.evidence in ESTIMATING
    margin = ""
    if measured:
        formats = part.formats(Pipe.TENSOR_HMMA, None)
        margin = f", margin {table.margin_ppm(device.evidence, part, formats) / 10_000:g} %"
    recorded = not find(source).hardware
    gives = {Evidence.UTILIZATION: "only a ceiling", Evidence.GAP: "nothing"}.get(device.evidence, "a measurement")
    gives = "recorded elsewhere" if recorded else gives
    detail = (
        f"{device.model} ({device.uid}), row {part.id} ({part.status})"
        + ("" if device.sm_count is None else f", {device.sm_count} SMs")
        + ("" if device.parent is None else f", a slice of {device.parent}")
        + f": evidence {device.evidence.value} by {source}, {gives}{margin}"
        + ("" if device.shared is None else f"; SHARED with {device.shared}")
    )
    state, meters = "ok" if measured else "warn", device.evidence is not Evidence.GAP and not recorded
    why, evidence = device.evidence_reason, device.evidence.value
    return Diagnosis(name, state, detail, device.evidence_fix, meters, evidence, why)


def _profiling_counters(found: Probe, platform: str, own: object) -> Iterator[Diagnosis]:
    """Whether something else may read the counters of GPUs that NVML cannot measure."""
    identified = [device for device, source in found.devices if source == "nvml" and device.model != UNIDENTIFIED]
    lacking = [one for one in identified if one.evidence not in ESTIMATING and not _is_partitioned(one)]
    if not lacking:
        return
    facts = next(one.facts for one in found.sources if one.name == "nvml")
    access = ProfilingAccess(facts["profiling_counters"])
    detail = f"{words_of(access)}; without them {_devices(lacking)} cannot be measured"
    servers = (facts["counters_served_by"] or "").split(", ")
    try:
        program = own_program(None if own is None else str(own))
    except SourceUnavailableError as fault:
        yield Diagnosis("profiling counters", "fail", f"{detail}; {fault}", fault.hint)
        return
    yield Diagnosis("profiling counters", "warn", detail, advice(access, platform, servers, program))


def _mig(found: Probe, platform: str) -> Iterator[Diagnosis]:
    """Whether the driver's MIG capabilities are accessible, if a GPU is partitioned."""
    cut = [device for device, source in found.devices if source == "nvml" and _is_partitioned(device)]
    if not cut:
        return
    facts = next(one.facts for one in found.sources if one.name == "nvml")
    # A process may read its own slice without the monitor capability.
    is_enough = facts["mig_monitor"] == OPEN or all(device.evidence in ESTIMATING for device in cut)
    detail = f"monitor is {facts['mig_monitor']}, config {facts['mig_config']} to this process, for {_devices(cut)}"
    fix = "" if is_enough else mig_advice(platform)
    yield Diagnosis("MIG capabilities", "ok" if is_enough else "warn", detail, fix)


def _is_partitioned(device: Device) -> bool:
    return device.parent is not None or device.evidence_reason.startswith(MIG_IS_ON)


def _devices(devices: Sequence[Device]) -> str:
    return f"device{'s' * (len(devices) > 1)} {', '.join(str(device.index) for device in devices)}"


def _instance(instance_type: str | None, devices: list[Device], table: PeakTable) -> list[Diagnosis]:
    """Whether all accelerators of the instance type are present, if the platform names the type."""
    known = table.instances.get(instance_type or "")
    if known is None:
        return []
    here = len({device.parent or device.uid for device in devices})
    text = f"{known.name} has {'?' if known.count is None else known.count} x {known.accelerator}, {here} seen"
    if known.count in (None, here):
        return [Diagnosis("instance type", "ok", text)]
    fix = "give the daemon all devices, or --devices job if only some of them are this job's"
    return [Diagnosis("instance type", "warn", text, fix)]
