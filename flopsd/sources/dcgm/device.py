"""A GPU as a page of dcgm-exporter describes it. Pure."""

from __future__ import annotations

import re

from flopsd.core.clock_integral import is_clock
from flopsd.core.model import UNIDENTIFIED, Device, Limits
from flopsd.core.peaks import PeakTable
from flopsd.errors import UnknownDeviceError
from flopsd.sources.dcgm.exposition import Field, GpuPage

_INDEX = re.compile("[0-9]{1,9}")  # a longer number would get the whole page refused


def device_of(page: GpuPage, at: int) -> Device:
    mhz, index = page.values.get(Field.MAX_SM_CLOCK), page.label("gpu")
    return Device(
        uid=page.uid,
        index=int(index) if index is not None and _INDEX.fullmatch(index) else at,
        vendor="nvidia",
        model=page.label("modelName") or UNIDENTIFIED,
        pci_bus_id=page.label("pci_bus_id"),
        sm_clock_max_mhz=clock_of(mhz),
        driver=driver_of(page),
        shared=shared_by(page),
    )


def driver_of(page: GpuPage) -> str | None:
    return page.label("DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION")


def clock_of(mhz: float | None) -> int | None:
    """Return a clock in MHz; None if it cannot be one."""
    return round(mhz) if mhz is not None and is_clock(round(mhz), None) else None


def limits_of(device: Device, peaks: PeakTable) -> tuple[Limits | None, bool]:
    """Return what the device cannot exceed, and whether it has GPM (Hopper and newer)."""
    try:
        part = peaks.resolve(device)
    except UnknownDeviceError:
        return None, False  # the daemon names it; here it only means that nothing can be computed
    known = peaks.limits(device, part)
    return known if isinstance(known, Limits) else None, part.gpm is True


def shared_by(page: GpuPage) -> str | None:
    """Return the containers that share one GPU, by time-slicing or in one pod; None: fewer than two."""
    return f"{len(page.users)} containers: {', '.join(sorted(page.users))}" if len(page.users) > 1 else None
