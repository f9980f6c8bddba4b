"""This pod's devices, as the kubelet gave them to any container of it: a sidecar measures its trainer.

Ids are NVIDIA's device plugin's (`GPU-…`, `MIG-…`, `GPU-…::2` for a time-slicing replica), GKE's (`nvidia0`,
`nvidia0/gi3`, `nvidia0/vgpu1`) and AWS Neuron's (chip and core indices).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flopsd.core.model import Device
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.device_names import find, verdicts
from flopsd.sources.ownership.podresources import PodDevices, PodResources
from flopsd.sources.ownership.rule import AWS, NVIDIA, Lookup, Ownership, OwnershipResult

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NEURON_CORE = "aws.amazon.com/neuroncore"
_NEURON = (_NEURON_CORE, "aws.amazon.com/neuron", "aws.amazon.com/neurondevice")
_REPLICA_MARKS = ("::", "/vgpu")
_DOWNWARD = (
    "set POD_NAME and POD_NAMESPACE in the container by the downward API: "
    "valueFrom: {fieldRef: {fieldPath: metadata.name}} and metadata.namespace"
)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as its node names it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def this_pod(environment: Mapping[str, str], namespace_file: Path = NAMESPACE_FILE) -> Pod:
    """The pod that this process runs in: POD_NAME, else its host name; POD_NAMESPACE, else the service account's.

    Raises OwnershipError with the remedy.
    """
    name = environment.get("POD_NAME") or environment.get("HOSTNAME", "")
    namespace = environment.get("POD_NAMESPACE", "")
    if not namespace:
        try:
            namespace = namespace_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeError):
            namespace = ""
    if not name or not namespace:
        missing = " and ".join(word for word, told in (("name", name), ("namespace", namespace)) if not told)
        raise OwnershipError(f"the {missing} of this pod cannot be told", hint=_DOWNWARD)
    return Pod(namespace, name)


class PodRule:
    """The devices that the kubelet gave to this pod."""

    constant = False
    lasting = True  # a pod keeps its devices for its life

    def __init__(self, kubelet: PodResources, pod: Pod, lookup: Lookup, cores_per_chip: int | None = None) -> None:
        self._kubelet, self._pod, self._lookup, self._cores_per_chip = kubelet, pod, lookup, cores_per_chip
        self.words = f"the devices of pod {pod}, as the kubelet lists them"

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        pods = self._kubelet.list()
        own = [pod for pod in pods if (pod.namespace, pod.name) == (self._pod.namespace, self._pod.name)]
        if not own:
            raise OwnershipError(f"the kubelet lists no pod {self._pod} among its {len(pods)}", hint=_DOWNWARD)
        self._check_given(own)
        mine: dict[str, bool] = {}  # uid -> whether it was given as a replica
        unmatched: list[str] = []
        given = [(resource, device_id) for pod in own for resource, device_id in pod.ids if _is_accelerator(resource)]
        for resource, device_id in given:
            found = self._devices(resource, device_id, devices)
            if not found:
                unmatched.append(device_id)
            for device in found:
                mine[device.uid] = mine.get(device.uid, False) or _is_replica(device_id)
        others = self._others(pods, devices)
        told = verdicts(set(mine), devices, unmatched)
        for uid, replica in mine.items():
            texts = ["a time-slicing replica"] if replica else []
            if others[uid]:
                texts.append(f"{others[uid]} other pod{'s' if others[uid] > 1 else ''}")
            told[uid] = Ownership(True, " and ".join(texts) or None)
        if self._cores_per_chip is None and any(resource == _NEURON_CORE for resource, _ in given):
            why = "the kubelet names cores, and how many cores a chip has is not known"
            told.update((device.uid, Ownership(None, why=why)) for device in devices if device.vendor == AWS)
        return OwnershipResult(told, tuple(unmatched))

    def _check_given(self, own: Sequence[PodDevices]) -> None:
        if any(_is_accelerator(resource) for pod in own for resource, _ in pod.ids):
            return
        if any(pod.claims for pod in own):
            raise OwnershipError(
                f"pod {self._pod} has its devices by dynamic resource allocation, which does not name them by UUID",
                hint="name them in the setting `devices` by UUID, or use `visible`",
            )
        raise OwnershipError(
            f"the kubelet gave no accelerator to pod {self._pod}",
            hint="a container of this pod must request nvidia.com/gpu, nvidia.com/mig-… or aws.amazon.com/neuron…",
        )

    def _others(self, pods: Sequence[PodDevices], devices: Sequence[Device]) -> dict[str, int]:
        """By device, how many other pods the kubelet gave it to."""
        count = {device.uid: 0 for device in devices}
        for pod in pods:
            if (pod.namespace, pod.name) == (self._pod.namespace, self._pod.name):
                continue
            theirs = {
                device.uid
                for resource, device_id in pod.ids
                if _is_accelerator(resource)
                for device in self._devices(resource, device_id, devices)
            }
            for uid in theirs:
                count[uid] += 1
        return count

    def _devices(self, resource: str, device_id: str, devices: Sequence[Device]) -> list[Device]:
        if resource not in _NEURON:
            gpus = [device for device in devices if device.vendor == NVIDIA]
            return find(_base(device_id), gpus, self._lookup)
        chips = [device for device in devices if device.vendor == AWS]
        if not (device_id.isascii() and device_id.isdigit()):
            return []
        index = int(device_id)
        if resource == _NEURON_CORE:
            if self._cores_per_chip is None:
                return []
            index //= self._cores_per_chip
        return [chip for chip in chips if chip.index == index]


def _is_accelerator(resource: str) -> bool:
    """Time-sliced GPUs may be renamed `nvidia.com/gpu.shared`, and operators rename at will below nvidia.com."""
    return resource.startswith("nvidia.com/") or resource in _NEURON


def _base(device_id: str) -> str:
    for mark in _REPLICA_MARKS:
        device_id = device_id.partition(mark)[0]
    return device_id


def _is_replica(device_id: str) -> bool:
    return any(mark in device_id for mark in _REPLICA_MARKS)
