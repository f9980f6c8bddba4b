"""Rules for which of a source's devices are this job's, and what rules need to know of a vendor's devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

from flopsd.core.dataclass import dataclass
from flopsd.core.model import UNIDENTIFIED, Device, DeviceUid


class Job(NamedTuple):
    """What is known of this job where flopsd runs. None: it is not known."""

    environment: Mapping[str, str]
    name: str | None = None  # the platform's
    root_pid: int | None = None  # the process that all others of the job descend from
    cores_per_chip: int | None = None  # of the instance type's accelerators, where they have cores


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whether a device is this job's. `mine` None: indeterminate, and `why` is the reason. `shared` names who else uses
    the device; None: no other user is known."""

    mine: bool | None
    shared: str | None = None
    why: str = ""


class OwnershipResult(NamedTuple):
    """One verdict for every device that was asked about; `unmatched` are names that no device here has."""

    verdicts: Mapping[DeviceUid, Ownership]
    unmatched: tuple[str, ...] = ()


class OwnershipRule(Protocol):
    words: str  # the rule as the ledger repeats it
    constant: bool  # the same devices always get the same answer, so the rule need not be asked again
    lasting: bool  # a device that is this job's now already was when it was last journalled

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        """Judge each device. Raises OwnershipError if what the rule asks does not answer."""


class VendorDevices:
    """How a vendor's devices are named, hidden and handed out. A source declares a subclass in `SourceInfo.ownership`;
    this base class uses only uids and indices."""

    variables: ClassVar[tuple[str, ...]] = ()  # environment variables that hide devices from a process
    resources: ClassVar[tuple[str, ...]] = ()  # of containers; one that ends in / is a prefix
    in_job_mapping: ClassVar[bool] = False  # whether dcgm-exporter's job mapping names these devices

    def find(self, name: str, devices: Sequence[Device]) -> list[Device]:
        """Return the devices that a scheduler, a device plug-in or a person means by `name`; a device stands for its
        slices. Raises OwnershipError if it is ambiguous."""
        if name.isascii() and name.isdigit():
            return [device for device in devices if device.parent is None and device.index == int(name)]
        return [
            device for device in devices if name.casefold() in (device.uid.casefold(), (device.parent or "").casefold())
        ]

    def visible(self, environment: Mapping[str, str], devices: Sequence[Device]) -> Mapping[DeviceUid, Ownership]:  # noqa: ARG002
        """Return which devices the variables in `environment` leave visible. Raises OwnershipError."""
        vendors = ", ".join(sorted({device.vendor for device in devices}))
        return all_unknown(devices, f"no variable that hides {vendors} devices is known")

    def is_resource(self, resource: str) -> bool:
        """Whether the kubelet's `resource` hands out these devices."""
        return any(resource == one or (one.endswith("/") and resource.startswith(one)) for one in self.resources)

    def allocated(self, resource: str, device_id: str, devices: Sequence[Device]) -> list[Device]:  # noqa: ARG002
        """Return the devices that the kubelet handed out as `device_id`. Raises OwnershipError if that is not known."""
        return self.find(device_id, devices)

    def is_replica(self, device_id: str) -> bool:  # noqa: ARG002
        """Whether `device_id` is one share of a device that is handed out several times."""
        return False

    def processes(self, uid: DeviceUid) -> frozenset[int] | None:  # noqa: ARG002
        """Return the process ids on a device; None: the driver does not list them."""
        return None


def is_unidentified(device: Device) -> bool:
    """Whether the model of a device is unknown: it can be any device that was not found."""
    return device.model == UNIDENTIFIED


def all_unknown(devices: Sequence[Device], why: str) -> dict[DeviceUid, Ownership]:
    return {device.uid: Ownership(None, why=why) for device in devices}


def verdicts(mine: set[str], devices: Sequence[Device], unmatched: Sequence[str]) -> dict[str, Ownership]:
    """Return yes for `mine` and no for the other devices; indeterminate for those that may be one of `unmatched`."""
    why = f"it cannot be identified, and may be {', '.join(unmatched)}"
    return {
        device.uid: Ownership(None, why=why)
        if unmatched and is_unidentified(device) and device.uid not in mine
        else Ownership(device.uid in mine)
        for device in devices
    }


class AllRule:
    words = "all visible devices"
    constant = True
    lasting = True

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        return OwnershipResult({device.uid: Ownership(True) for device in devices})


class NamedRule:
    constant = True
    lasting = True

    def __init__(self, names: Sequence[str], vendor: VendorDevices) -> None:
        self._names, self._vendor = tuple(names), vendor
        self.words = f"the devices named in the settings ({', '.join(names)})"

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        found = {name: self._vendor.find(name, devices) for name in self._names}
        unmatched = tuple(name for name, named in found.items() if not named)
        mine = {device.uid for named in found.values() for device in named}
        return OwnershipResult(verdicts(mine, devices, unmatched), unmatched)


class VisibleRule:
    constant = True
    lasting = True

    def __init__(self, environment: Mapping[str, str], vendor: VendorDevices) -> None:
        self._environment, self._vendor = environment, vendor
        hiding = [f"{name}={environment[name]}" for name in vendor.variables if name in environment]
        self.words = (
            f"the devices that {' and '.join(hiding)} leave visible" if hiding else "all: no variable hides any"
        )

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        return OwnershipResult(self._vendor.visible(self._environment, devices))
