"""Loads the settings from file, environment and flags, in that order, and what they declare about the run.

Reports every problem at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flopsd.core.declarations import (
    DEVICE_VARIABLE,
    KERNEL_WINDOWS_VARIABLE,
    OPERATOR_COUNT_VARIABLE,
    Base,
    Method,
    OperatorDeclarations,
    Phase,
    Recomputation,
)
from flopsd.core.policy.contradictions import presumed_systemic
from flopsd.core.values import short_flop
from flopsd.errors import ConfigError, FlopsdError, PolicyError
from flopsd.settings.client_socket import VARIABLE as SOCKET_VARIABLE
from flopsd.settings.data_files import load_peaks, load_policies, own_policies
from flopsd.settings.locations import is_remote, refuse_place
from flopsd.settings.schema import BY_KEY, SETTINGS, Setting, Settings
from flopsd.settings.strict_yaml import read_yaml
from flopsd.settings.suggestions import did_you_mean
from flopsd.system.file_presence import is_file
from flopsd.system.regular_files import read_at_most, unfit
from flopsd.system.sha256 import hex_sha256

log = logging.getLogger("flopsd")

PASSPHRASE, PASSPHRASE_FILE = "FLOPSD_KEY_PASSPHRASE", "FLOPSD_KEY_PASSPHRASE_FILE"
PKCS11_PIN = "FLOPSD_PKCS11_PIN"
PUSH_AUTH = "FLOPSD_PUSH_AUTH"
SECRETS = (PASSPHRASE, PKCS11_PIN, PUSH_AUTH)  # removed from the environment of the job that `flopsd exec` starts
_PROCESS_VARIABLES = (SOCKET_VARIABLE, OPERATOR_COUNT_VARIABLE, DEVICE_VARIABLE, KERNEL_WINDOWS_VARIABLE)
_OTHER_VARIABLES = ("FLOPSD_CONFIG", PASSPHRASE_FILE, *_PROCESS_VARIABLES, *SECRETS)
_MAX_BYTES = 1 << 20  # of a settings file
ENVIRONMENT, COMMAND_LINE = "environment", "command line"


class Layers(NamedTuple):
    """The raw values given, by setting key, with the strongest layer last, and the problems found so far."""

    file: Path | None
    given: list[tuple[str, Mapping[str, Any]]]
    problems: list[str]
    known: tuple[Setting, ...] = SETTINGS


def settings_of_layers(layers: Layers) -> Settings:
    """The effective settings. Raises ConfigError with every problem."""
    by_key = {setting.key: setting for setting in layers.known}
    values: dict[str, Any] = {}
    options: dict[str, Any] = {}
    problems = list(layers.problems)
    for layer, raw in layers.given:
        for key, value in raw.items():
            setting = by_key[key]
            try:
                (values if key in BY_KEY else options)[key] = setting.parse(value)
            except ValueError as fault:
                where = key if layer.endswith(".yaml") or "file" in layer else ""
                name = where or (setting.flag if layer == COMMAND_LINE else setting.variable)
                given = value[0] if layer == COMMAND_LINE and isinstance(value, list) and len(value) == 1 else value
                text = repr(given) if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)
                said = "" if str(fault).startswith(text) else f"{text}: "  # some messages begin with it
                problems.append(f"{layer.removeprefix('file ')}: {name}: {said}{fault}")
    settings = Settings(**values, source_options=options)
    has_copies = settings.ledger_copies or (settings.ledger is not None and is_remote(settings.ledger))
    if settings.keep_segments is not None and not has_copies:
        problems.append(
            "--keep-segments removes only copied segments: name a destination with --ledger-copy, or leave it out"
        )
    if problems:
        raise ConfigError(problems, hint="correct these settings; `flopsd run --help` lists all of them")
    return settings


def declared_of(settings: Settings) -> OperatorDeclarations:
    """The settings' declarations about the run. Raises ConfigError if they contradict each other."""
    described = (settings.base_model, settings.base_flop, settings.base_flop_method, settings.base_systemic)
    problems = []
    if settings.base_flop_method is not None and not isinstance(settings.base_flop, int):
        problems.append("--base-flop-method explains a number, which is missing: give --base-flop too")
    if settings.base_flop is None and any(value is not None for value in described):
        problems.append("--base-model and --base-systemic describe a base model: state its compute with --base-flop")
    if settings.method == Method.PRETRAINING.value and settings.base_flop is not None:
        problems.append("--method pretraining has no base model: leave the --base settings out, or name another method")
    if settings.base_systemic_reason is not None and settings.base_systemic is not False:
        problems.append("--base-systemic-reason explains --base-systemic false, which is not given")
    base = None
    if settings.base_flop is not None:
        flop = settings.base_flop if isinstance(settings.base_flop, int) else None
        kind = "unknown" if flop is None else "known" if settings.base_flop_method is None else "estimated"
        base = Base(settings.base_model, kind, flop, settings.base_flop_method, settings.base_systemic)
        base = replace(base, reason=settings.base_systemic_reason)
        if base.systemic is False and base.reason is None:
            problems += [
                f"--base-systemic false: {policy.presumed.citation} presumes systemic risk of a base model above "
                f"{short_flop(policy.presumed.above_flop)} FLOP: give the reason with --base-systemic-reason"
                for policy in load_policies(settings.policies)
                if policy.presumed is not None and presumed_systemic(base, policy)
            ]
    if problems:
        raise ConfigError(problems, hint="docs/thresholds.md shows how a base model is declared")
    return OperatorDeclarations(
        None if settings.phase is None else Phase(settings.phase),
        None if settings.method is None else Method(settings.method),
        None if settings.recomputation is None else Recomputation(settings.recomputation),
        base,
    )


def check_needs(settings: Settings) -> None:
    """Check what a run needs beyond the form of each setting: declarations that agree, readable tables and policies,
    places to which a ledger can be written. Raises ConfigError with every problem."""
    places = (settings.ledger, *settings.ledger_copies)
    needed: list[Callable[[], object]] = [
        partial(refuse_place, Path(one)) for one in places if one and not is_remote(one)
    ]
    needed += [partial(load_peaks, settings.peaks)] if settings.peaks is not None else []
    needed += [partial(load_policies, settings.policies)] if settings.policies else []
    needed.append(partial(declared_of, settings))
    problems, hint = problems_of(needed)
    if not problems:  # reading a pipe would leave it empty for the process that meters
        files = (*((Path(settings.peaks),) if settings.peaks else ()), *own_policies(settings.policies))
        problems = [f"{file}: {why}" for file in files if (why := unfit(file))]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), hint=hint)


def problems_of(checks: Iterable[Callable[[], object]]) -> tuple[list[str], str]:
    """All problems that these checks find, and their hints."""
    problems, hints = list[str](), list[str]()
    for check in checks:
        try:
            check()
        except FlopsdError as fault:
            problems += fault.problems if isinstance(fault, PolicyError) else fault.lines
            hints.append(fault.hint)
    return problems, "; ".join(dict.fromkeys(filter(None, hints)))


def read_layers(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    config_file: str | None,
    source_settings: Sequence[Setting],
) -> Layers:
    """The values given in each layer: `flags` are raw values by setting key, `source_settings` the options of sources.
    The file is --config, else $FLOPSD_CONFIG, else $CONFIGURATION_DIRECTORY/flopsd.yaml (systemd), else
    /etc/flopsd/flopsd.yaml, else none. Raises ConfigError if the file cannot be read."""
    problems: list[str] = []
    layers: list[tuple[str, Mapping[str, Any]]] = []
    known = (*SETTINGS, *source_settings)
    path = _config_path(config_file, environment)
    if path is not None:
        raw, problems = _settings_file(path, known)
        layers.append((f"file {path}", raw))
    variables = {s.variable: s.key for s in known}
    layers.append((ENVIRONMENT, {variables[n]: v for n, v in environment.items() if n in variables}))
    for name in environment:
        if name.startswith("FLOPSD_") and name not in variables and name not in _OTHER_VARIABLES:
            close = did_you_mean(name, (*variables, *_OTHER_VARIABLES), 0.8)
            if close:
                problems.append(f"environment: {name} is not a setting{close}")
    layers.append((COMMAND_LINE, flags))
    for layer, given in layers:
        log.debug("settings from the %s: %s", layer, ", ".join(given) or "none")
    return Layers(path, layers, problems, known)


def settings_sha256(settings: Settings) -> str:
    """SHA-256 of the effective settings, without the location of the key."""
    shown = {name: value for name, value in asdict(settings).items() if name != "key"}
    return hex_sha256(json.dumps(shown, sort_keys=True, default=str).encode())


def _config_path(config_file: str | None, environment: Mapping[str, str]) -> Path | None:
    named = config_file or environment.get("FLOPSD_CONFIG")
    if named:
        if why := unfit(Path(named)):  # a pipe is refused too: the second process of `exec` could not read it again
            raise ConfigError([f"{named}: {why}"], hint="give --config the path of a flopsd.yaml")
        return Path(named)
    folders = [environment.get("CONFIGURATION_DIRECTORY", "").split(":")[0], "/etc/flopsd"]
    candidates = (Path(folder) / "flopsd.yaml" for folder in folders if folder)
    return next((path for path in candidates if _is_file(path)), None)


def _is_file(path: Path) -> bool:
    """False also for a file that this user may not reach, which is no reason to refuse a job."""
    try:
        return is_file(path)
    except PermissionError:
        log.warning("%s is ignored: this user may not enter its folder", path)
        return False


def _settings_file(path: Path, settings: Sequence[Setting]) -> tuple[dict[str, Any], list[str]]:
    try:
        data = read_at_most(path, _MAX_BYTES)
    except OSError as fault:
        raise ConfigError([f"{path}: cannot be read: {fault.strerror}"]) from fault
    document, problems = read_yaml(data, str(path))
    document = {} if document is None else document
    if not isinstance(document, dict):
        return {}, [*problems, f"{path}: expected settings such as 'interval_seconds: 1'"]
    known: dict[str, Any] = {}
    keys = {setting.key for setting in settings}
    for key, value in document.items():
        if key in keys:
            known[key] = value
            continue
        unit = f"{key}_seconds"
        near = f"; did you mean {unit}?" if unit in keys else did_you_mean(str(key), keys, 0.5)
        problems.append(f"{path}: {key}: unknown setting{near}")
    return known, problems
