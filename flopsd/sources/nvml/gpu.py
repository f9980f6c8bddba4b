"""What the NVML source meters: a GPU, a MIG slice, or a device that cannot be read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Device, DeviceUid, Evidence, GapReason, Reading
from flopsd.sources.nvml.driver import Driver
from flopsd.sources.nvml.meter import Meter
from flopsd.sources.nvml.mig import Slice


class Unread(Meter):
    """A device that cannot be read at all: its time is a gap."""

    def __init__(self, driver: Driver, device: Device, reason: GapReason, why: str, fix: str) -> None:
        super().__init__(driver, device, None, None)
        self._reason, self.evidence = reason, (Evidence.GAP, why, fix)

    def read(self) -> tuple[Reading, None]:
        return self.fail(self._reason), None


@dataclass(slots=True)
class Gpu:
    """One device of this source. `handle` is the whole GPU's; None: it failed and is opened again."""

    device: Device
    handle: Any
    meter: Meter
    part: Slice | None = None
    refusals: int | None = 0  # of GPM samples since it was opened; None: a sample succeeded
    # Whether the GPU has GPM and refused it, or could not be asked: then GPM is tried again.
    may_have_gpm: bool = False
    since_ns: int | None = None  # when its first reading begins, if it may have been there earlier

    @property
    def whole(self) -> DeviceUid:
        """The uid of the GPU that this device is, or is a slice of."""
        return self.device.parent or self.device.uid

    @property
    def is_partitioned(self) -> bool:
        """Whether MIG is on: this is a slice, or stands for a GPU without a visible slice."""
        return self.part is not None or isinstance(self.meter, Unread)

    def updated(self) -> Gpu:
        """Update the device with the evidence that its meter gives now, and with a higher clock that it ran."""
        evidence, reason, fix = self.meter.evidence
        device, beyond_mhz = self.device, self.meter.beyond_mhz
        if (device.evidence, device.evidence_reason, device.evidence_fix) != (evidence, reason, fix):
            self.device = replace(device, evidence=evidence, evidence_reason=reason, evidence_fix=fix)
        if beyond_mhz > (device.sm_clock_max_mhz or 0):
            self.device = replace(self.device, sm_clock_max_mhz=beyond_mhz)
        return self
