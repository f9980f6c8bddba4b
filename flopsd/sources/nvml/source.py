"""All GPUs that NVML shows to this process, read as one source. One GPU's fault never reaches another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.model import Device, DeviceUid, Evidence, GapReason, Gauges, Limits, Reading, Sweep
from flopsd.errors import SourceError, SourceUnavailableError, UnknownDeviceError
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.driver import (
    DRIVER_NOT_LOADED,
    LIBRARY_NOT_FOUND,
    NO_PERMISSION,
    NOT_OFFERED,
    Driver,
    UnusableError,
    hint_of,
    reason_of,
)
from flopsd.sources.nvml.gpm import Gpm
from flopsd.sources.nvml.gpm_meter import GpmMeter
from flopsd.sources.nvml.gpu import Gpu, Unread
from flopsd.sources.nvml.loaded_library import loaded_library
from flopsd.sources.nvml.mig import PERMISSION_FIX, Slice, is_partitioned, slices
from flopsd.sources.nvml.utilization_meter import UtilizationMeter
from flopsd.sources.ownership.rule import UNIDENTIFIED
from flopsd.system.clock import NS_PER_S

_LOOK_AGAIN_NS = 10 * NS_PER_S  # for MIG that was switched, and slices that were made or removed
_GPM_TRIES = 3
_NO_GPM = "no GPM on this GPU (Hopper and newer have it): utilisation gives a ceiling, no measurement"
_NO_GPM_FIX = "run a dcgm-exporter beside it: flopsd reads its tensor activity"


def open_source(settings: SourceSettings) -> NvmlSource:
    """The NVML source of this machine. Raises SourceUnavailableError with the remedy."""
    import pynvml

    return NvmlSource(pynvml, settings)


def _placeholder(index: int) -> DeviceUid:
    """What a GPU is called that cannot be identified."""
    return f"nvml-index-{index}"


class NvmlSource:
    """All GPUs that NVML shows to this process."""

    name = "nvml"

    def __init__(self, lib: Any, settings: SourceSettings) -> None:
        """`lib` is the pynvml module. Raises SourceUnavailableError: no library, no driver, no GPU."""
        self._lib, self._clock, self._settings = lib, settings.clock, settings
        self._driver = Driver(lib, settings.clock, settings.peaks)
        self._looked_ns = settings.clock.boottime_ns()
        self._gpus: list[Gpu] = []
        self._renamed: dict[DeviceUid, Device] = {}
        self._closed = False
        try:
            lib.nvmlInit()
        except lib.NVMLError as fault:
            raise SourceUnavailableError(
                f"NVML cannot be used: {fault}",
                hint=hint_of(fault),
                absent=fault.value in (DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND),
            ) from fault
        try:
            self._driver.version = str(lib.nvmlSystemGetDriverVersion())
            for index in range(lib.nvmlDeviceGetCount()):
                self._gpus += self._open(index)
        except lib.NVMLError as fault:
            self.close()
            raise SourceUnavailableError(f"NVML does not list its devices: {fault}", hint=hint_of(fault)) from fault
        if not self._gpus:
            self.close()
            raise SourceUnavailableError(
                "the NVIDIA driver shows no GPU to this process",
                hint="in a container check NVIDIA_VISIBLE_DEVICES and that the NVIDIA runtime is in use",
            )

    def devices(self) -> Sequence[Device]:
        return [gpu.device for gpu in self._gpus]

    def describe(self) -> Mapping[str, Any]:
        version = getattr(self._lib, "__version__", None)
        library, library_sha256 = loaded_library()
        return {
            "driver": self._driver.version,
            "nvml": self._driver.optional(self._lib.nvmlSystemGetNVMLVersion),
            "binding": None if version is None else str(version),
            "library": library,
            "library_sha256": library_sha256,
            "replay": None,
        }

    def read(self) -> Sweep:
        if self._closed:
            raise SourceError("the NVML source is closed")
        readings: list[Reading] = []
        gauges: dict[DeviceUid, Gauges] = {}
        self._look_again()
        for at, gpu in enumerate(self._gpus):
            reading, shown = self._read(at, gpu)
            if reading is not None:
                gpu = self._gpus[at]
                if gpu.since_ns is not None:
                    reading, gpu.since_ns = replace(reading, begin_ns=gpu.since_ns), None
                readings.append(reading)
            if shown is not None:
                gauges[self._gpus[at].device.uid] = shown
        if all(gpu.handle is None for gpu in self._gpus):
            self._restart()
        return Sweep(tuple(readings), gauges, renamed=dict(self._renamed))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._lib.nvmlShutdown()
        except self._lib.NVMLError:
            pass  # the driver is gone already, there is nothing left to give back

    def _open(self, index: int) -> list[Gpu]:
        """The GPU at `index`, or its slices; of one that cannot even be identified nothing is known."""
        try:
            return self._reach(index)
        except self._lib.NVMLError as fault:
            device = Device(_placeholder(index), index, "nvidia", UNIDENTIFIED, driver=self._driver.version)
            return [self._blank(device, None, reason_of(fault), f"cannot be identified: {fault}", hint_of(fault))]

    def _reach(self, index: int) -> list[Gpu]:
        """The GPU at `index`, or its slices. Raises NVMLError."""
        handle = self._lib.nvmlDeviceGetHandleByIndex(index)
        device = self._driver.identify(index, handle)
        found = self._slices(device, handle, {}) if is_partitioned(self._driver, handle) else []
        self._renamed[_placeholder(index)] = device
        return found or [self._metered(Gpu(device, handle, self._whole(device, handle)))]

    def _slices(self, device: Device, handle: Any, known: Mapping[DeviceUid, Gpu]) -> list[Gpu]:
        """What is metered of a partitioned GPU; those that are `known` as they are. Raises NVMLError."""
        found = [known.get(one.device.uid) or self._sliced(one, handle) for one in slices(self._driver, device, handle)]
        if found:
            return found
        if device.uid in known and known[device.uid].is_partitioned:
            return [known[device.uid]]
        why = "MIG is on and no instance is visible: its compute instances are not made, or not given to this process"
        return [self._blank(device, handle, GapReason.NOT_SUPPORTED, why, PERMISSION_FIX)]

    def _blank(self, device: Device, handle: Any, reason: GapReason, why: str, fix: str) -> Gpu:
        meter = Unread(device.uid, self._clock.boottime_ns(), reason, (Evidence.GAP, why, fix))
        return self._metered(Gpu(device, handle, meter))

    def _whole(self, device: Device, handle: Any) -> GpmMeter | UtilizationMeter:
        why = (_NO_GPM, _NO_GPM_FIX)
        try:
            if self._lib.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
                return self._activity(device, handle, None)
        except self._lib.NVMLError as fault:
            why = (f"GPM cannot be asked for ({fault}): utilisation gives a ceiling, no measurement", _NO_GPM_FIX)
        return UtilizationMeter(self._driver, device, handle, self._limits(device), why)

    def _sliced(self, one: Slice, parent: Any) -> Gpu:
        now_ns = self._clock.boottime_ns()
        if one.partial or one.device.sm_count is None:
            why = "its compute instances do not cover the GPU instance, so what its percentages are of is not known"
            meter = Unread(one.device.uid, now_ns, GapReason.NOT_SUPPORTED, (Evidence.GAP, why, ""))
            return self._metered(Gpu(one.device, parent, meter, one))
        return self._metered(Gpu(one.device, parent, self._activity(one.device, parent, one), one))

    def _activity(self, device: Device, handle: Any, part: Slice | None) -> GpmMeter:
        limits = self._limits(device)
        sm_count = limits.sm_count if limits is not None else 0
        uid, origins = device.uid, self._settings.origins
        return GpmMeter(self._driver, self._gpm(handle, part), device, handle, sm_count, lambda: origins.get(uid))

    def _gpm(self, handle: Any, part: Slice | None) -> Gpm:
        lib = self._lib
        if part is None:
            return Gpm(lib, lambda sample: lib.nvmlGpmSampleGet(handle, sample))

        def sample_slice(sample: Any) -> None:
            try:
                lib.nvmlGpmMigSampleGet(handle, part.gpu_instance, sample)
            except lib.NVMLError as fault:
                if fault.value != NO_PERMISSION:
                    raise
                lib.nvmlGpmSampleGet(part.handle, sample)  # a process may see its own instance without the capability

        return Gpm(lib, sample_slice)

    def _limits(self, device: Device) -> Limits | None:
        try:
            known = self._settings.peaks.limits(device, self._settings.peaks.resolve(device))
        except UnknownDeviceError:
            return None  # the daemon names it; here it only means that nothing can be computed
        return known if isinstance(known, Limits) else None

    def _read(self, at: int, gpu: Gpu) -> tuple[Reading | None, Gauges | None]:
        try:
            if gpu.handle is None:
                gpu = self._again(at, gpu)
            if isinstance(gpu.meter, Unread):
                return gpu.meter.reading(self._clock.boottime_ns(), gpu.meter.reason), None
            reading, gauges = gpu.meter.read()
            gpu.refusals = None
            self._metered(gpu)
            return reading, gauges
        except self._lib.NVMLError as fault:
            return self._failed(gpu, fault), None
        except UnusableError as fault:
            assert not isinstance(gpu.meter, Unread)
            return gpu.meter.fail(fault.reason, fault.totals), None

    def _failed(self, gpu: Gpu, fault: Any) -> Reading:
        reason = reason_of(fault)
        if isinstance(gpu.meter, Unread):
            gpu.handle = None
            return gpu.meter.reading(self._clock.boottime_ns(), reason)
        reading = gpu.meter.fail(reason)
        if isinstance(gpu.meter, GpmMeter):
            gpu.refusals = None if gpu.refusals is None else gpu.refusals + 1
            if gpu.part is not None and fault.value == NO_PERMISSION:
                gpu.meter.evidence = (Evidence.GAP, "no permission to read this MIG slice's counters", PERMISSION_FIX)
            elif gpu.part is None and gpu.refusals == _GPM_TRIES and fault.value in NOT_OFFERED:
                # Seen on vGPU guests (dcgm-exporter#701): supported, by its word, and never a sample.
                why = (f"GPM is said to be supported and refuses every sample ({fault})", _NO_GPM_FIX)
                gpu.meter = UtilizationMeter(self._driver, gpu.device, gpu.handle, self._limits(gpu.device), why)
                self._metered(gpu)
                return reading
            self._metered(gpu)
        gpu.handle = None
        return reading

    def _metered(self, gpu: Gpu) -> Gpu:
        """`gpu` with the evidence that its meter can give now in its device."""
        evidence, reason, fix = gpu.meter.evidence
        device = gpu.device
        if (device.evidence, device.evidence_reason, device.evidence_fix) != (evidence, reason, fix):
            gpu.device = replace(device, evidence=evidence, evidence_reason=reason, evidence_fix=fix)
        return gpu

    def _again(self, at: int, gpu: Gpu) -> Gpu:
        """A GPU that failed, reached anew; where it was never identified, opened anew. Raises NVMLError."""
        lib = self._lib
        if gpu.device.model == UNIDENTIFIED:
            opened = self._reach(gpu.device.index)
            self._gpus[at : at + 1] = opened
            return opened[0]
        whole = gpu.device.uid if gpu.part is None else gpu.device.parent
        handle = lib.nvmlDeviceGetHandleByUUID(whole)
        if gpu.part is not None:
            gpu.part = replace(gpu.part, handle=lib.nvmlDeviceGetHandleByUUID(gpu.device.uid))
        if isinstance(gpu.meter, GpmMeter):
            gpu.meter.reach(handle, self._gpm(handle, gpu.part))
        elif isinstance(gpu.meter, UtilizationMeter):
            gpu.meter.reach(handle)
        gpu.handle = handle
        return gpu

    def _look_again(self) -> None:
        """MIG is switched and slices come and go while the daemon runs: each GPU is asked anew every few seconds."""
        now_ns, looked_ns = self._clock.boottime_ns(), self._looked_ns
        if now_ns - looked_ns < _LOOK_AGAIN_NS:
            return
        self._looked_ns = now_ns
        for uid in dict.fromkeys(gpu.whole for gpu in self._gpus if gpu.device.model != UNIDENTIFIED):
            known = {gpu.device.uid: gpu for gpu in self._gpus if gpu.whole == uid}
            try:
                standing = self._standing(uid, known, looked_ns)
            except self._lib.NVMLError:
                continue  # its readings say what is wrong
            at = next(at for at, gpu in enumerate(self._gpus) if gpu.whole == uid)
            for gpu in known.values():
                if isinstance(gpu.meter, GpmMeter) and gpu not in standing:
                    self._driver.optional(gpu.meter.release)
            self._gpus = [gpu for gpu in self._gpus if gpu.whole != uid]
            self._gpus[at:at] = standing

    def _standing(self, uid: DeviceUid, known: Mapping[DeviceUid, Gpu], looked_ns: int) -> Sequence[Gpu]:
        """What is to be metered of a GPU now, where until now it was what is `known`. Raises NVMLError."""
        first = next(iter(known.values()))
        handle = self._lib.nvmlDeviceGetHandleByUUID(uid) if first.handle is None else first.handle
        on, was_on = is_partitioned(self._driver, handle), first.is_partitioned
        if not on and not was_on:
            return list(known.values())
        device = self._driver.identify(first.device.index, handle)
        if not on:
            return [self._metered(Gpu(device, handle, self._whole(device, handle)))]
        standing = self._slices(device, handle, known)
        for gpu in standing:
            if gpu.part is not None and gpu.device.uid not in known:
                gpu.since_ns = looked_ns
        return standing

    def _restart(self) -> None:
        """All GPUs failed: perhaps the driver was reloaded. NVML is started again, with sample buffers of its own."""
        try:
            for gpu in self._gpus:
                if isinstance(gpu.meter, GpmMeter):
                    gpu.meter.release()
            self._shut_down()
            self._lib.nvmlInit()
        except self._lib.NVMLError:
            pass  # still down; each GPU's gap says so, and the next read tries again
