"""What a rule is, and what it says of a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flopsd.core.model import Device, DeviceUid

NVIDIA, AWS = "nvidia", "aws"


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whether a device is this job's; `mine` None: it cannot be told, and `why` says why.

    `shared` says in words who else uses it; None: nobody that is known of.
    """

    mine: bool | None
    shared: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class OwnershipResult:
    """One verdict for every device that was asked about; `unmatched` are names that no device here has."""

    verdicts: Mapping[DeviceUid, Ownership]
    unmatched: tuple[str, ...] = field(default=())


class OwnershipRule(Protocol):
    """Tells which devices are this job's."""

    words: str  # the rule as the ledger repeats it
    constant: bool  # the same devices always get the same answer, so that it need not be asked for again
    lasting: bool  # a device that is this job's now was so when it was last journalled

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        """Raises OwnershipError when what it asks does not answer."""


class Lookup(Protocol):
    """What NVML knows of a device by UUID, None where it does not tell."""

    def index(self, uid: DeviceUid) -> int | None: ...

    def gpu_instance(self, uid: DeviceUid) -> int | None: ...

    def processes(self, uid: DeviceUid) -> frozenset[int] | None: ...


class AllRule:
    """Every device that the source sees."""

    words = "all visible devices"
    constant = True
    lasting = True

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        return OwnershipResult({device.uid: Ownership(True) for device in devices})
