"""Which NVIDIA GPUs are a job's: their variables, container resources and processes. Of both sources, nvml and dcgm.

CUDA_VISIBLE_DEVICES by the CUDA programming guide ("Environment Variables", 13.4): unset is all, empty is
none; indices or UUIDs, which may be abbreviated; the first entry that is no device ends the list.
NVIDIA_VISIBLE_DEVICES by the NVIDIA Container Toolkit ("GPU Enumeration"): only UUIDs in it mean the same
inside a container as outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from flopsd.core.model import Device, DeviceUid
from flopsd.errors import OwnershipError
from flopsd.sources.nvml.device_names import Lookup, find
from flopsd.sources.nvml.lookup import NvmlLookup
from flopsd.sources.ownership.rule import Ownership, VendorDevices, is_unidentified

_CUDA_ENTRY = re.compile(r"\d+|GPU-\S+|MIG-\S+", re.ASCII)
_REPLICA_MARKS = ("::", "/vgpu")  # of time-slicing: NVIDIA's device plugin, GKE's


class NvidiaDevices(VendorDevices):
    variables = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
    resources = ("nvidia.com/",)  # gpu, mig-…, gpu.shared, and whatever operators rename them to
    in_job_mapping = True

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup if lookup is not None else NvmlLookup()

    def find(self, name: str, devices: Sequence[Device]) -> list[Device]:
        return find(name, devices, self._lookup)

    def visible(self, environment: Mapping[str, str], devices: Sequence[Device]) -> Mapping[DeviceUid, Ownership]:
        cuda = environment.get("CUDA_VISIBLE_DEVICES")
        if cuda is not None:
            _check_order(cuda, environment, devices)
        mine = {device.uid for device in (devices if cuda is None else cuda_visible(cuda, devices, self._lookup))}
        by_runtime = nvidia_visible(environment.get("NVIDIA_VISIBLE_DEVICES", ""), devices, self._lookup)
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
        """Ids are NVIDIA's device plugin's (`GPU-…`, `MIG-…`, `GPU-…::2` for a time-slicing replica) and GKE's
        (`nvidia0`, `nvidia0/gi3`, `nvidia0/vgpu1`)."""
        for mark in _REPLICA_MARKS:
            device_id = device_id.partition(mark)[0]
        return self.find(device_id, devices)

    def is_replica(self, device_id: str) -> bool:
        return any(mark in device_id for mark in _REPLICA_MARKS)

    def processes(self, uid: DeviceUid) -> frozenset[int] | None:
        return self._lookup.processes(uid)


def cuda_visible(text: str, devices: Sequence[Device], lookup: Lookup) -> list[Device]:
    """What CUDA_VISIBLE_DEVICES=`text` leaves of `devices`, in CUDA's order.

    Where the variable names several MIG slices, all are this job's, though older drivers use only the first.
    Raises OwnershipError for the beginning of several UUIDs, of which CUDA does not say what it does.
    """
    seen: dict[str, Device] = {}
    lost = any(is_unidentified(device) for device in devices)
    for entry in (part.strip() for part in text.split(",")):
        found = find(entry, devices, lookup) if _CUDA_ENTRY.fullmatch(entry) else []
        if not found and lost and entry.startswith(("GPU-", "MIG-")):
            continue  # it may be the lost GPU, which the job saw when it began
        if not found:
            break
        seen.update((device.uid, device) for device in found)
    return list(seen.values())


def nvidia_visible(text: str, devices: Sequence[Device], lookup: Lookup) -> list[Device] | None:
    """The devices whose UUIDs NVIDIA_VISIBLE_DEVICES=`text` names; None where it holds anything but UUIDs:
    its indices are those of the host, and what it keeps out is not visible anyway."""
    entries = [part.strip() for part in text.split(",")]
    if not all(entry.startswith(("GPU-", "MIG-")) for entry in entries):
        return None
    named = {device.uid for entry in entries for device in find(entry, devices, lookup)}
    return [device for device in devices if device.uid in named]


def _check_order(cuda: str, environment: Mapping[str, str], gpus: Sequence[Device]) -> None:
    """Indices are CUDA's, fastest GPU first unless the job sets another order: unlike GPUs may be in another order."""
    by_index = any(part.strip().isdigit() for part in cuda.split(","))
    order = environment.get("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    models = {device.model for device in gpus if device.parent is None and not is_unidentified(device)}
    if by_index and order != "PCI_BUS_ID" and len(models) > 1:
        raise OwnershipError(
            f"CUDA_VISIBLE_DEVICES={cuda!r} counts GPUs in CUDA's order, which is not known for unlike GPUs",
            hint="set CUDA_DEVICE_ORDER=PCI_BUS_ID, for the job too, or name GPUs by UUID",
        )
