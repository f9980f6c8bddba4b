"""What `doctor` says of the driver's profiling counters, and the one thing to do about them, by platform."""

from __future__ import annotations

from pathlib import Path

from flopsd.sources.nvml.profiling_access import ProfilingAccess

_WHY = {
    ProfilingAccess.OPEN_TO_ALL: "open to every process (RmProfilingAdminOnly is 0)",
    ProfilingAccess.OPEN_BY_CAPABILITY: "open to this process: it has CAP_SYS_ADMIN",
    ProfilingAccess.PERFMON_ONLY: "not known to be open: this process has CAP_PERFMON and not CAP_SYS_ADMIN, which is "
    "enough for NVIDIA's open kernel modules of driver 580",
    ProfilingAccess.NO_CAPABILITY: "closed to this process: the driver keeps them to administrators "
    "(RmProfilingAdminOnly is 1), and it has neither CAP_SYS_ADMIN nor CAP_PERFMON",
    ProfilingAccess.USER_NAMESPACE: "closed to this process: the driver keeps them to administrators "
    "(RmProfilingAdminOnly is 1), and its capabilities are those of a user namespace, which the driver does not accept",
    ProfilingAccess.CONFIDENTIAL_COMPUTING: "closed to every process: confidential computing is on",
    ProfilingAccess.UNKNOWN: "not known to be open: /proc/driver/nvidia/params cannot be read, or does not say",
}
_EXPORTER = "flopsd reads them through a dcgm-exporter (source dcgm), which needs no privilege of flopsd's"
_CLOSED = {
    "sagemaker-training": "a training job's container has no such capability, as far as is known: give --precision and "
    "declare the formats, which makes the ceiling narrower; on HyperPod a dcgm-exporter can run beside the job",
    "kubernetes": "run dcgm-exporter's DaemonSet, whose container has SYS_ADMIN; " + _EXPORTER,
    "slurm": "start a dcgm-exporter as root with the node, on HyperPod by enable_observability=True; " + _EXPORTER,
    "host": "run a dcgm-exporter as root, or load the module with NVreg_RestrictProfilingToAdminUsers=0 and run it as "
    "any user; " + _EXPORTER,
}
_OPEN = "run a dcgm-exporter: " + _EXPORTER
_HOSTENGINE = "a DCGM hostengine runs here: run `dcgm-exporter --remote-hostengine-info localhost:5555` beside it; "


def words_of(access: ProfilingAccess) -> str:
    return _WHY[access]


def advice(access: ProfilingAccess, platform: str, has_hostengine: bool) -> str:
    """The one thing to do, where a GPU here can be measured by nothing else."""
    if access is ProfilingAccess.CONFIDENTIAL_COMPUTING:
        return "none in this mode: counters and confidential computing exclude each other"
    if has_hostengine:
        return _HOSTENGINE + _EXPORTER
    return _OPEN if access.is_open or access is ProfilingAccess.PERFMON_ONLY else _CLOSED.get(platform, _CLOSED["host"])


def has_hostengine(root: Path = Path("/")) -> bool:
    """Whether a process that this one can see is DCGM's hostengine."""
    for name in (root / "proc").glob("[0-9]*/comm"):
        try:
            if name.read_text(errors="replace").strip() == "nv-hostengine":
                return True
        except OSError:  # it ended meanwhile
            continue
    return False
