"""Every setting of flopsd, once: its key in flopsd.yaml, its flag, its variable, its default, its check.

Precedence: flag > environment > file > default. The tables here make the parser, the help and the
checks, so that no setting can exist in only one of the three places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flopsd.core.model import PPM, Precision

_LISTEN = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):(?P<port>[0-9]{1,5})")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FORMATS = ("bf16", "fp16", "tf32", "fp8", "fp6", "fp4", "fp64", "int8")


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective settings. None: decided from where flopsd runs."""

    sources: tuple[str, ...] = ("probe",)
    interval_seconds: float = 1.0
    checkpoint_seconds: float = 60.0
    checkpoint_output: str = "stdout"
    state_dir: str | None = None
    listen: str | None = "127.0.0.1:10188"
    run_id: str | None = None
    key: str | None = None
    ledger: str | None = None
    seal: bool = True
    precision: Precision | None = None
    device_precision: Mapping[str, Precision] = field(default_factory=dict)
    peaks: str | None = None
    replay_file: str | None = None
    duration_seconds: float | None = None
    stop_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `parse` takes what YAML or text gave and raises ValueError saying what is expected."""

    key: str
    flag: str
    metavar: str
    help: str
    parse: Callable[[object], object]
    repeatable: bool = False

    @property
    def variable(self) -> str:
        return "FLOPSD_" + self.flag.removeprefix("--").replace("-", "_").upper()


def parse_listen(text: str) -> tuple[str, int]:
    """`host:port` as its parts. Raises ValueError."""
    match = _LISTEN.fullmatch(text)
    if not match or int(match["port"]) > 65535:
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:10188 or [::1]:10188")
    return match["host"].strip("[]"), int(match["port"])


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def _seconds(low: float, high: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError("expected a number of seconds")
        try:
            number = float(value)
        except ValueError:
            raise ValueError("expected a number of seconds, without a unit") from None
        if not low <= number <= high:
            raise ValueError(f"expected between {low:g} and {high:g} seconds")
        return number

    return parse


def _sources(value: object) -> tuple[str, ...]:
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) and n for n in names):
        raise ValueError("expected a list of source names, such as [nvml]")
    if len(set(names)) != len(names):
        raise ValueError("a source is named twice")
    return tuple(names)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError("expected true or false")


def _listen(value: object) -> str | None:
    if value is None or value == "off":
        return None
    parse_listen(_text(value))
    return _text(value)


def _run_id(value: object) -> str:
    if not isinstance(value, str) or not _RUN_ID.fullmatch(value):
        raise ValueError("expected at most 128 letters, digits, '.', '_' or '-', beginning with a letter or digit")
    return value


def _output(value: object) -> str:
    if value not in ("stdout", "stderr", "off"):
        raise ValueError("expected stdout, stderr or off")
    return str(value)


def _precision(value: object) -> Precision | None:
    """`bf16`, or shares of tensor-pipe cycles: {bf16: 0.9, fp8: 0.1} in YAML, `bf16:0.9,fp8:0.1` as text."""
    if value is None or value == "undeclared":
        return None
    shares: Mapping[object, object]
    if isinstance(value, str):
        pieces = [piece.partition(":") for piece in value.split(",")]
        shares = {name.strip(): share.strip() or 1 for name, _, share in pieces}
        if len(shares) != len(pieces):
            raise ValueError("a format is named twice")
    elif isinstance(value, Mapping):
        shares = value
    else:
        raise ValueError("expected a format such as bf16, or shares such as {bf16: 0.9, fp8: 0.1}")
    ppm: dict[str, int] = {}
    for name, share in shares.items():
        if name not in _FORMATS:
            raise ValueError(f"{name!r} is not a number format; known: {', '.join(_FORMATS)}")
        try:
            ppm[str(name)] = round(float(str(share)) * PPM)
        except ValueError:
            raise ValueError(f"the share of {name} is not a number") from None
    if any(p <= 0 for p in ppm.values()) or sum(ppm.values()) != PPM:
        raise ValueError("shares must be positive and add up to 1")
    return Precision(tuple(sorted(ppm.items())), declared_by="config")


def _device_precision(value: object) -> Mapping[str, Precision]:
    """{GPU-…: bf16, "1": {bf16: 0.9, fp8: 0.1}} in YAML, `GPU-…=bf16;1=bf16:0.9,fp8:0.1` as text."""
    if isinstance(value, str):
        pieces = [piece.partition("=") for piece in value.split(";")]
        if not all(separator for _, separator, _ in pieces):
            raise ValueError("expected DEVICE=FORMAT, such as 0=bf16, several with ';' between them")
        value = {name.strip(): declared.strip() for name, _, declared in pieces}
    if not isinstance(value, Mapping):
        raise ValueError("expected devices, by UUID or index, with a format each, such as {0: bf16}")
    found = {str(name): _precision(declared) for name, declared in value.items()}
    return {name: precision for name, precision in found.items() if precision is not None}


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "sources",
        "--source",
        "NAME",
        "where readings come from: nvml, replay, or a plug-in's name; "
        "probe takes the accelerators that are here (default: probe)",
        _sources,
        repeatable=True,
    ),
    Setting("interval_seconds", "--interval", "SECONDS", "time between readings (default: 1)", _seconds(0.1, 60)),
    Setting(
        "checkpoint_seconds",
        "--checkpoint",
        "SECONDS",
        "time between fsynced checkpoints of the journal (default: 60)",
        _seconds(0.2, 3600),
    ),
    Setting(
        "checkpoint_output",
        "--checkpoint-output",
        "WHERE",
        "where checkpoint lines go: stdout, stderr or off (default: stdout)",
        _output,
    ),
    Setting(
        "state_dir",
        "--state-dir",
        "DIR",
        "folder of journal and key (default: $STATE_DIRECTORY, /var/lib/flopsd as root, else ~/.local/state/flopsd)",
        _text,
    ),
    Setting(
        "listen", "--listen", "HOST:PORT", "where /metrics is served, or 'off' (default: 127.0.0.1:10188)", _listen
    ),
    Setting(
        "run_id",
        "--run-id",
        "ID",
        "name of the run; its journal is continued after a restart (default: the platform's job name, else a new one)",
        _run_id,
    ),
    Setting(
        "key",
        "--key",
        "KEY-URI",
        "private key that signs: a PEM file, Ed25519 or P-256 (default: DIR/flopsd-key.pem, made when missing)",
        _text,
    ),
    Setting("ledger", "--ledger", "FILE", "where the sealed ledger goes (default: DIR/RUN-ID.ledger.json)", _text),
    Setting("seal", "--seal", "BOOL", "whether to seal a ledger at the end (default: true)", _flag),
    Setting(
        "precision",
        "--precision",
        "FORMAT",
        "declared number format of tensor work: bf16, or shares "
        "of tensor cycles such as bf16:0.9,fp8:0.1 (default: undeclared)",
        _precision,
    ),
    Setting(
        "device_precision",
        "--device-precision",
        "DEVICE=FORMAT",
        "the same for single devices, by UUID or index: 0=bf16;1=bf16:0.9,fp8:0.1 (default: --precision for all)",
        _device_precision,
    ),
    Setting("peaks", "--peaks", "FILE", "peak table to use instead of the packaged one", _text),
    Setting("replay_file", "--replay-file", "FILE", "recording for --source replay (default: the bundled one)", _text),
    Setting(
        "duration_seconds",
        "--duration",
        "SECONDS",
        "stop by itself after this time (default: run on)",
        _seconds(0.1, 86400 * 400),
    ),
    Setting(
        "stop_seconds",
        "--stop-within",
        "SECONDS",
        "time that final reading and sealing may take under exec (default: 60)",
        _seconds(1, 600),
    ),
)
BY_KEY: Mapping[str, Setting] = {setting.key: setting for setting in SETTINGS}


def effective(
    layers: list[tuple[str, Mapping[str, Any]]],
) -> tuple[Settings, list[str]]:
    """Settings from layers of (name of the layer, key -> raw value), the strongest last, and every problem."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for layer, raw in layers:
        for key, value in raw.items():
            try:
                values[key] = BY_KEY[key].parse(value)
            except ValueError as fault:
                where = key if layer.endswith(".yaml") or "file" in layer else ""
                name = where or (BY_KEY[key].flag if layer == "command line" else BY_KEY[key].variable)
                problems.append(f"{layer}: {name}: {value!r}: {fault}")
    return Settings(**values), problems
