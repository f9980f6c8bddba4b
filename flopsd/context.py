"""Where flopsd runs: SageMaker training job, HyperPod, Slurm, Kubernetes, plain host. Asks files and variables only."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Context:
    """Identity of run, node and attempt. None is what the platform does not say."""

    platform: str
    job_name: str | None
    job_arn: str | None
    node: str
    rank: int | None
    roster: tuple[str, ...]
    instance_type: str | None
    boot_id: str
    attempt: str

    def for_journal(self) -> dict[str, Any]:
        """The parts that the ledger repeats."""
        return {
            "run": {"platform": self.platform, "jobName": self.job_name, "jobArn": self.job_arn},
            "node": {"rank": self.rank, "roster": list(self.roster), "instanceType": self.instance_type},
            "attempt": self.attempt,
        }


def find_context(environment: Mapping[str, str], root: Path = Path("/")) -> Context:
    """The context of this process. `root` stands before every file that is read."""
    boot_id = _read(root / "proc/sys/kernel/random/boot_id") or "unknown"
    resources = _json(root / "opt/ml/input/config/resourceconfig.json")
    host = socket.gethostname() or "unknown"
    if environment.get("TRAINING_JOB_NAME") or resources:
        hosts = tuple(str(h) for h in resources.get("hosts", ()))
        node = str(resources.get("current_host", host))
        return Context(
            "sagemaker-training",
            environment.get("TRAINING_JOB_NAME"),
            environment.get("TRAINING_JOB_ARN"),
            node,
            hosts.index(node) if node in hosts else None,
            hosts,
            resources.get("current_instance_type"),
            boot_id,
            environment.get("FLOPSD_ATTEMPT_ID") or boot_id,
        )
    if environment.get("SLURM_JOB_ID"):
        rank = environment.get("SLURM_NODEID", "")
        return Context(
            "slurm",
            f"slurm-{environment['SLURM_JOB_ID']}",
            None,
            environment.get("SLURMD_NODENAME", host),
            int(rank) if rank.isdigit() else None,
            (),
            None,
            boot_id,
            environment.get("SLURM_RESTART_COUNT", "0"),
        )
    if environment.get("KUBERNETES_SERVICE_HOST") and environment.get("POD_NAME"):
        return _pod(environment, boot_id)
    return Context("host", None, None, host, None, (), None, boot_id, boot_id)


def _pod(environment: Mapping[str, str], boot_id: str) -> Context:
    """Of a pod, as the downward API tells it: docs/kubernetes.md.

    Names of jobs come again when a job is deleted, so part of its UID is in the name here. A pod of an indexed job
    has its index for a rank, and keeps its name when it is replaced. The attempts of a pod have no number of their own.
    """
    name, uid, index = (environment.get(key, "") for key in ("JOB_NAME", "JOB_UID", "JOB_COMPLETION_INDEX"))
    rank = int(index) if index.isascii() and index.isdigit() else None
    indexed = f"{name}-{rank}" if name and rank is not None else None
    return Context(
        "kubernetes",
        (f"{name}-{uid[:8]}" if uid else name) or None,
        None,
        indexed or environment.get("NODE_NAME") or environment["POD_NAME"],
        rank,
        (),
        environment.get("INSTANCE_TYPE") or None,
        boot_id,
        environment.get("FLOPSD_ATTEMPT_ID") or boot_id,
    )


def new_run_id(utc: str) -> str:
    """A fresh name for a run that has none: its second of birth and eight random digits."""
    stamp = utc[:19].replace("-", "").replace(":", "")
    return f"run-{stamp}Z-{os.urandom(4).hex()}"


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """$STATE_DIRECTORY (systemd), /var/lib/flopsd as root, else the user's state folder."""
    given = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/flopsd")
    home = environment.get("XDG_STATE_HOME") or str(Path(environment.get("HOME", "/")) / ".local/state")
    return Path(home) / "flopsd"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
