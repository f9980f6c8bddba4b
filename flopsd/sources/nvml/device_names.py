"""NVIDIA GPUs by the names that schedulers, device plugins and people give them.

Forms: an index `1`; a UUID `GPU-…` or the beginning of one, as CUDA allows; `MIG-…`; the older
`MIG-GPU-…/GI/CI`; `nvidia1` and `nvidia1/gi3`, as GKE's device plugin names them. A GPU stands for all its slices.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from flopsd.core.model import Device, DeviceUid
from flopsd.errors import OwnershipError

_OLD_MIG = re.compile(r"MIG-(?P<gpu>GPU-[^/]+)/(?P<instance>\d+)/\d+")
_NODE = re.compile(r"nvidia(?P<index>\d+)(?:/gi(?P<instance>\d+))?")


class Lookup(Protocol):
    """What NVML reports of a device by UUID; None: nothing."""

    def index(self, uid: DeviceUid) -> int | None: ...

    def gpu_instance(self, uid: DeviceUid) -> int | None: ...

    def processes(self, uid: DeviceUid) -> frozenset[int] | None: ...


def find(name: str, devices: Sequence[Device], lookup: Lookup) -> list[Device]:
    """The devices that `name` stands for, none if there is none. Raises OwnershipError if it is ambiguous."""
    if match := _OLD_MIG.fullmatch(name):
        return _instance(_identity(match["gpu"], devices), int(match["instance"]), devices, lookup)
    if match := _NODE.fullmatch(name):
        gpu = _at_index(int(match["index"]), devices, lookup)
        if match["instance"] is not None:
            return _instance(gpu, int(match["instance"]), devices, lookup)
        return _of(gpu, devices)
    if name.isascii() and name.isdigit():
        return _of(_at_index(int(name), devices, lookup), devices)
    return _of(_identity(name, devices), devices)


def _of(identity: str | None, devices: Sequence[Device]) -> list[Device]:
    return [device for device in devices if identity is not None and identity in (device.uid, device.parent)]


def _instance(identity: str | None, instance: int, devices: Sequence[Device], lookup: Lookup) -> list[Device]:
    slices = [device for device in devices if identity is not None and device.parent == identity]
    return [device for device in slices if lookup.gpu_instance(device.uid) == instance]


def _at_index(index: int, devices: Sequence[Device], lookup: Lookup) -> str | None:
    for device in devices:
        if device.parent is None and device.index == index:
            return device.uid
    for parent in dict.fromkeys(device.parent for device in devices if device.parent is not None):
        if lookup.index(parent) == index:
            return parent
    return None


def _identity(name: str, devices: Sequence[Device]) -> str | None:
    """The UUID that `name` is, or that alone begins with it."""
    known = {device.uid for device in devices} | {device.parent for device in devices if device.parent is not None}
    folded = name.casefold()
    for identity in known:
        if identity.casefold() == folded:
            return identity
    begun = sorted(identity for identity in known if identity.casefold().startswith(folded))
    if len(begun) > 1 and folded.startswith("gpu-"):
        raise OwnershipError(
            f"{name!r} is the beginning of {len(begun)} device UUIDs", hint=f"write more of it: {', '.join(begun)}"
        )
    return begun[0] if begun and folded.startswith("gpu-") else None
