"""Devices by the names that schedulers, device plugins and people give them.

Forms: an index `1`; a UUID `GPU-…` or the beginning of one, as CUDA allows; `MIG-…`; the older
`MIG-GPU-…/GI/CI`; `nvidia1` and `nvidia1/gi3`, as GKE's device plugin names them. A GPU stands for all its slices.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flopsd.core.model import Device
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.rule import Lookup, Ownership, OwnershipResult

_OLD_MIG = re.compile(r"MIG-(?P<gpu>GPU-[^/]+)/(?P<instance>\d+)/\d+")
_NODE = re.compile(r"nvidia(?P<index>\d+)(?:/gi(?P<instance>\d+))?")


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


def slice_of(index: int, instance: int, devices: Sequence[Device], lookup: Lookup) -> list[Device]:
    """The MIG slices of a GPU, by its index and the GPU instance's id."""
    return _instance(_at_index(index, devices, lookup), instance, devices, lookup)


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


def unidentified(device: Device) -> bool:
    """A device that its driver cannot even name can be any of those that were not found."""
    return device.model == "unidentified"


def judge_names(names: Sequence[str], devices: Sequence[Device], lookup: Lookup) -> OwnershipResult:
    """This job's are the devices that `names` stand for."""
    mine: set[str] = set()
    unmatched: list[str] = []
    for name in names:
        found = find(name, devices, lookup)
        mine |= {device.uid for device in found}
        if not found:
            unmatched.append(name)
    return OwnershipResult(verdicts(mine, devices, unmatched), tuple(unmatched))


def verdicts(mine: set[str], devices: Sequence[Device], unmatched: Sequence[str]) -> dict[str, Ownership]:
    """Yes for `mine`, no for the others, save those that may be one of `unmatched`."""
    why = f"it cannot be identified, and may be {', '.join(unmatched)}"
    return {
        device.uid: Ownership(None, why=why)
        if unmatched and unidentified(device) and device.uid not in mine
        else Ownership(device.uid in mine)
        for device in devices
    }


class NamedRule:
    """The devices that the setting names, by UUID or index."""

    constant = True
    lasting = True

    def __init__(self, names: Sequence[str], lookup: Lookup) -> None:
        self._names, self._lookup = tuple(names), lookup
        self.words = f"the devices named in the settings ({', '.join(names)})"

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        return judge_names(self._names, devices, self._lookup)
