"""The devices on which this job's processes run: NVML's process list compared with the tree below the job's root.

The pid namespace of NVML's ids depends on the driver: open-gpu-kernel-modules (os_find_ns_pid) translates them to the
caller's and leaves out processes that are not in it; older drivers give the host's ids, which mean nothing in a
container. So ids are compared in the initial namespace, or through the host's /proc (HOST_PROC), or if every one of
them exists here; otherwise it is not known whose they are. Only the number of others' processes is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Device
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.rule import Ownership, OwnershipResult, VendorDevices
from flopsd.system.guarded_child import START, stat_fields

_INITIAL_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of include/linux/proc_ns.h
_MPS_SERVER = "nvidia-cuda-mps"  # the MPS server holds the device for its clients and belongs to no job


@dataclass(frozen=True, slots=True)
class ProcessCensus:
    """How many of the processes on a device are the job's, another's, or of an unknown owner."""

    mine: int = 0
    others: int = 0
    unknown: int = 0


class JobProcesses:
    """The job's root process and all its descendants."""

    def __init__(self, root_pid: int, host_proc: Path | None = None, *, initial: bool | None = None) -> None:
        """`host_proc`: where the host's /proc is mounted. `initial`: whether this process is in the initial pid
        namespace; None: ask the kernel. Raises OwnershipError if there is no such root process."""
        self.root_pid = root_pid
        try:
            self._root = psutil.Process(root_pid)
        except psutil.Error as fault:
            raise OwnershipError(
                f"the job's process {root_pid} is not there, or /proc hides it",
                hint="mount /proc without hidepid, or choose another rule than `processes`",
            ) from fault
        self._host_proc = host_proc
        self._initial = _in_initial_namespace() if initial is None else initial

    def pids(self) -> frozenset[int]:
        """Return the job's processes now, in this pid namespace. Raises OwnershipError once the root has ended."""
        try:
            if not self._root.is_running():
                raise OwnershipError(f"the job's process {self.root_pid} has ended")
            return frozenset({self.root_pid, *(child.pid for child in self._root.children(recursive=True))})
        except psutil.Error as fault:
            raise OwnershipError(f"the job's processes cannot be listed: {fault}") from fault

    def census(self, listed: Collection[int] | None, job: frozenset[int]) -> ProcessCensus | None:
        """Count the ids that NVML `listed` by whether they are in `job`. None: the driver does not list processes."""
        if listed is None:
            return None
        if self._initial:
            return _count([pid for pid in listed if _exists(pid)], job)  # the rest have just ended
        if all(map(_exists, listed)):
            return _count(listed, job)
        if self._host_proc is None:
            return ProcessCensus(unknown=len(listed))
        here = [translate(pid, self._host_proc) for pid in listed]
        known = _count([pid for pid in here if pid is not None], job)
        return replace(known, unknown=here.count(None))


def _exists(pid: int) -> bool:
    # A driver may list ids that no process can have, for which psutil raises OverflowError.
    return pid < 1 << 31 and psutil.pid_exists(pid)


def _count(pids: Collection[int], job: frozenset[int]) -> ProcessCensus:
    mine = sum(pid in job for pid in pids)
    return ProcessCensus(mine, sum(pid not in job and not _is_mps_server(pid) for pid in pids))


def _is_mps_server(pid: int) -> bool:
    try:
        return pid > 0 and psutil.Process(pid).name().startswith(_MPS_SERVER)
    except psutil.Error:
        return False


def _in_initial_namespace() -> bool:
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == _INITIAL_NAMESPACE
    except OSError:
        return False


def translate(host_pid: int, host_proc: Path) -> int | None:
    """Return the id in this pid namespace of the process that the host calls `host_pid`; 0 if it is not in this
    namespace; None if the host's /proc does not show it.

    NSpid lists a process's ids from the namespace of the mounted /proc inwards. A process of a sibling container may
    have the same number there, so everything else that is readable must be the same, too.
    """
    try:
        depth = len(_ns_pids(host_proc / "self"))
        ids = _ns_pids(host_proc / str(host_pid))
        if len(ids) < depth:
            return 0
        here = ids[depth - 1]
        there = _identity(host_proc / str(host_pid))
    except (OSError, ValueError, IndexError):
        return None
    try:
        return here if _identity(Path("/proc") / str(here)) == there else 0
    except (OSError, ValueError, IndexError):
        return 0


def _ns_pids(process: Path) -> list[int]:
    for line in (process / "status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("NSpid:"):
            return [int(word) for word in line.split()[1:]]
    raise ValueError("this kernel has no NSpid")


def _identity(process: Path) -> tuple[int, str, str]:
    """Return start in clock ticks, cgroup as seen here, and pid namespace; "" where this user may not read that."""
    stat = stat_fields((process / "stat").read_bytes())
    try:
        namespace = str((process / "ns/pid").readlink())
    except PermissionError:
        namespace = ""
    cgroup = (process / "cgroup").read_text(encoding="utf-8", errors="replace")
    return int(stat[START]), cgroup, namespace


class ProcessRule:
    """Selects the devices on which a process of the job runs. A device on which nothing runs stays what it was: a job
    that restarts its workers keeps its devices. It loses a device when only others run on it."""

    constant = False
    lasting = False

    def __init__(self, job: JobProcesses, vendor: VendorDevices) -> None:
        self._job, self._vendor = job, vendor
        self._ours: set[str] = set()
        self.words = f"the devices on which process {job.root_pid} and its descendants run"

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        job = self._job.pids()
        return OwnershipResult({device.uid: self._verdict(device, job) for device in devices})

    def _verdict(self, device: Device, job: frozenset[int]) -> Ownership:
        census = self._job.census(self._vendor.processes(device.uid), job)
        if census is None:
            return Ownership(None, why="the driver does not list the processes on it")
        if census.unknown and not census.mine:
            return Ownership(None, why="the driver gives process ids of another pid namespace")
        if census.mine:
            self._ours.add(device.uid)
        elif census.others:
            self._ours.discard(device.uid)
        return Ownership(device.uid in self._ours, others_text(census))


def others_text(census: ProcessCensus | None) -> str | None:
    if census is None or not census.others:
        return None
    return f"{census.others} process{'es' if census.others > 1 else ''} of others"


class SharingRule:
    """Counts others' processes on every device, in addition to the verdict of another rule."""

    words = "all visible devices"
    constant = False
    lasting = True

    def __init__(self, job: JobProcesses, vendor: VendorDevices) -> None:
        self._job, self._vendor = job, vendor

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        job = self._job.pids()
        counted = {device.uid: self._job.census(self._vendor.processes(device.uid), job) for device in devices}
        return OwnershipResult({uid: Ownership(True, others_text(census)) for uid, census in counted.items()})
