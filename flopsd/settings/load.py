"""Reading of YAML and of the environment: settings and the peak table. Strict, every problem at once."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from flopsd.core.peaks import PeakTable
from flopsd.errors import ConfigError, PeakTableError
from flopsd.settings.client_socket import VARIABLE as SOCKET_VARIABLE
from flopsd.settings.schema import SETTINGS, Setting, Settings, effective

log = logging.getLogger("flopsd")

_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PASSPHRASE, PASSPHRASE_FILE = "FLOPSD_KEY_PASSPHRASE", "FLOPSD_KEY_PASSPHRASE_FILE"
PKCS11_PIN = "FLOPSD_PKCS11_PIN"
PUSH_AUTH = "FLOPSD_PUSH_AUTH"
SECRETS = (
    PASSPHRASE,
    PKCS11_PIN,
    PUSH_AUTH,
)  # for flopsd alone: a job that it starts gets its environment without them
_KEY_VARIABLES_THAT_ARE_NOT_SETTINGS = (
    "FLOPSD_CONFIG",
    PASSPHRASE,
    PASSPHRASE_FILE,
    PKCS11_PIN,
    PUSH_AUTH,
    SOCKET_VARIABLE,
)
ENVIRONMENT, COMMAND_LINE = "environment", "command line"


def config_dir() -> Path:
    """The packaged config folder: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "_config"
    return packaged if packaged.is_dir() else package.parent / "config"


@dataclass(frozen=True, slots=True)
class Layers:
    """What was given, raw values by setting key, the strongest last; and what is wrong with it so far."""

    file: Path | None
    given: list[tuple[str, Mapping[str, Any]]]
    problems: list[str]
    known: tuple[Setting, ...] = SETTINGS


def load_settings(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    config_file: str | None = None,
    source_settings: Sequence[Setting] = (),
) -> Settings:
    """The effective settings. `flags` are raw values by setting key; `source_settings` are the options of sources.

    The file is --config, else $FLOPSD_CONFIG, else $CONFIGURATION_DIRECTORY/flopsd.yaml (systemd), else
    /etc/flopsd/flopsd.yaml, else none. Raises ConfigError holding every problem.
    """
    return settings_of_layers(read_layers(flags, environment, config_file, source_settings))


def settings_of_layers(layers: Layers) -> Settings:
    """Raises ConfigError holding every problem."""
    settings, more = effective(layers.given, layers.known)
    if layers.problems or more:
        raise ConfigError(
            [*layers.problems, *more], hint="correct these settings; `flopsd run --help` lists all of them"
        )
    return settings


def read_layers(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    config_file: str | None = None,
    source_settings: Sequence[Setting] = (),
) -> Layers:
    """File, environment and flags. Raises ConfigError where the file cannot be read."""
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
        if name.startswith("FLOPSD_") and name not in variables and name not in _KEY_VARIABLES_THAT_ARE_NOT_SETTINGS:
            close = _closest(name, (*variables, *_KEY_VARIABLES_THAT_ARE_NOT_SETTINGS), 0.8)
            if close:
                problems.append(f"environment: {name} is not a setting; did you mean {close}?")
    layers.append((COMMAND_LINE, flags))
    return Layers(path, layers, problems, known)


def settings_sha256(settings: Settings) -> str:
    """SHA-256 over the effective settings, the key's location left out."""
    shown = {name: value for name, value in asdict(settings).items() if name != "key"}
    return hashlib.sha256(json.dumps(shown, sort_keys=True, default=str).encode()).hexdigest()


def load_peaks(file: str | None = None) -> PeakTable:
    """The packaged peak table, or the one in `file`. Raises PeakTableError."""
    path = Path(file) if file is not None else config_dir() / "peaks.yaml"
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise PeakTableError(f"cannot read the peak table {path}: {fault.strerror}") from fault
    return parse_peaks(data, str(path))


def parse_peaks(data: bytes, name: str) -> PeakTable:
    """The peak table in `data`. Raises PeakTableError."""
    document, problems = read_yaml(data, name)
    if problems or not isinstance(document, dict):
        raise PeakTableError("; ".join(problems) or f"{name}: not a mapping")
    return PeakTable.from_data(document, hashlib.sha256(data).hexdigest())


def find_peaks(sha256: str, candidates: Sequence[Path] = ()) -> PeakTable:
    """The peak table with this digest: a packaged one, old ones included, or one of `candidates`.

    Raises PeakTableError when none has it.
    """
    for path in (*candidates, *_packaged_tables()):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except OSError as fault:
            raise PeakTableError(f"{path}: cannot be read: {fault.strerror}") from fault
        if hashlib.sha256(data).hexdigest() == sha256:
            return parse_peaks(data, str(path))
    raise PeakTableError(
        f"no peak table with SHA-256 {sha256} is here", hint="give --peaks the table that the run was metered with"
    )


def is_packaged(sha256: str) -> bool:
    """Whether this flopsd carries the peak table with this digest."""
    return any(hashlib.sha256(path.read_bytes()).hexdigest() == sha256 for path in _packaged_tables())


def _packaged_tables() -> list[Path]:
    return [config_dir() / "peaks.yaml", *sorted((config_dir() / "peaks").glob("*.yaml"))]


def _config_path(config_file: str | None, environment: Mapping[str, str]) -> Path | None:
    named = config_file or environment.get("FLOPSD_CONFIG")
    if named:
        if not _is_file(Path(named)):
            raise ConfigError([f"{named}: no such file"], hint="give --config the path of a flopsd.yaml")
        return Path(named)
    folders = [environment.get("CONFIGURATION_DIRECTORY", "").split(":")[0], "/etc/flopsd"]
    candidates = (Path(folder) / "flopsd.yaml" for folder in folders if folder)
    return next((path for path in candidates if _is_file(path)), None)


def _is_file(path: Path) -> bool:
    """False too for what this user may not even look at: it is another's, and no reason not to run a job."""
    try:
        return path.is_file()
    except PermissionError:
        log.warning("%s: not looked at: this user may not enter its folder", path)
        return False


def _settings_file(path: Path, settings: Sequence[Setting]) -> tuple[dict[str, Any], list[str]]:
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise ConfigError([f"{path}: cannot be read: {fault.strerror}"]) from fault
    document, problems = read_yaml(data, str(path))
    if document is None:
        document = {}
    if not isinstance(document, dict):
        return {}, [*problems, f"{path}: expected settings such as 'interval_seconds: 1'"]
    known: dict[str, Any] = {}
    keys = {setting.key for setting in settings}
    for key, value in document.items():
        if key in keys:
            known[key] = value
            continue
        close = _closest(str(key), keys, 0.5)
        problems.append(f"{path}: {key}: unknown setting" + (f"; did you mean {close}?" if close else ""))
    return known, problems


def _closest(name: str, known: Iterable[str], cutoff: float) -> str | None:
    from difflib import get_close_matches  # only for a mistake

    return next(iter(get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def read_yaml(data: bytes, name: str) -> tuple[Any, list[str]]:
    """The document, None if empty, and what is wrong with it: syntax, keys given twice."""
    try:
        node = yaml.compose(data, _LOADER)
        if node is None:
            return None, []
        problems = _duplicate_keys(node, name, set(), set())
        return yaml.load(data, _LOADER), problems
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as fault:
        # The library lets some of these through: no such day, too many digits, `!!bool x`, `!!timestamp x`.
        return None, [f"{name}: not YAML: {' '.join(str(fault).split())}"]


def _duplicate_keys(node: Any, name: str, known: set[int], within: set[int]) -> list[str]:
    """Each node once, however often an alias names it. Raises ValueError for one that is part of itself."""
    if id(node) in within:
        raise ValueError(f"line {node.start_mark.line + 1}: an alias names what it is part of")
    if id(node) in known:
        return []
    known.add(id(node))
    within = {*within, id(node)}
    problems: list[str] = []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            text, line = str(getattr(key, "value", key)), key.start_mark.line + 1
            if text in seen:
                problems.append(f"{name}: line {line}: {text} is given twice, first on line {seen[text]}")
            seen.setdefault(text, line)
            problems += _duplicate_keys(value, name, known, within)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            problems += _duplicate_keys(value, name, known, within)
    return problems
