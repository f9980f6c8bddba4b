"""Which Neuron chips are a job's, by environment variables and container resources.

NEURON_RT_VISIBLE_CORES by the Neuron Runtime configuration guide: core indices and inclusive ranges. Indices are of
logical cores. By AWS's page on the logical NeuronCore configuration, a Trainium2 has eight physical cores, and by
default two of them are one logical core, so that a trn2.48xlarge has 64.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from flopsd.core.model import Device, DeviceUid
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.rule import Ownership, VendorDevices, all_unknown

_CORES = re.compile(r"(?P<first>\d{1,9})(?:-(?P<last>\d{1,9}))?", re.ASCII)
_CORE = "aws.amazon.com/neuroncore"
_GROUPS = ("NEURON_LOGICAL_NC_CONFIG", "NEURON_RT_VIRTUAL_CORE_SIZE")  # the second is its former name
_MOST_CORES = 100_000  # of a machine


class NeuronDevices(VendorDevices):
    variables = ("NEURON_RT_VISIBLE_CORES", "NEURON_RT_NUM_CORES")
    resources = ("aws.amazon.com/neuron", _CORE, "aws.amazon.com/neurondevice")

    def __init__(self, cores_per_chip: int | None, environment: Mapping[str, str]) -> None:
        """`cores_per_chip`: physical cores. `environment` states how many of them are one logical core."""
        self._cores_per_chip = _logical(cores_per_chip, environment)

    def visible(self, environment: Mapping[str, str], devices: Sequence[Device]) -> Mapping[DeviceUid, Ownership]:
        cores, count = (environment.get(f"NEURON_RT_{name}_CORES") for name in ("VISIBLE", "NUM"))
        per_chip = self._cores_per_chip
        if cores is None and count in (None, "", "0"):
            return {chip.uid: Ownership(True) for chip in devices}
        if per_chip is None:
            return all_unknown(devices, "how many cores a chip has is not known")
        if cores is None:
            if count == str(per_chip * len(devices)):
                return {chip.uid: Ownership(True) for chip in devices}
            return all_unknown(
                devices, "NEURON_RT_NUM_CORES counts cores and does not name them: set NEURON_RT_VISIBLE_CORES"
            )
        held = chips_of(neuron_cores(cores), per_chip)
        if not held.keys() <= {chip.index for chip in devices}:
            why = f"NEURON_RT_VISIBLE_CORES={cores} names a core that is not here, at {per_chip} logical cores per chip"
            return all_unknown(devices, f"{why}: set NEURON_LOGICAL_NC_CONFIG")
        part = "other cores of this chip are not this job's"
        return {
            chip.uid: Ownership(chip.index in held, part if held.get(chip.index, per_chip) < per_chip else None)
            for chip in devices
        }

    def allocated(self, resource: str, device_id: str, devices: Sequence[Device]) -> list[Device]:
        """Return the chip of an id: the index of a chip, or of a core if cores are requested one by one."""
        if not (device_id.isascii() and device_id.isdigit()):
            return []
        index = int(device_id)
        if resource == _CORE:
            if self._cores_per_chip is None:
                raise OwnershipError("the kubelet names cores, but how many cores a chip has is not known")
            index //= self._cores_per_chip
        return [chip for chip in devices if chip.index == index]


def _logical(cores_per_chip: int | None, environment: Mapping[str, str]) -> int | None:
    """Return how many logical cores a chip has; None: not known."""
    if cores_per_chip is None:
        return None
    stated = next((environment[name] for name in _GROUPS if environment.get(name)), None)
    if stated is None:
        return cores_per_chip // 2 if cores_per_chip > 2 else cores_per_chip  # Trainium1 and Inferentia2 have two
    group = int(stated) if re.fullmatch(r"[1-9]\d?", stated, re.ASCII) else 0
    return cores_per_chip // group if group and cores_per_chip % group == 0 else None


def neuron_cores(text: str) -> frozenset[int]:
    """Return the core indices of NEURON_RT_VISIBLE_CORES=`text`, such as `0-3,5`. Raises OwnershipError."""
    cores: set[int] = set()
    for part in text.split(","):
        match = _CORES.fullmatch(part.strip())
        if match is None or int(match["last"] or match["first"]) < int(match["first"]):
            raise OwnershipError(
                f"NEURON_RT_VISIBLE_CORES={text!r} is not a list of cores", hint="expected such as 0-3 or 0,2,5-7"
            )
        if int(match["last"] or match["first"]) >= _MOST_CORES:
            raise OwnershipError(f"NEURON_RT_VISIBLE_CORES={text!r} names more cores than a machine has")
        cores.update(range(int(match["first"]), int(match["last"] or match["first"]) + 1))
    return frozenset(cores)


def chips_of(cores: frozenset[int], cores_per_chip: int) -> dict[int, int]:
    """Return, by chip index, how many of `cores` the chip holds."""
    return Counter(core // cores_per_chip for core in cores)
