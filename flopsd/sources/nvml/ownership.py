"""Which NVIDIA GPUs are a job's, by environment variables, container resources and processes, for nvml and dcgm.

CUDA_VISIBLE_DEVICES by the CUDA programming guide ("Environment Variables", 13.4): unset is all, empty is
none; indices or UUIDs, which may be abbreviated; the first entry that is not a device ends the list.
NVIDIA_VISIBLE_DEVICES by the NVIDIA Container Toolkit ("GPU Enumeration"): only UUIDs in it mean the same
inside a container as outside.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from flopsd.core.model import Device, DeviceUid
from flopsd.errors import OwnershipError
from flopsd.sources.nvml.gpu_threads import GpuThreads
from flopsd.sources.ownership.rule import Ownership, VendorDevices, is_unidentified
from flopsd.system.clock import SystemClock

_CUDA_ENTRY = re.compile(r"\d{1,9}|GPU-\S+|MIG-\S+", re.ASCII)
_REPLICA_MARKS = ("::", "/vgpu")  # of time-slicing: NVIDIA's device plugin, GKE's
_OLD_MIG = re.compile(r"MIG-(?P<gpu>GPU-[^/]+)/(?P<instance>\d{1,9})/\d+")
_NODE = re.compile(r"nvidia(?P<index>\d{1,9})(?:/gi(?P<instance>\d{1,9}))?")
Processes: TypeAlias = Callable[[DeviceUid], frozenset[int] | None]
_UNINITIALIZED, _NOT_SUPPORTED, _FUNCTION_NOT_FOUND = 1, 3, 13  # of NVML


class NvidiaDevices(VendorDevices):
    variables = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
    resources = ("nvidia.com/",)  # gpu, mig-…, gpu.shared, and whatever operators rename them to
    in_job_mapping = True

    def __init__(self, processes: Processes | None = None) -> None:
        """`processes` returns the process ids on a device, as NVML lists them."""
        self._processes = NvmlProcesses().on if processes is None else processes

    def find(self, name: str, devices: Sequence[Device]) -> list[Device]:
        return find(name, devices)

    def visible(self, environment: Mapping[str, str], devices: Sequence[Device]) -> Mapping[DeviceUid, Ownership]:
        cuda = environment.get("CUDA_VISIBLE_DEVICES")
        if cuda is not None:
            _check_order(cuda, environment, devices)
        mine = {device.uid for device in (devices if cuda is None else cuda_visible(cuda, devices))}
        by_runtime = nvidia_visible(environment.get("NVIDIA_VISIBLE_DEVICES", ""), devices)
        if by_runtime is not None:
            mine &= {device.uid for device in by_runtime}
        restricted = cuda is not None or by_runtime is not None
        return {
            device.uid: Ownership(None, why="it cannot be identified, and may be one that is visible")
            if restricted and is_unidentified(device) and device.uid not in mine
            else Ownership(device.uid in mine)
            for device in devices
        }

    def allocated(self, resource: str, device_id: str, devices: Sequence[Device]) -> list[Device]:  # noqa: ARG002
        """Return the devices of an id of NVIDIA's device plugin (`GPU-…`, `MIG-…`, `GPU-…::2` for a time-slicing
        replica) or of GKE's (`nvidia0`, `nvidia0/gi3`, `nvidia0/vgpu1`)."""
        for mark in _REPLICA_MARKS:
            device_id = device_id.partition(mark)[0]
        return self.find(device_id, devices)

    def is_replica(self, device_id: str) -> bool:
        return any(mark in device_id for mark in _REPLICA_MARKS)

    def processes(self, uid: DeviceUid) -> frozenset[int] | None:
        return self._processes(uid)


def cuda_visible(text: str, devices: Sequence[Device]) -> list[Device]:
    """Return what CUDA_VISIBLE_DEVICES=`text` leaves of `devices`, in CUDA's order. If the variable names several MIG
    slices, all are this job's, though older drivers use only the first. Raises OwnershipError for a text that several
    UUIDs begin with: CUDA does not say what it does then."""
    seen: dict[str, Device] = {}
    lost = any(is_unidentified(device) for device in devices)
    for entry in (part.strip() for part in text.split(",")):
        found = find(entry, devices) if _CUDA_ENTRY.fullmatch(entry) else []
        if not found and lost and entry.startswith(("GPU-", "MIG-")):
            continue  # it may be the lost GPU, which the job saw when it began
        if not found:
            break
        seen.update((device.uid, device) for device in found)
    return list(seen.values())


def nvidia_visible(text: str, devices: Sequence[Device]) -> list[Device] | None:
    """Return the devices whose UUIDs NVIDIA_VISIBLE_DEVICES=`text` names; None if it holds anything but UUIDs: its
    indices are those of the host, and devices that it excludes are not visible anyway."""
    entries = [part.strip() for part in text.split(",")]
    if not all(entry.startswith(("GPU-", "MIG-")) for entry in entries):
        return None
    named = {device.uid for entry in entries for device in find(entry, devices)}
    return [device for device in devices if device.uid in named]


def _check_order(cuda: str, environment: Mapping[str, str], gpus: Sequence[Device]) -> None:
    """Raises OwnershipError for indices of unlike GPUs: CUDA orders them by speed unless the job sets another order."""
    by_index = any(part.strip().isdigit() for part in cuda.split(","))
    order = environment.get("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    models = {device.model for device in gpus if device.parent is None and not is_unidentified(device)}
    if by_index and order != "PCI_BUS_ID" and len(models) > 1:
        raise OwnershipError(
            f"CUDA_VISIBLE_DEVICES={cuda!r} counts GPUs in CUDA's order, which is not known if their models differ",
            hint="set CUDA_DEVICE_ORDER=PCI_BUS_ID, for the job too, or name GPUs by UUID",
        )


def find(name: str, devices: Sequence[Device]) -> list[Device]:
    """Return the devices that schedulers, device plugins and people call `name`. Raises OwnershipError if ambiguous.
    Forms: an index `1`; a UUID `GPU-…` or the beginning of one, as CUDA allows; `MIG-…`; the older `MIG-GPU-…/GI/CI`;
    `nvidia1` and `nvidia1/gi3`, as GKE's device plugin names them. A GPU stands for all its slices."""
    if match := _OLD_MIG.fullmatch(name):
        return _instance(_identity(match["gpu"], devices), int(match["instance"]), devices)
    if match := _NODE.fullmatch(name):
        gpu = _at_index(int(match["index"]), devices)
        if match["instance"] is not None:
            return _instance(gpu, int(match["instance"]), devices)
        return _of(gpu, devices)
    if len(name) < 10 and name.isascii() and name.isdigit():
        return _of(_at_index(int(name), devices), devices)
    return _of(_identity(name, devices), devices)


def _of(identity: str | None, devices: Sequence[Device]) -> list[Device]:
    return [device for device in devices if identity is not None and identity in (device.uid, device.parent)]


def _instance(identity: str | None, instance: int, devices: Sequence[Device]) -> list[Device]:
    return [
        device
        for device in devices
        if device.parent is not None and (device.parent, device.gpu_instance) == (identity, instance)
    ]


def _at_index(index: int, devices: Sequence[Device]) -> str | None:
    """Return the UUID of the GPU at `index`; a slice has the index of its GPU."""
    return next((device.parent or device.uid for device in devices if device.index == index), None)


def _identity(name: str, devices: Sequence[Device]) -> str | None:
    """Return the UUID that `name` is, or the only one that begins with it. Raises OwnershipError if several do."""
    known = {device.uid for device in devices} | {device.parent for device in devices if device.parent is not None}
    folded = name.casefold()
    for identity in known:
        if identity.casefold() == folded:
            return identity
    begun = sorted(identity for identity in known if identity.casefold().startswith(folded))
    if len(begun) > 1 and folded.startswith("gpu-"):
        raise OwnershipError(
            f"{name!r} is the beginning of {len(begun)} device UUIDs", hint=f"give more of the UUID: {', '.join(begun)}"
        )
    return begun[0] if begun and folded.startswith("gpu-") else None


class NvmlProcesses:
    """Asks the pynvml module; answers None if it is missing or too old. The source that reads NVML starts and stops it.
    If no source of this process uses it, it is started here for one question only."""

    def __init__(self) -> None:
        self._lib: Any = None
        with suppress(ImportError):
            import pynvml

            self._lib = pynvml if hasattr(pynvml, "nvmlDeviceGetComputeRunningProcesses_v2") else None
        self._threads, self._asking = GpuThreads(SystemClock()), threading.Lock()

    def on(self, uid: DeviceUid) -> frozenset[int] | None:
        """Return the process ids on a device: compute, graphics, clients of MPS. None: NVML does not list them, or the
        GPU hangs; other GPUs are asked all the same. The pid namespace of the ids depends on the driver: see
        `ownership/processes.py`."""
        question = object()  # a GPU that hung may answer an earlier question
        with self._asking:
            given = self._threads.run({uid: lambda: (question, self._answer(uid))})
        for _, answer in given:
            if isinstance(answer, BaseException):
                raise answer
        return next((pids for _, (asked, pids) in given if asked is question), None)

    def _answer(self, uid: DeviceUid) -> frozenset[int] | None:
        lib = self._lib
        if lib is None:
            return None
        try:
            try:
                return _pids(lib, uid)
            except lib.NVMLError as fault:
                if fault.value != _UNINITIALIZED:
                    return None
            lib.nvmlInit()
            try:
                return _pids(lib, uid)
            finally:
                lib.nvmlShutdown()
        except lib.NVMLError:
            return None


def _pids(lib: Any, uid: DeviceUid) -> frozenset[int]:
    handle = lib.nvmlDeviceGetHandleByUUID(uid)
    pids = _running(lib, "Compute", handle)
    for kind in ("Graphics", "MPSCompute"):
        try:
            pids |= _running(lib, kind, handle)
        except lib.NVMLError as fault:
            if fault.value not in (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND):
                raise
    return pids


def _running(lib: Any, kind: str, handle: Any) -> frozenset[int]:
    """Make a versioned call: if the driver lacks the plain one, pynvml raises something other than an NVMLError. The
    second version, if there is one: drivers before 510 and 535.98 lack the third, and that of 535.43 to 535.86 has
    longer entries than pynvml reads. Source: nvidia-settings, nvml.h of each."""
    call = f"nvmlDeviceGet{kind}RunningProcesses_v"
    try:
        listed = getattr(lib, call + "2")(handle)
    except lib.NVMLError as fault:
        if fault.value != _FUNCTION_NOT_FOUND:
            raise
        listed = getattr(lib, call + "3")(handle)
    return frozenset(int(process.pid) for process in listed)
