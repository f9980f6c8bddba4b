"""Finds GPUs and MIG slices, and gives each the best meter that it offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.model import UNIDENTIFIED, Device, DeviceUid, GapReason, Limits
from flopsd.errors import UnknownDeviceError
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.confidential import reasons
from flopsd.sources.nvml.driver import NO_PERMISSION, NOT_OFFERED, Driver, hint_of, reason_of
from flopsd.sources.nvml.gpm import Gpm
from flopsd.sources.nvml.gpm_meter import GpmMeter
from flopsd.sources.nvml.gpu import Gpu, Unread
from flopsd.sources.nvml.mig import MIG_IS_ON, PERMISSION_FIX, Slice, is_partitioned, slices
from flopsd.sources.nvml.utilization_meter import UtilizationMeter


class Discovery:
    """Opens GPUs by index, and checks again how MIG divides them. Raises NVMLError unless stated otherwise."""

    def __init__(self, driver: Driver, settings: SourceSettings) -> None:
        self._lib, self._driver, self._settings = driver.lib, driver, settings
        self.renamed: dict[DeviceUid, Device] = {}  # GPUs that were identified later, by the uid that stood for them

    def unanswered(self, index: int) -> Gpu:
        """Return what is listed for the GPU at `index` until the driver answers. Makes no call. Its uid never stood for
        a GPU that was identified since: that one may have been at this index before."""
        names = (f"nvml-index-{index}{more}" for more in ("", *(f"-{number}" for number in range(2, 1000))))
        uid = next(name for name in names if name not in self.renamed)
        return self._unidentified(index, uid, GapReason.DRIVER_TIMEOUT, "the driver has not answered yet", "")

    def open(self, index: int, stand_in: DeviceUid, is_known: Callable[[DeviceUid], bool]) -> list[Gpu]:
        """Return the GPU at `index`, or its slices. One that cannot be identified is listed as `stand_in`, not read.
        Never raises."""
        try:
            found = self.reach(index, stand_in, is_known)
        except self._lib.NVMLError as fault:
            why = f"cannot be identified: {fault}"
            return [self._unidentified(index, stand_in, reason_of(fault), why, hint_of(fault))]
        why = "the driver gives it the UUID of another GPU"
        return found or [self._unidentified(index, stand_in, GapReason.CONTRADICTORY, why, "")]

    def reach(self, index: int, stand_in: DeviceUid, is_known: Callable[[DeviceUid], bool]) -> list[Gpu]:
        """Return the GPU at `index`, or its slices, for which `stand_in` was listed; empty if that GPU `is_known`,
        since indices have changed."""
        handle = self._lib.nvmlDeviceGetHandleByIndex(index)
        device = self._driver.identify(index, handle)
        if is_known(device.uid):
            return []
        found = self._slices(device, handle, {}) if is_partitioned(self._driver, handle) else []
        self.renamed[stand_in] = device
        return found or [self._whole(device, handle)]

    def again(self, uid: DeviceUid, known: Mapping[DeviceUid, Gpu], looked_ns: int) -> Sequence[Gpu]:
        """Return what to meter of the GPU `uid` now. `known`: what was metered of it since `looked_ns`."""
        first = next(iter(known.values()))
        handle = self._lib.nvmlDeviceGetHandleByUUID(uid) if first.handle is None else first.handle
        on, was_on = is_partitioned(self._driver, handle), first.is_partitioned
        if not on and not was_on and not (first.may_have_gpm and self._gives_gpm(handle)):
            return list(known.values())
        device = self._driver.identify(first.device.index, handle)
        found = self._slices(device, handle, known) if on else [self._whole(device, handle)]
        for gpu in found:
            if gpu.device.uid not in known:
                gpu.since_ns = looked_ns
        return found

    def gpm(self, handle: Any, part: Slice | None) -> Gpm:
        lib = self._lib
        if part is None:
            return Gpm(lib, lambda sample: lib.nvmlGpmSampleGet(handle, sample))

        def sample_slice(sample: Any) -> None:
            try:
                lib.nvmlGpmMigSampleGet(handle, part.device.gpu_instance, sample)
            except lib.NVMLError as fault:
                if fault.value != NO_PERMISSION:
                    raise
                lib.nvmlGpmSampleGet(part.handle, sample)  # a process may see its own instance without the capability

        return Gpm(lib, sample_slice)

    def ceiling(self, device: Device, handle: Any, why: str) -> UtilizationMeter:
        """Return the meter of a GPU that gives only utilisation."""
        fix = "let a dcgm-exporter, running or started by flopsd, read its tensor activity: see --dcgm-hostengine"
        return UtilizationMeter(self._driver, device, handle, self._limits(device), reasons(self._driver, why, fix))

    def _whole(self, device: Device, handle: Any) -> Gpu:
        device, doubted_sms = self._with_most_sms(device)
        may_have_gpm = False
        try:
            if self._lib.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
                return Gpu(device, handle, self._gpm_meter(device, handle, None, doubted_sms)).updated()
            why = "no GPM on this GPU (Hopper and newer have it)"
        except self._lib.NVMLError as fault:
            why, may_have_gpm = f"GPM support cannot be queried ({fault})", fault.value not in NOT_OFFERED
        meter = self.ceiling(device, handle, f"{why}: utilisation gives a ceiling, no measurement")
        return Gpu(device, handle, meter, may_have_gpm=may_have_gpm).updated()

    def _gives_gpm(self, handle: Any) -> bool:
        """Whether the GPU now gives what a meter by GPM needs: a sample, and the clock."""
        gpm = self.gpm(handle, None)
        try:
            if not self._lib.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
                return False
            gpm.sample()
            self._driver.sm_clock_mhz(handle, None)
        except self._lib.NVMLError:
            return False
        finally:
            self._driver.optional(gpm.release)
        return True

    def _with_most_sms(self, device: Device) -> tuple[Device, int]:
        """Return the GPU with the larger of the driver's and the peak table's number of SMs, since either may be wrong,
        and the difference."""
        try:
            expected = self._settings.peaks.resolve(device).sm_count
        except UnknownDeviceError:
            return device, 0
        if device.sm_count is None or expected is None:
            return device, 0
        return replace(device, sm_count=max(device.sm_count, expected)), abs(device.sm_count - expected)

    def _slices(self, device: Device, handle: Any, known: Mapping[DeviceUid, Gpu]) -> list[Gpu]:
        """Return what is metered of a partitioned GPU. Slices that are `known` and did not change are kept."""
        found = []
        for one in slices(self._driver, device, handle):
            gpu = known.get(one.device.uid)
            if gpu is None or gpu.part is None or not one.is_same_as(gpu.part):
                gpu = self._slice(one, handle)
            found.append(gpu)
        if found:
            return found
        if device.uid in known and known[device.uid].is_partitioned:
            return [known[device.uid]]
        why = (
            f"{MIG_IS_ON} and no instance is visible: its compute instances are not made, or not given to this process"
        )
        return [self._unread(self._with_most_sms(device)[0], handle, GapReason.NOT_SUPPORTED, why, PERMISSION_FIX)]

    def _slice(self, one: Slice, parent: Any) -> Gpu:
        if one.partial or one.device.sm_count is None:
            why = (
                "its compute instances do not cover the GPU instance, so it is not known what its percentages refer to"
            )
            return self._unread(one.device, parent, GapReason.NOT_SUPPORTED, why, "", one)
        return Gpu(one.device, parent, self._gpm_meter(one.device, parent, one), one).updated()

    def _unidentified(self, index: int, uid: DeviceUid, reason: GapReason, why: str, fix: str) -> Gpu:
        device = Device(uid, index, "nvidia", UNIDENTIFIED, driver=self._driver.version)
        return self._unread(device, None, reason, why, fix)

    def _unread(
        self, device: Device, handle: Any, reason: GapReason, why: str, fix: str, part: Slice | None = None
    ) -> Gpu:
        return Gpu(device, handle, Unread(self._driver, device, reason, why, fix), part).updated()

    def _gpm_meter(self, device: Device, handle: Any, part: Slice | None, doubted_sms: int = 0) -> GpmMeter:
        limits, gpm = self._limits(device), self.gpm(handle, part)
        uid, origins = device.uid, self._settings.origins
        return GpmMeter(self._driver, gpm, device, handle, limits, lambda: origins.get(uid), doubted_sms)

    def _limits(self, device: Device) -> Limits | None:
        try:
            known = self._settings.peaks.limits(device, self._settings.peaks.resolve(device))
        except UnknownDeviceError:
            return None  # the daemon reports it; here it only means that nothing can be computed
        return known if isinstance(known, Limits) else None
