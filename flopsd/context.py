"""Where flopsd runs: SageMaker training job, HyperPod, Slurm, plain host. Asks files and variables only."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAGEMAKER = "sagemaker-training"


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
    if environment.get("TRAINING_JOB_NAME") or environment.get("TRAINING_JOB_ARN") or resources:
        return _sagemaker(environment, resources, host, boot_id)
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
    return Context("host", None, None, host, None, (), None, boot_id, boot_id)


def _sagemaker(environment: Mapping[str, str], resources: Mapping[str, Any], host: str, boot_id: str) -> Context:
    """A training job. A second attempt has the same name on another machine, so the boot tells attempts apart."""
    groups = [group for group in _list(resources, "instance_groups") if isinstance(group, dict)]
    hosts = tuple(map(str, _list(resources, "hosts"))) or tuple(
        str(name) for group in groups for name in _list(group, "hosts")
    )
    node = str(resources.get("current_host", host))
    here = (group.get("instance_type") for group in groups if node in _list(group, "hosts"))
    instance_type = resources.get("current_instance_type") or next(here, None)
    arn = environment.get("TRAINING_JOB_ARN")
    return Context(
        SAGEMAKER,
        environment.get("TRAINING_JOB_NAME") or (arn.rpartition("/")[2] if arn else None) or None,
        arn,
        node,
        hosts.index(node) if node in hosts else None,
        hosts,
        instance_type if isinstance(instance_type, str) else None,
        boot_id,
        environment.get("FLOPSD_ATTEMPT_ID") or boot_id,
    )


def _list(mapping: Mapping[str, Any], key: str) -> list[Any]:
    found = mapping.get(key)
    return found if isinstance(found, list) else []


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
