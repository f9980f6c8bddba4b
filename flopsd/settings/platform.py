"""Detects the platform (SageMaker, Slurm, Kubernetes or a plain host) from files and variables only."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flopsd.core.dataclass import dataclass

SAGEMAKER = "sagemaker-training"
_NUMBER = re.compile("[0-9]{1,18}")
_ONE_TASK = re.compile(r"1(\(x\d+\))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Context:
    """Identity of run, node and attempt. None: not provided by the platform."""

    platform: str
    job_name: str | None
    node: str
    boot_id: str
    attempt: str
    rank: int | None = None
    job_arn: str | None = None
    job_nodes: tuple[str, ...] = ()
    instance_type: str | None = None
    # For a scheduler that may reuse job names: when this job began, in seconds of the scheduler's wall clock. None: not
    # known, or the job had begun before.
    job_began_s: int | None = None

    def for_journal(self) -> dict[str, Any]:
        return {
            "run": {"platform": self.platform, "jobName": self.job_name, "jobArn": self.job_arn},
            "node": {"rank": self.rank, "jobNodes": list(self.job_nodes), "instanceType": self.instance_type},
            "attempt": self.attempt,
        }


def find_context(environment: Mapping[str, str], root: Path = Path("/")) -> Context:
    """The context of this process. `root` is prefixed to every file that is read. Bytes of names that are not UTF-8 are
    escaped: no journal, metric or ledger could state them."""
    environment = {name: os.fsencode(value).decode("utf-8", "backslashreplace") for name, value in environment.items()}
    # If it is unreadable, daemon starts must not seem to share a boot: compute between them would count as this run's.
    boot_id = _read(root / "proc/sys/kernel/random/boot_id") or f"unknown-{os.urandom(16).hex()}"
    resources = _json(root / "opt/ml/input/config/resourceconfig.json")
    host = os.fsencode(socket.gethostname()).decode("utf-8", "backslashreplace") or "unknown"
    if environment.get("TRAINING_JOB_NAME") or environment.get("TRAINING_JOB_ARN") or resources:
        return _sagemaker(environment, resources, host, boot_id)
    if environment.get("SLURM_JOB_ID"):
        return _slurm(environment, host, boot_id)
    if environment.get("KUBERNETES_SERVICE_HOST") and environment.get("POD_NAME"):
        return _pod(environment, boot_id)
    return Context("host", None, host, boot_id, boot_id)


def _sagemaker(environment: Mapping[str, str], resources: Mapping[str, Any], host: str, boot_id: str) -> Context:
    """A training job. A second attempt has the same name on another machine, so the boot id distinguishes attempts."""
    groups = [group for group in _list(resources, "instance_groups") if isinstance(group, dict)]
    hosts = tuple(map(str, _list(resources, "hosts"))) or tuple(
        str(name) for group in groups for name in _list(group, "hosts")
    )
    node = str(resources.get("current_host") or host)
    here = (group.get("instance_type") for group in groups if node in _list(group, "hosts"))
    instance_type = resources.get("current_instance_type") or next(here, None)
    arn = environment.get("TRAINING_JOB_ARN")
    return Context(
        SAGEMAKER,
        environment.get("TRAINING_JOB_NAME") or (arn.rpartition("/")[2] if arn else None) or None,
        node,
        boot_id,
        environment.get("FLOPSD_ATTEMPT_ID") or boot_id,
        hosts.index(node) if node in hosts else None,
        arn,
        hosts,
        instance_type if isinstance(instance_type, str) else None,
    )


def _slurm(environment: Mapping[str, str], host: str, boot_id: str) -> Context:
    """A node of a Slurm job. The node list is not used, since it changes when a job is requeued."""
    attempt = environment.get("SLURM_RESTART_COUNT", "0")
    return Context(
        "slurm",
        f"slurm-{environment['SLURM_JOB_ID']}",
        _slurm_node(environment, host),
        boot_id,
        attempt,
        _number(environment, "SLURM_PROCID" if tasks_have_own_gpus(environment) else "SLURM_NODEID"),
        job_began_s=_number(environment, "SLURM_JOB_START_TIME") if attempt == "0" else None,
    )


def _slurm_node(environment: Mapping[str, str], host: str) -> str:
    node = environment.get("SLURMD_NODENAME", host)
    return f"{node}-task{environment.get('SLURM_LOCALID')}" if tasks_have_own_gpus(environment) else node


def scheduler_labels(environment: Mapping[str, str]) -> dict[str, str]:
    """Prometheus labels that name a Slurm job and its user; none elsewhere."""
    names = {"slurm_job_id": "SLURM_JOB_ID", "slurm_user": "SLURM_JOB_USER"}
    return {label: environment[name] for label, name in names.items() if environment.get(name)}


def tasks_have_own_gpus(environment: Mapping[str, str]) -> bool:
    """Whether Slurm binds GPUs to single tasks of a node, so that a task may not see the others' GPUs. Each task is
    then metered as a node."""
    per_node = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    if not environment.get("SLURM_LOCALID") or _ONE_TASK.fullmatch(per_node):
        return False
    bound = environment.get("SLURM_GPU_BIND", "none")
    a_task = environment.get("SLURM_GPUS_PER_TASK") or "gres/gpu" in environment.get("SLURM_TRES_PER_TASK", "")
    return bool(a_task) or not bound.endswith("none")


def metered_by_task(environment: Mapping[str, str]) -> int | None:
    """The local number of this Slurm task if task 0 of the node meters its devices; otherwise None."""
    if not environment.get("SLURM_JOB_ID") or tasks_have_own_gpus(environment):
        return None
    return _number(environment, "SLURM_LOCALID") or None


def _pod(environment: Mapping[str, str], boot_id: str) -> Context:
    """A pod, from variables set by the downward API: docs/kubernetes.md. The name of a deleted job can be reused, so
    the run's name includes part of its UID. In an indexed job a pod's index is its rank, and a replacement pod keeps
    the node name. Attempts of a pod are not numbered."""
    name, uid = (environment.get(key, "") for key in ("JOB_NAME", "JOB_UID"))
    rank = _number(environment, "JOB_COMPLETION_INDEX")
    indexed = f"{name}-{rank}" if name and rank is not None else None
    return Context(
        "kubernetes",
        (f"{name}-{uid[:8]}" if uid else name) or None,
        indexed or environment.get("NODE_NAME") or environment["POD_NAME"],
        boot_id,
        environment.get("FLOPSD_ATTEMPT_ID") or boot_id,
        rank,
        instance_type=environment.get("INSTANCE_TYPE") or None,
    )


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else None


def _list(mapping: Mapping[str, Any], key: str) -> list[Any]:
    found = mapping.get(key)
    return found if isinstance(found, list) else []


def new_run_id(utc: str) -> str:
    """A name for a run that has none: the second of its start and eight random hex digits."""
    stamp = utc[:19].replace("-", "").replace(":", "")
    return f"run-{stamp}Z-{os.urandom(4).hex()}"


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """$STATE_DIRECTORY (systemd), else /var/lib/flopsd as root, else the user's state folder. In a Slurm job, a
    subfolder for job and node, since nodes often share a home."""
    given = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    home = environment.get("XDG_STATE_HOME") or str(Path(environment.get("HOME", "/")) / ".local/state")
    folder = Path("/var/lib/flopsd") if os.geteuid() == 0 else Path(home) / "flopsd"
    if environment.get("SLURM_JOB_ID"):
        node = _slurm_node(environment, socket.gethostname() or "unknown")
        return folder / f"slurm-{environment['SLURM_JOB_ID']}" / node
    return folder


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
