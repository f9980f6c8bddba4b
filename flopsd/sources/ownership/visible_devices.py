"""The devices that the job's environment lets it see.

CUDA_VISIBLE_DEVICES by the CUDA programming guide ("Environment Variables", 13.4): unset is all, empty is
none; indices or UUIDs, which may be abbreviated; the first entry that is no device ends the list.
NVIDIA_VISIBLE_DEVICES by the NVIDIA Container Toolkit ("GPU Enumeration"): only UUIDs in it mean the same
inside a container as outside.
NEURON_RT_VISIBLE_CORES by the Neuron Runtime configuration guide: core indices and inclusive ranges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from flopsd.core.model import Device
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.device_names import find, unidentified
from flopsd.sources.ownership.rule import AWS, NVIDIA, Lookup, Ownership, OwnershipResult

_CUDA_ENTRY = re.compile(r"\d+|GPU-\S+|MIG-\S+", re.ASCII)
_CORES = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?", re.ASCII)
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NEURON_RT_VISIBLE_CORES", "NEURON_RT_NUM_CORES")


def cuda_visible(text: str, devices: Sequence[Device], lookup: Lookup) -> list[Device]:
    """What CUDA_VISIBLE_DEVICES=`text` leaves of `devices`, in CUDA's order.

    Where the variable names several MIG slices, all are this job's, though older drivers use only the first.
    Raises OwnershipError for the beginning of several UUIDs, of which CUDA does not say what it does.
    """
    seen: dict[str, Device] = {}
    lost = any(unidentified(device) for device in devices)
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


def neuron_cores(text: str) -> frozenset[int]:
    """The core indices of NEURON_RT_VISIBLE_CORES=`text`, such as `0-3,5`. Raises OwnershipError."""
    cores: set[int] = set()
    for part in text.split(","):
        match = _CORES.fullmatch(part.strip())
        if match is None or int(match["last"] or match["first"]) < int(match["first"]):
            raise OwnershipError(
                f"NEURON_RT_VISIBLE_CORES={text!r} is not a list of cores", hint="expected such as 0-3 or 0,2,5-7"
            )
        cores.update(range(int(match["first"]), int(match["last"] or match["first"]) + 1))
    return frozenset(cores)


def chips_of(cores: frozenset[int], cores_per_chip: int) -> dict[int, int]:
    """By chip index, how many of `cores` it holds."""
    held: dict[int, int] = {}
    for core in cores:
        held[core // cores_per_chip] = held.get(core // cores_per_chip, 0) + 1
    return held


class VisibleRule:
    """The devices that this process's environment lets a job see."""

    constant = True
    lasting = True

    def __init__(self, environment: Mapping[str, str], lookup: Lookup, cores_per_chip: int | None = None) -> None:
        self._environment, self._lookup, self._cores_per_chip = environment, lookup, cores_per_chip
        told = [f"{name}={environment[name]}" for name in _VARIABLES if name in environment]
        self.words = f"the devices that {' and '.join(told)} leave visible" if told else "all: no variable hides any"

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        verdicts: dict[str, Ownership] = {}
        verdicts.update(self._nvidia([device for device in devices if device.vendor == NVIDIA]))
        verdicts.update(self._neuron([device for device in devices if device.vendor == AWS]))
        for device in devices:
            if device.uid not in verdicts:
                verdicts[device.uid] = Ownership(None, why=f"no variable is known that hides {device.vendor} devices")
        return OwnershipResult(verdicts)

    def _nvidia(self, gpus: Sequence[Device]) -> dict[str, Ownership]:
        told = self._environment.get("CUDA_VISIBLE_DEVICES")
        if told is not None:
            self._check_order(told, gpus)
        mine = {device.uid for device in (gpus if told is None else cuda_visible(told, gpus, self._lookup))}
        by_runtime = nvidia_visible(self._environment.get("NVIDIA_VISIBLE_DEVICES", ""), gpus, self._lookup)
        if by_runtime is not None:
            mine &= {device.uid for device in by_runtime}
        restricted = told is not None or by_runtime is not None
        return {
            device.uid: Ownership(None, why="it cannot be identified, and may be one that is visible")
            if restricted and unidentified(device) and device.uid not in mine
            else Ownership(device.uid in mine)
            for device in gpus
        }

    def _check_order(self, told: str, gpus: Sequence[Device]) -> None:
        """Indices are CUDA's, fastest GPU first unless it is told otherwise: unlike GPUs may be in another order."""
        by_index = any(part.strip().isdigit() for part in told.split(","))
        order = self._environment.get("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
        models = {device.model for device in gpus if device.parent is None and not unidentified(device)}
        if by_index and order != "PCI_BUS_ID" and len(models) > 1:
            raise OwnershipError(
                f"CUDA_VISIBLE_DEVICES={told!r} counts GPUs in CUDA's order, which is not known for unlike GPUs",
                hint="set CUDA_DEVICE_ORDER=PCI_BUS_ID, for the job too, or name GPUs by UUID",
            )

    def _neuron(self, chips: Sequence[Device]) -> dict[str, Ownership]:
        cores, count = (self._environment.get(f"NEURON_RT_{name}_CORES") for name in ("VISIBLE", "NUM"))
        per_chip = self._cores_per_chip
        if cores is None and count in (None, "", "0"):
            return {chip.uid: Ownership(True) for chip in chips}
        if per_chip is None:
            return _all_unknown(chips, "how many cores a chip has is not known")
        if cores is None:
            if count is not None and count.isdigit() and int(count) == per_chip * len(chips):
                return {chip.uid: Ownership(True) for chip in chips}
            return _all_unknown(
                chips, "NEURON_RT_NUM_CORES says how many cores, not which: set NEURON_RT_VISIBLE_CORES"
            )
        held = chips_of(neuron_cores(cores), per_chip)
        part = "other cores of this chip are not this job's"
        return {
            chip.uid: Ownership(chip.index in held, part if 0 < held.get(chip.index, 0) < per_chip else None)
            for chip in chips
        }


def _all_unknown(devices: Sequence[Device], why: str) -> dict[str, Ownership]:
    return {device.uid: Ownership(None, why=why) for device in devices}
