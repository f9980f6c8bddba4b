"""Access to the driver's profiling counters in words, and the one thing to do about it, by platform."""

from __future__ import annotations

from collections.abc import Collection

from flopsd.sources.nvml.profiling_access import ProfilingAccess

_WHY = {
    ProfilingAccess.OPEN_TO_ALL: "open to every process (RmProfilingAdminOnly is 0)",
    ProfilingAccess.OPEN_BY_CAPABILITY: "open to this process: it has CAP_SYS_ADMIN",
    ProfilingAccess.PERFMON_ONLY: "not known to be open: this process has CAP_PERFMON, not CAP_SYS_ADMIN; that is "
    "enough for NVIDIA's open kernel modules of driver 580",
    ProfilingAccess.NO_CAPABILITY: "closed to this process: the driver reserves them for administrators "
    "(RmProfilingAdminOnly is 1), and this process has neither CAP_SYS_ADMIN nor CAP_PERFMON",
    ProfilingAccess.USER_NAMESPACE: "closed to this process: the driver reserves them for administrators "
    "(RmProfilingAdminOnly is 1) and does not accept the capabilities of a user namespace, which this process has",
    ProfilingAccess.CONFIDENTIAL_COMPUTING: "closed to every process: confidential computing is on",
    ProfilingAccess.UNKNOWN: "not known to be open: /proc/driver/nvidia/params cannot be read, or does not say",
}
_EXPORTER = "flopsd reads them through a dcgm-exporter (source dcgm), which needs no privilege for flopsd"
_CLOSED = {
    "sagemaker-training": "as far as is known a training job's container never has this capability: declare the number "
    "formats with --precision, which lowers the ceiling; on HyperPod a dcgm-exporter can run next to the job",
    "kubernetes": "run dcgm-exporter's DaemonSet, whose container has SYS_ADMIN, on HyperPod EKS too; " + _EXPORTER,
    "slurm": "start a dcgm-exporter as root with the node, on HyperPod by enable_observability=True; " + _EXPORTER,
    "host": "run a dcgm-exporter as root, or load the module with NVreg_RestrictProfilingToAdminUsers=0 and run it as "
    "any user; " + _EXPORTER,
}
_OPEN = "install dcgm-exporter and DCGM: flopsd starts it if nothing else uses the counters; or run one: " + _EXPORTER
_STARTS = (
    "none: `flopsd run` starts {} to read them, which shuts out other profilers; --dcgm-hostengine off prevents it"
)
_SERVED = "a dcgm-exporter runs here but does not answer at --dcgm-url: give its address, unless a flopsd started it"
_HOSTENGINE = "a DCGM hostengine runs here: also run `dcgm-exporter --remote-hostengine-info localhost:5555`; "


_MIG_CLOSED = {
    "sagemaker-training": "none is known in a training job: the service decides what its container gets",
    "kubernetes": "give the container SYS_ADMIN and NVIDIA_MIG_MONITOR_DEVICES=all; in the chart: gpu.migMonitor=true",
    "slurm": "run flopsd as root, or let the job's user and cgroup read the capability's file in /dev/nvidia-caps",
    "host": "run flopsd as root, or let its user read the capability's file in /dev/nvidia-caps; in a container give "
    "NVIDIA_MIG_MONITOR_DEVICES=all",
}


def mig_advice(platform: str) -> str:
    """Return what opens the MIG monitor capability."""
    return _MIG_CLOSED.get(platform, _MIG_CLOSED["host"])


def words_of(access: ProfilingAccess) -> str:
    return _WHY[access]


def advice(access: ProfilingAccess, platform: str, servers: Collection[str] = (), program: str | None = None) -> str:
    """Return the one thing to do if a GPU here can be measured by nothing else. `servers`: those that run here.
    `program`: what flopsd would start."""
    if access is ProfilingAccess.CONFIDENTIAL_COMPUTING:
        return "none in this mode: counters and confidential computing exclude each other"
    if "dcgm-exporter" in servers:
        return _SERVED
    if "nv-hostengine" in servers:
        return _HOSTENGINE + _EXPORTER
    if access.is_open and program is not None:
        return _STARTS.format(program)
    return _OPEN if access.is_open or access is ProfilingAccess.PERFMON_ONLY else _CLOSED.get(platform, _CLOSED["host"])
