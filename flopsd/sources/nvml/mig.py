"""MIG: the GPU instances of a partitioned GPU, each a device with SMs of its own.

GPM counts by GPU instance. An instance is named by the UUID of its MIG device; one that is cut into several compute
instances is metered once, under the UUID of the first. Source: nvml.h 13.5.37.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Device
from flopsd.sources.nvml.driver import NOT_FOUND, NOT_OFFERED, Driver, text

MIG_IS_ON = "MIG is on"  # how the reason of a GPU without visible slices begins
PERMISSION_FIX = (
    "give the daemon the MIG monitor capability: /proc/driver/nvidia/capabilities/mig/monitor readable, "
    "in a container NVIDIA_MIG_MONITOR_DEVICES=all"
)


@dataclass(frozen=True, slots=True)
class Slice:
    """One GPU instance: its device, and the handle of its MIG device."""

    device: Device
    handle: Any
    partial: bool  # its compute instances do not cover it: what is 100 % is not known
    # SMs of the MIG device, and slices of the GPU instance; None: the driver does not say.
    size: tuple[int, int] | None = None

    def is_same_as(self, other: Slice) -> bool:
        """Whether this still is `other`: a UUID is made of the ids of GPU and instances, so an instance of another size
        can have it later."""
        mine, theirs = self.device, other.device
        sizes = mine.sm_count, mine.gpu_instance, self.size, self.partial
        return sizes == (theirs.sm_count, theirs.gpu_instance, other.size, other.partial)

    def has_changed(self, driver: Driver) -> bool:
        """Whether the MIG device at the handle has another size now. Raises NVMLError if it is gone or unreadable."""
        return self.size is not None and self.size != _size(driver.lib.nvmlDeviceGetAttributes_v2(self.handle))


def _size(attributes: Any) -> tuple[int, int]:
    return int(attributes.multiprocessorCount), int(attributes.gpuInstanceSliceCount)


def is_partitioned(driver: Driver, handle: Any) -> bool:
    """Whether MIG is on; False if the GPU has no MIG. Raises NVMLError if that is not known."""
    try:
        return bool(driver.lib.nvmlDeviceGetMigMode(handle)[0] == 1)
    except driver.lib.NVMLError as fault:
        if fault.value in NOT_OFFERED:
            return False
        raise


def slices(driver: Driver, parent: Device, handle: Any) -> list[Slice]:
    """Return the GPU instances of a partitioned GPU that this process can see. Raises NVMLError."""
    lib = driver.lib
    found: dict[int, Slice] = {}
    shares: dict[int, tuple[int, int]] = {}  # slices of compute and of the GPU instance
    for at in range(lib.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            mig = lib.nvmlDeviceGetMigDeviceHandleByIndex(handle, at)
        except lib.NVMLError as fault:
            if fault.value == NOT_FOUND:
                continue
            raise
        instance = int(lib.nvmlDeviceGetGpuInstanceId(mig))
        attributes = driver.optional(lib.nvmlDeviceGetAttributes_v2, mig)
        size = None if attributes is None else _size(attributes)
        sms = None if size is None else size[0] or None
        compute = 0 if attributes is None else int(attributes.computeInstanceSliceCount)
        whole = 0 if size is None else size[1]
        before, known = found.get(instance), shares.get(instance, (0, 0))
        shares[instance] = (known[0] + compute, whole)
        if before is None:
            _, _, profile = (text(driver.optional(lib.nvmlDeviceGetName, mig)) or "").partition(" MIG ")
            device = replace(
                parent, uid=str(lib.nvmlDeviceGetUUID(mig)), serial=None, sm_count=sms, parent=parent.uid,
                gpu_instance=instance, mig_profile=profile or None,
            )  # fmt: skip
            found[instance] = Slice(device, mig, False, size)
        else:
            both = None if sms is None or before.device.sm_count is None else before.device.sm_count + sms
            found[instance] = replace(before, device=replace(before.device, sm_count=both))
    return [replace(one, partial=shares[key][0] != shares[key][1]) for key, one in sorted(found.items())]
