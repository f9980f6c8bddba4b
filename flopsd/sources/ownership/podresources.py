"""Which pod has which devices, from the kubelet: PodResourcesLister.List, v1, over its unix socket.

Source: k8s.io/kubelet/pkg/apis/podresources/v1/api.proto. Only the fields that are needed are declared;
protobuf skips the others.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.grpc_call import CallError, call
from flopsd.system.protobuf import OPTIONAL, REPEATED, STRING, Messages, message_classes

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
METHOD = "/v1.PodResourcesLister/List"  # its request has no fields
DEADLINE_SECONDS = 2.0
MOST_BYTES = 16 << 20  # the limit of the kubelet's own client
MESSAGES: Messages = {
    "ListPodResourcesResponse": (("pod_resources", 1, REPEATED, "PodResources"),),
    "PodResources": (
        ("name", 1, OPTIONAL, STRING),
        ("namespace", 2, OPTIONAL, STRING),
        ("containers", 3, REPEATED, "ContainerResources"),
    ),
    "ContainerResources": (
        ("name", 1, OPTIONAL, STRING),
        ("devices", 2, REPEATED, "ContainerDevices"),
        ("dynamic_resources", 5, REPEATED, "DynamicResource"),
    ),
    "ContainerDevices": (("resource_name", 1, OPTIONAL, STRING), ("device_ids", 2, REPEATED, STRING)),
    "DynamicResource": (("claim_name", 2, OPTIONAL, STRING),),
}


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PodDevices:
    """The devices that the kubelet gave to one pod, over all its containers."""

    pod: Pod
    ids: tuple[tuple[str, str], ...]  # (resource, device id)
    claims: int = 0  # dynamic resource claims, whose devices have no UUIDs here


class PodResources:
    """Asks one kubelet. Each call makes a new connection, so that it works again after the kubelet restarts."""

    def __init__(self, path: Path = SOCKET, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Raises OwnershipError without the packages of the extra."""
        try:
            import h2.connection  # noqa: F401  a missing package is reported at the start

            self._messages = message_classes("v1", MESSAGES)
        except ImportError as fault:
            why = f"the kubelet cannot be asked: {fault}"
            raise OwnershipError(why, hint="pip install 'flopsd[kubernetes]'") from fault
        self.path, self._deadline_seconds = path, deadline_seconds

    def list(self) -> tuple[PodDevices, ...]:
        """Return all pods of this node. Raises OwnershipError within the deadline: what is wrong with the socket."""
        from google.protobuf.message import DecodeError

        with socket.socket(socket.AF_UNIX) as peer:
            self._connect(peer)
            try:
                said = call(peer, METHOD, b"", within_seconds=self._deadline_seconds, most_bytes=MOST_BYTES)
                answer = self._messages["ListPodResourcesResponse"].FromString(said)
            except (CallError, OSError, DecodeError) as fault:
                raise self._refused(fault) from fault
        return tuple(_pod(pod) for pod in answer.pod_resources)

    def _connect(self, peer: socket.socket) -> None:
        peer.settimeout(self._deadline_seconds)
        try:
            peer.connect(str(self.path))
        except OSError as fault:
            hint = "mount /var/lib/kubelet/pod-resources of the node into the container as a read-only hostPath volume"
            if isinstance(fault, PermissionError):
                hint = "run as root, or as a user that may write to the socket"
            elif isinstance(fault, ConnectionRefusedError):
                hint = (
                    "no process listens there: is the kubelet running, and is its folder mounted, not the socket "
                    "alone, which goes stale when the kubelet restarts?"
                )
            why = f"the kubelet's socket {self.path} cannot be used: {fault.strerror or fault}"
            raise OwnershipError(why, hint=hint) from fault

    def _refused(self, fault: Exception) -> OwnershipError:
        code = fault.code if isinstance(fault, CallError) else ""
        if isinstance(fault, TimeoutError) or code == "DEADLINE_EXCEEDED":
            return OwnershipError(
                f"the kubelet does not answer on {self.path} within {self._deadline_seconds:g} s",
                hint="see whether the kubelet of this node is healthy",
            )
        hint = "the kubelet is older than 1.20 and has no pod-resources v1" if code == "UNIMPLEMENTED" else ""
        return OwnershipError(f"the kubelet refused on {self.path}: {fault}", hint=hint)


def _pod(pod: Any) -> PodDevices:
    ids = tuple(
        (str(devices.resource_name), str(device_id))
        for container in pod.containers
        for devices in container.devices
        for device_id in devices.device_ids
    )
    claims = sum(len(container.dynamic_resources) for container in pod.containers)
    return PodDevices(Pod(str(pod.namespace), str(pod.name)), ids, claims)
