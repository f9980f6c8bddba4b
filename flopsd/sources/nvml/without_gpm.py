"""The GPUs that NVML cannot measure, and whether the counters that could measure them are open to this process."""

from __future__ import annotations

from flopsd.core.model import Device
from flopsd.core.peaks import PeakTable
from flopsd.sources.nvml.confidential import profiling_access_of
from flopsd.sources.nvml.driver import Driver
from flopsd.sources.nvml.mig import is_partitioned
from flopsd.sources.nvml.profiling_access import ProfilingAccess
from flopsd.system.clock import Clock


def gpus_without_gpm(clock: Clock, peaks: PeakTable) -> tuple[tuple[Device, ...], ProfilingAccess]:
    """Return the GPUs without GPM, if NVML is here, and the access. GPUs with MIG, or that fail, are left out."""
    try:
        import pynvml as lib

        lib.nvmlInit()
    except Exception:  # noqa: BLE001 - no module, no driver: the source nvml says which
        return (), ProfilingAccess.UNKNOWN
    try:
        driver = Driver(lib, clock, peaks)
        driver.version = str(lib.nvmlSystemGetDriverVersion())
        found = (driver.optional(_without_gpm, driver, index) for index in range(lib.nvmlDeviceGetCount()))
        return tuple(device for device in found if device is not None), profiling_access_of(driver)
    except lib.NVMLError:
        return (), ProfilingAccess.UNKNOWN
    finally:
        lib.nvmlShutdown()


def _without_gpm(driver: Driver, index: int) -> Device | None:
    """Return the GPU at `index`; None if it has GPM, or MIG is on. Raises NVMLError."""
    handle = driver.lib.nvmlDeviceGetHandleByIndex(index)
    if is_partitioned(driver, handle):
        return None
    support = driver.optional(driver.lib.nvmlGpmQueryDeviceSupport, handle)
    return driver.identify(index, handle) if support is None or not support.isSupportedDevice else None
