"""Every setting of flopsd, defined once: its key in flopsd.yaml, flag, variable, default and check.

Precedence: flag > environment > file > default. The parser, the help and the checks are all made from these tables, so
that no setting can exist in only one of the three places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Method, Phase, Recomputation
from flopsd.core.model import Precision
from flopsd.settings import parsers
from flopsd.settings.device_selection import DevicesSetting, parse_devices
from flopsd.settings.evidence_kinds import KINDS
from flopsd.settings.precision_shares import device_precision, precision

CONTAINER = "container"  # the value of `job_user` for a job in its own container


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective settings. None: decided by where flopsd runs."""

    sources: tuple[str, ...] = ("probe",)
    interval_seconds: float = 1.0
    checkpoint_seconds: float = 60.0
    checkpoint_output: str = "stdout"
    state_dir: str | None = None
    listen: str | None = "127.0.0.1:10188"
    file_sd: str | None = None
    web_config: str | None = None
    pushes: tuple[str, ...] = ()
    push_every_seconds: float = 15.0
    run_id: str | None = None
    key: str | None = None
    ledger: str | None = None
    ledger_copies: tuple[str, ...] = ()
    seal: bool = True
    seal_every_seconds: float | None = 900.0
    rotate_every: str | None = None
    keep_segments: int | None = None  # None: all
    precision: Precision | None = None
    device_precision: Mapping[str, Precision] = field(default_factory=dict)
    devices: DevicesSetting = field(default_factory=DevicesSetting)
    peaks: str | None = None
    duration_seconds: float | None = None
    stop_seconds: float = 60.0
    last_scrape_seconds: float = 30.0
    evidence: tuple[str, ...] = KINDS
    timestamp_url: str | None = None
    witness_url: str | None = None
    phase: str | None = None
    method: str | None = None
    recomputation: str | None = None
    base_model: str | None = None
    base_flop: int | str | None = None  # "unknown": asserted neither known nor estimable
    base_flop_method: str | None = None
    base_systemic: bool | None = None
    base_systemic_reason: str | None = None
    policies: tuple[str, ...] = ()
    client_socket: str | None = None
    client_uids: tuple[int, ...] = ()
    job_user: str | None = None
    metric_line_seconds: float | None = None  # 0: none
    stop_window_seconds: float | None = None
    wait_for_source: bool = False
    source_options: Mapping[str, Any] = field(default_factory=dict)  # by key; declared by sources, see flopsd.sources

    def value(self, key: str) -> Any:
        """The value of a setting by its key; None: not set."""
        return self.source_options.get(key) if key not in BY_KEY else getattr(self, key)


class Setting(NamedTuple):
    """One setting. `parse` takes a YAML or text value and raises ValueError, which says what is expected."""

    key: str
    metavar: str
    help: str
    parse: Callable[[object], object]
    other_flag: str = ""  # if not derived from the key
    repeatable: bool = False

    @property
    def flag(self) -> str:
        return self.other_flag or "--" + self.key.removesuffix("_seconds").replace("_", "-")

    @property
    def variable(self) -> str:
        return "FLOPSD_" + self.flag.removeprefix("--").replace("-", "_").upper()


SETTINGS: tuple[Setting, ...] = (
    Setting("sources", "NAME", "where readings come from; probe finds this machine's accelerators (default: probe)",
        parsers.sources, other_flag="--source", repeatable=True),
    Setting("interval_seconds", "SECONDS", "time between readings (default: 1)", parsers.seconds(0.1, 60)),
    Setting("checkpoint_seconds", "SECONDS", "time between fsynced checkpoints of the journal (default: 60)",
        parsers.seconds(0.2, 3600)),
    Setting("checkpoint_output", "WHERE", "where checkpoint lines go: stdout, stderr or off (default: stdout)",
        parsers.output),
    Setting("state_dir", "DIR",
        "folder of journal and key (default: $STATE_DIRECTORY, /var/lib/flopsd as root, else ~/.local/state/flopsd)",
        parsers.path),
    Setting("listen", "HOST:PORT",
        "where /metrics is served, or 'off'; HOST:FIRST-LAST takes the first free port, HOST:0 any "
        "(default: 127.0.0.1:10188)", parsers.listen),
    Setting("file_sd", "DIR",
        "folder for Prometheus's file_sd_configs, where RUN.NODE.json has the run's address and labels while it is "
        "served; or 'off' (default: off)", parsers.path_or_none),
    Setting("web_config", "FILE",
        "TLS, client certificates, users and headers for --listen, in the format of Prometheus's exporter-toolkit "
        "(default: none: plain HTTP, open to every client)", parsers.text, other_flag="--web-config-file"),
    Setting("pushes", "RECEIVER",
        "where to push metrics: pushgateway+http://HOST:PORT, otlp+http://HOST:PORT/PATH or "
        "remotewrite+http://HOST:PORT/PATH, each also with https; options follow: "
        "#auth=FILE&ca=FILE&job=NAME&sigv4=REGION&tenant=ID", parsers.pushes, other_flag="--push", repeatable=True),
    Setting("push_every_seconds", "SECONDS", "time between pushes (default: 15)", parsers.seconds(1, 3600)),
    Setting("run_id", "ID",
        "name of the run; its journal is continued after a restart (default: the platform's job name, else a new one)",
        parsers.run_id),
    Setting("key", "KEY-URI",
        "private key that signs: a PEM file, Ed25519 or P-256, or awskms:KEY or pkcs11:... "
        "(default: DIR/flopsd-key.pem, made if missing)",
        parsers.text),
    Setting("ledger", "FILE",
        "where the sealed ledger goes: a path, or s3://BUCKET/KEY (default: DIR/RUN-ID.ledger.json)",
        parsers.location),
    Setting("ledger_copies", "LOCATION", "where to copy ledger, journal and public key: a path, or "
        "s3://BUCKET/KEY?OPTIONS, joined with '&': lock=governance or lock=compliance, days=N, overwrite=never, "
        "rolling=off; {run} and {node} stand for their names", parsers.locations, other_flag="--ledger-copy",
        repeatable=True),
    Setting("seal", "BOOL", "whether to seal a ledger at the end (default: true)", parsers.flag),
    Setting("seal_every_seconds", "SECONDS", "time between rolling seals of the run so far, or 'off' (default: 900)",
        parsers.seconds_or_off(1, 86400)),
    Setting("rotate_every", "AGE|SIZE",
        "age or size at which the run continues in a new journal: 12h, 1d, 256MB; each gets a ledger, with -0001, "
        "-0002 and so on in its name, and `flopsd merge` adds them up (default: off)",
        parsers.rotate_every),
    Setting("keep_segments", "N",
        "how many closed segments of a rotated run stay on this disk; older ones are removed once their ledgers are at "
        "every --ledger-copy, which must be given (default: all)", parsers.count_or_all),
    Setting("precision", "FORMAT",
        "declared number format of tensor work: bf16, or shares of tensor cycles such as bf16:0.9,fp8:0.1 (default: "
        "undeclared: the measured figure uses what the training process declares)", precision),
    Setting("device_precision", "DEVICE=FORMAT",
        "--precision of single devices, by UUID or index: 0=bf16;1=bf16:0.9,fp8:0.1 (default: --precision for all)",
        device_precision),
    Setting("devices", "WHICH",
        "all (default), visible (CUDA_VISIBLE_DEVICES), pod (as the kubelet assigns), job or job:ID (the scheduler's "
        "job-mapping folder), processes (those of the job under exec), or UUIDs and indices", parse_devices),
    Setting("peaks", "FILE", "peak table to use instead of the packaged one", parsers.text),
    Setting("duration_seconds", "SECONDS", "stop by itself after this time (default: run on)",
        parsers.seconds(0.1, 86400 * 400)),
    Setting("stop_seconds", "SECONDS", "time that final reading, sealing and copying may take (default: 60)",
        parsers.seconds(1, 600), other_flag="--stop-within"),
    Setting("last_scrape_seconds", "SECONDS",
        "how long to wait at the end for a scrape that sees the run's end (default: 30)",
        parsers.seconds(0, 600), other_flag="--wait-for-scrape"),
    Setting("evidence", "KINDS",
        f"evidence to put into the ledger: off, or some of {', '.join(KINDS)} (default: all of them)",
        parsers.evidence),
    Setting("timestamp_url", "URL", "RFC 3161 timestamp authority that stamps the seal (default: none)",
        parsers.url),
    Setting("witness_url", "URL",
        "RFC 3161 timestamp authority that stamps the journal's head at every seal, rolling ones too "
        "(default: none)", parsers.url, other_flag="--witness"),
    Setting("phase", "PHASE",
        "declares what the whole job does: train, evaluate, generate or other. A phase that the job's processes "
        "declare narrows no bound and decides no verdict (default: undeclared)", parsers.one_of(Phase)),
    Setting("method", "METHOD",
        "declares how weights are trained: pretraining, full, partial, lora or qlora. This and the "
        "base model decide which rules apply (default: undeclared)", parsers.one_of(Method)),
    Setting("recomputation", "HOW",
        "declares activation checkpointing: none, full or selective (default: undeclared: the measured figure uses "
        "what the training process declares)", parsers.one_of(Recomputation)),
    Setting("base_model", "NAME", "name of the model that the job modifies", parsers.line),
    Setting("base_flop", "FLOP",
        "training compute of the base model, such as 7.2e23; 'unknown' asserts that it can be neither known nor "
        "estimated (default: undeclared)", parsers.flop_or_unknown),
    Setting("base_flop_method", "TEXT",
        "marks --base-flop as an estimate, made by this method, such as '6 x 8e9 x 15e12 from the model card'",
        parsers.line),
    Setting("base_systemic", "BOOL", "whether the base model carries systemic risk (default: undeclared)",
        parsers.flag),
    Setting("base_systemic_reason", "TEXT",
        "why the base model carries no systemic risk, although the law presumes it from its compute",
        parsers.line),
    Setting("policies", "POLICY",
        "a policy to compare the run with: the name of a packaged one (eu-ai-act, kr-ai-basic-act, us-ca-sb-53, "
        "us-ny-raise) or a file (default: eu-ai-act)", parsers.files, other_flag="--policy", repeatable=True),
    Setting("client_socket", "PATH",
        "Unix socket where training processes declare phases and facts, or 'off' (default: DIR/client.sock)",
        parsers.text_or_off),
    Setting("client_uids", "UIDS",
        "numeric ids of users who may connect to it, in addition to root and flopsd's user: 1000,1001 "
        "(default: none)",
        parsers.uids),
    Setting("job_user", "USER",
        "name or number of the job's user: `exec`, as root, starts the command as this user, who cannot change "
        "flopsd's files; `run` only records it, or the word container for a job in another container without "
        "flopsd's files (default: exec: flopsd's own user; run: not known)", parsers.text_or_number),
    Setting("metric_line_seconds", "SECONDS",
        "time between metric lines on stdout, or 'off' (default: 60 in a SageMaker training job, else off)",
        parsers.seconds_or_zero(1, 3600)),
    Setting("stop_window_seconds", "SECONDS",
        "under exec, the time from SIGTERM until the platform sends SIGKILL (default: 120 in a SageMaker training job, "
        "else not known)", parsers.seconds(1, 86400)),
    Setting("wait_for_source", "BOOL",
        "whether to start without an accelerator or a usable key and keep trying, instead of exiting with 4 or 2; exec "
        "always does (default: false)", parsers.flag),
)  # fmt: skip
BY_KEY: Mapping[str, Setting] = {setting.key: setting for setting in SETTINGS}
