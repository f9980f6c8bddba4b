"""This pod's devices: those that the kubelet gave to any container of it, so that a sidecar measures its trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flopsd.core.model import Device
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.podresources import Pod, PodDevices, PodResources
from flopsd.sources.ownership.rule import Ownership, OwnershipResult, VendorDevices, all_unknown, verdicts

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DOWNWARD = (
    "set POD_NAME and POD_NAMESPACE in the container by the downward API: "
    "valueFrom: {fieldRef: {fieldPath: metadata.name}} and metadata.namespace"
)


def this_pod(environment: Mapping[str, str], namespace_file: Path = NAMESPACE_FILE) -> Pod:
    """Return the pod that this process runs in: POD_NAME, else HOSTNAME; POD_NAMESPACE, else the service account's.
    Raises OwnershipError with the remedy."""
    name = environment.get("POD_NAME") or environment.get("HOSTNAME", "")
    namespace = environment.get("POD_NAMESPACE", "")
    if not namespace:
        try:
            namespace = namespace_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeError):
            namespace = ""
    if not name or not namespace:
        missing = " and ".join(what for what, found in (("name", name), ("namespace", namespace)) if not found)
        raise OwnershipError(f"the {missing} of this pod is not known", hint=_DOWNWARD)
    return Pod(namespace, name)


class PodRule:
    constant = False
    lasting = True  # a pod keeps its devices for its life

    def __init__(self, kubelet: PodResources, pod: Pod, vendor: VendorDevices) -> None:
        self._kubelet, self._pod, self._vendor = kubelet, pod, vendor
        self.words = f"the devices of pod {pod}, as the kubelet lists them"

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        pods = self._kubelet.list()
        own = [one for one in pods if one.pod == self._pod]
        if not own:
            raise OwnershipError(f"the kubelet lists no pod {self._pod} among its {len(pods)}", hint=_DOWNWARD)
        self._check_given(own)
        mine: dict[str, bool] = {}  # uid -> whether it was given as a replica
        unmatched: list[str] = []
        why = ""
        for resource, device_id in self._given(own):
            try:
                found = self._vendor.allocated(resource, device_id, devices)
            except OwnershipError as fault:
                found, why = [], str(fault)
            if not found:
                unmatched.append(device_id)
            for device in found:
                mine[device.uid] = mine.get(device.uid, False) or self._vendor.is_replica(device_id)
        if why:
            return OwnershipResult(all_unknown(devices, why), tuple(unmatched))
        others = self._others(pods, devices)
        found_verdicts = verdicts(set(mine), devices, unmatched)
        for uid, replica in mine.items():
            texts = ["a time-slicing replica"] if replica else []
            if others[uid]:
                texts.append(f"{others[uid]} other pod{'s' if others[uid] > 1 else ''}")
            found_verdicts[uid] = Ownership(True, " and ".join(texts) or None)
        return OwnershipResult(found_verdicts, tuple(unmatched))

    def _given(self, pods: Sequence[PodDevices]) -> list[tuple[str, str]]:
        """Return (resource, device id) for each device of this vendor that the kubelet gave to `pods`."""
        return [given for pod in pods for given in pod.ids if self._vendor.is_resource(given[0])]

    def _check_given(self, own: Sequence[PodDevices]) -> None:
        if self._given(own):
            return
        if any(pod.claims for pod in own):
            raise OwnershipError(
                f"pod {self._pod} has its devices by dynamic resource allocation, which does not name them by UUID",
                hint="name them in the setting `devices` by UUID, or use `visible`",
            )
        resources = " or ".join(f"{name}…" if name.endswith("/") else name for name in self._vendor.resources)
        raise OwnershipError(
            f"the kubelet gave no accelerator to pod {self._pod}",
            hint=f"a container of this pod must request {resources}"
            if resources
            else "this source declares no container resource: name the devices in the setting `devices` by UUID",
        )

    def _others(self, pods: Sequence[PodDevices], devices: Sequence[Device]) -> dict[str, int]:
        """Return, by device, how many other pods the kubelet gave it to."""
        count = {device.uid: 0 for device in devices}
        for other in (one for one in pods if one.pod != self._pod):
            theirs = set()
            for resource, device_id in self._given([other]):
                try:
                    theirs |= {device.uid for device in self._vendor.allocated(resource, device_id, devices)}
                except OwnershipError:
                    continue  # it may be any of the devices
            for uid in theirs:
                count[uid] += 1
        return count
