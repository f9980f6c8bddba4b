"""Preflight: what would work here, what would not, and what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from flopsd.clock import Clock
from flopsd.config import load_peaks, load_settings
from flopsd.core.model import Evidence
from flopsd.core.peaks import PeakTable
from flopsd.errors import FlopsdError, SourceUnavailableError, UnknownDeviceError
from flopsd.parse import parse_listen
from flopsd.service import state_dir
from flopsd.settings import Settings
from flopsd.sources import PROBED, SourceSettings, open_source

_ENOUGH_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `state` is ok, warn or fail; `meters` says that a device can be metered."""

    name: str
    state: str
    detail: str
    fix: str = ""
    meters: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(environment: Mapping[str, str], clock: Clock) -> list[Check]:
    """All checks. Raises ConfigError only where the settings cannot be read at all."""
    settings = load_settings({}, environment)
    checks = [Check("python", "ok", f"{sys.version_info.major}.{sys.version_info.minor} at {sys.executable}")]
    checks += [_package("sealing", "securesystemslib", "seal"), _package("NVIDIA binding", "pynvml", "nvml")]
    checks += [_state(settings, environment), _port(settings)]
    try:
        table = load_peaks(settings.peaks)
    except FlopsdError as fault:
        return [*checks, Check("peak table", "fail", str(fault), fault.hint)]
    checks.append(Check("peak table", "ok", f"{len(table.parts)} parts, SHA-256 {table.sha256[:16]}…"))
    for name in PROBED:
        checks += _source(name, SourceSettings(clock, table), table)
    return checks


def can_meter(checks: list[Check]) -> bool:
    return any(check.meters for check in checks)


def doctor_text(checks: list[Check]) -> str:
    """The findings for a terminal, and the verdict."""
    lines = []
    for check in checks:
        lines.append(f"{check.state:<5} {check.name}: {check.detail}")
        if check.fix:
            lines.append(f"      -> {check.fix}")
    lines.append(
        "this machine can be metered"
        if can_meter(checks)
        else "no accelerator can be metered here; `flopsd run --source replay` shows how it would look"
    )
    return "\n".join(lines) + "\n"


def _package(name: str, module: str, extra: str) -> Check:
    if find_spec(module) is None:
        return Check(name, "fail", f"the package for it is not installed ({module})", f"pip install 'flopsd[{extra}]'")
    return Check(name, "ok", f"{module} is installed")


def _state(settings: Settings, environment: Mapping[str, str]) -> Check:
    folder = state_dir(settings, environment)
    existing = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check("state folder", "fail", f"{folder} cannot be written", "give --state-dir a writable folder")
    free = shutil.disk_usage(existing).free
    state = "ok" if free > _ENOUGH_BYTES else "warn"
    return Check(
        "state folder",
        state,
        f"{folder}, {free // 1_000_000} MB free",
        "" if state == "ok" else "a week of 8 GPUs takes up to 50 MB, and the ledger a copy of it",
    )


def _port(settings: Settings) -> Check:
    if settings.listen is None:
        return Check("metrics address", "ok", "off")
    host, port = parse_listen(settings.listen)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            return Check(
                "metrics address",
                "warn",
                f"{settings.listen}: {fault.strerror}",
                "another flopsd may be running; else give --listen another port",
            )
    return Check("metrics address", "ok", f"{settings.listen} is free")


def _source(name: str, settings: SourceSettings, table: PeakTable) -> list[Check]:
    try:
        source = open_source(name, settings)
    except SourceUnavailableError as fault:
        return [Check(f"source {name}", "fail", str(fault), fault.hint)]
    try:
        facts = ", ".join(f"{k} {v}" for k, v in source.describe().items() if v)
        checks = [Check(f"source {name}", "ok", facts)]
        for device in source.devices():
            label = f"device {device.index}"
            try:
                part = table.resolve(device)
            except UnknownDeviceError as fault:
                checks.append(Check(label, "fail", str(fault), fault.hint))
                continue
            sms = "SMs unknown" if device.sm_count is None else f"{device.sm_count} SMs"
            detail = f"{device.model}, row {part.id} ({part.status}), {sms}, evidence {device.evidence.value}"
            better = device.evidence is Evidence.ACTIVITY
            checks.append(
                Check(
                    label,
                    "ok" if better else "warn",
                    detail,
                    device.evidence_reason,
                    meters=device.evidence is not Evidence.GAP,
                )
            )
        return checks
    finally:
        source.close()
