"""Every setting of flopsd, once: its key in flopsd.yaml, its flag, its variable, its default, its check.

Precedence: flag > environment > file > default. The tables here make the parser, the help and the
checks, so that no setting can exist in only one of the three places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flopsd import parse
from flopsd.core.model import Precision
from flopsd.evidence import KINDS, parse_kinds
from flopsd.ownership import DevicesSetting, parse_devices


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
    ledger_copies: tuple[str, ...] = ()
    seal: bool = True
    seal_every_seconds: float | None = 900.0
    precision: Precision | None = None
    device_precision: Mapping[str, Precision] = field(default_factory=dict)
    devices: DevicesSetting = field(default_factory=DevicesSetting)
    peaks: str | None = None
    replay_file: str | None = None
    dcgm_url: str | None = None
    dcgm_interval_seconds: float | None = None
    neuron_monitor: str | None = None
    duration_seconds: float | None = None
    stop_seconds: float = 60.0
    evidence: tuple[str, ...] = KINDS
    timestamp_url: str | None = None
    client_socket: str | None = None
    client_uids: tuple[int, ...] = ()


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


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "sources",
        "--source",
        "NAME",
        "where readings come from: nvml, dcgm, neuron, replay, or a plug-in's name; "
        "probe takes the accelerators that are here (default: probe)",
        parse.sources,
        repeatable=True,
    ),
    Setting("interval_seconds", "--interval", "SECONDS", "time between readings (default: 1)", parse.seconds(0.1, 60)),
    Setting(
        "checkpoint_seconds",
        "--checkpoint",
        "SECONDS",
        "time between fsynced checkpoints of the journal (default: 60)",
        parse.seconds(0.2, 3600),
    ),
    Setting(
        "checkpoint_output",
        "--checkpoint-output",
        "WHERE",
        "where checkpoint lines go: stdout, stderr or off (default: stdout)",
        parse.output,
    ),
    Setting(
        "state_dir",
        "--state-dir",
        "DIR",
        "folder of journal and key (default: $STATE_DIRECTORY, /var/lib/flopsd as root, else ~/.local/state/flopsd)",
        parse.text,
    ),
    Setting(
        "listen", "--listen", "HOST:PORT", "where /metrics is served, or 'off' (default: 127.0.0.1:10188)", parse.listen
    ),
    Setting(
        "run_id",
        "--run-id",
        "ID",
        "name of the run; its journal is continued after a restart (default: the platform's job name, else a new one)",
        parse.run_id,
    ),
    Setting(
        "key",
        "--key",
        "KEY-URI",
        "private key that signs: a PEM file, Ed25519 or P-256 (default: DIR/flopsd-key.pem, made when missing)",
        parse.text,
    ),
    Setting(
        "ledger",
        "--ledger",
        "FILE",
        "where the sealed ledger goes: a path, or s3://BUCKET/KEY (default: DIR/RUN-ID.ledger.json)",
        parse.place,
    ),
    Setting(
        "ledger_copies",
        "--ledger-copy",
        "PLACE",
        "where to copy ledger, journal and public key too: a path, or "
        "s3://BUCKET/KEY[?lock=governance|compliance&days=N][&overwrite=never][&rolling=off]; "
        "{run} and {node} stand for their names",
        parse.places,
        repeatable=True,
    ),
    Setting("seal", "--seal", "BOOL", "whether to seal a ledger at the end (default: true)", parse.flag),
    Setting(
        "seal_every_seconds",
        "--seal-every",
        "SECONDS",
        "time between rolling seals of the run so far, or 'off' (default: 900)",
        parse.seconds_or_off(1, 86400),
    ),
    Setting(
        "precision",
        "--precision",
        "FORMAT",
        "declared number format of tensor work: bf16, or shares "
        "of tensor cycles such as bf16:0.9,fp8:0.1 (default: undeclared)",
        parse.precision,
    ),
    Setting(
        "device_precision",
        "--device-precision",
        "DEVICE=FORMAT",
        "the same for single devices, by UUID or index: 0=bf16;1=bf16:0.9,fp8:0.1 (default: --precision for all)",
        parse.device_precision,
    ),
    Setting(
        "devices",
        "--devices",
        "WHICH",
        "all (default), visible (CUDA_VISIBLE_DEVICES), pod (the kubelet's word), job or job:ID (the scheduler's "
        "job-mapping folder), processes (those of the job under exec), or UUIDs and indices",
        parse_devices,
    ),
    Setting("peaks", "--peaks", "FILE", "peak table to use instead of the packaged one", parse.text),
    Setting(
        "replay_file", "--replay-file", "FILE", "recording for --source replay (default: the bundled one)", parse.text
    ),
    Setting(
        "dcgm_url",
        "--dcgm-url",
        "URL",
        "where a dcgm-exporter that runs already is scraped (default: http://127.0.0.1:9400/metrics)",
        parse.url,
    ),
    Setting(
        "dcgm_interval_seconds",
        "--dcgm-interval",
        "SECONDS",
        "how often that exporter collects, its DCGM_EXPORTER_INTERVAL (default: 30)",
        parse.seconds(0.1, 3600),
    ),
    Setting(
        "neuron_monitor",
        "--neuron-monitor",
        "FILE",
        "AWS's neuron-monitor (default: /opt/aws/neuron/bin/neuron-monitor, else the one on PATH)",
        parse.text,
    ),
    Setting(
        "duration_seconds",
        "--duration",
        "SECONDS",
        "stop by itself after this time (default: run on)",
        parse.seconds(0.1, 86400 * 400),
    ),
    Setting(
        "stop_seconds",
        "--stop-within",
        "SECONDS",
        "time that final reading, sealing and copying may take (default: 60)",
        parse.seconds(1, 600),
    ),
    Setting(
        "evidence",
        "--evidence",
        "KINDS",
        f"evidence to put into the ledger: off, or some of {', '.join(KINDS)} (default: all of them)",
        parse_kinds,
    ),
    Setting(
        "timestamp_url",
        "--timestamp-url",
        "URL",
        "RFC 3161 timestamp authority that is asked to stamp the seal (default: none)",
        parse.url,
    ),
    Setting(
        "client_socket",
        "--client-socket",
        "PATH",
        "Unix socket where training processes declare phases and facts, or 'off' (default: DIR/client.sock)",
        parse.text_or_off,
    ),
    Setting(
        "client_uids",
        "--client-uids",
        "UIDS",
        "numbers of the users whose processes may do so, beside root and flopsd's own: 1000,1001 (default: none)",
        parse.uids,
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
