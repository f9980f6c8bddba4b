"""All GPUs that NVML shows to this process, read as one source. One GPU's fault never reaches another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.model import Device, DeviceUid, Evidence, Gauges, Reading, Sweep
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.confidential import confidential_computing
from flopsd.sources.nvml.discovery import Discovery
from flopsd.sources.nvml.driver import NO_PERMISSION, NOT_OFFERED, Driver, UnusableError, hint_of, is_absent, reason_of
from flopsd.sources.nvml.gpm_meter import GpmMeter
from flopsd.sources.nvml.gpu import Gpu, Unread
from flopsd.sources.nvml.loaded_library import loaded_library
from flopsd.sources.nvml.mig import PERMISSION_FIX
from flopsd.sources.nvml.utilization_meter import UtilizationMeter
from flopsd.sources.ownership.rule import UNIDENTIFIED
from flopsd.system.clock import NS_PER_S

_LOOK_AGAIN_NS = 10 * NS_PER_S  # for MIG that was switched, and slices that were made or removed


class NvmlSource:
    name = "nvml"

    def __init__(self, lib: Any, settings: SourceSettings) -> None:
        """`lib` is the pynvml module. Raises SourceUnavailableError: no library, no driver, no GPU."""
        self._lib, self._clock = lib, settings.clock
        self._driver = Driver(lib, settings.clock, settings.peaks)
        self._discovery = Discovery(self._driver, settings)
        self._opened_ns = self._looked_ns = settings.clock.boottime_ns()
        self._gpus: list[Gpu] = []
        self._closed = False
        try:
            lib.nvmlInit()
        except lib.NVMLError as fault:
            why = f"NVML cannot be used: {fault}"
            raise SourceUnavailableError(why, hint=hint_of(fault), absent=is_absent(fault)) from fault
        try:
            self._driver.version = str(lib.nvmlSystemGetDriverVersion())
            for index in range(lib.nvmlDeviceGetCount()):
                self._gpus += self._discovery.open(index)
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
            "confidential_computing": confidential_computing(self._driver),
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
        return Sweep(tuple(readings), gauges, renamed=dict(self._discovery.renamed))

    def poll(self, until_ns: int) -> int | None:
        """Take samples of what is due between two reads, the second of them at `until_ns`; when the next are due."""
        due: list[int] = []
        for gpu in self._gpus:
            if isinstance(gpu.meter, GpmMeter) and gpu.handle is not None:
                try:
                    due_ns = gpu.meter.poll(until_ns)
                except self._lib.NVMLError:
                    continue  # the next read gives the reason
                due += [] if due_ns is None else [due_ns]
        return min(due, default=None)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._lib.nvmlShutdown()
        except self._lib.NVMLError:
            pass  # the driver is gone already, there is nothing left to give back

    def _read(self, at: int, gpu: Gpu) -> tuple[Reading | None, Gauges | None]:
        try:
            if gpu.handle is None:
                gpu = self._again(at, gpu)
            if isinstance(gpu.meter, Unread):
                return gpu.meter.reading(self._clock.boottime_ns(), gpu.meter.reason), None
            reading, gauges = gpu.meter.read()
            gpu.refusals = None
            gpu.updated()
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
            elif gpu.part is None and gpu.refusals == 3 and fault.value in NOT_OFFERED:
                # Seen on vGPU guests (dcgm-exporter#701): reported as supported, and never a sample.
                why = f"GPM is reported as supported and refuses every sample ({fault})"
                gpu.meter = self._discovery.ceiling(gpu.device, gpu.handle, why)
                gpu.updated()
                return reading
            gpu.updated()
        gpu.handle = None
        return reading

    def _again(self, at: int, gpu: Gpu) -> Gpu:
        """A GPU that failed, with a new handle; one that was never identified is opened again. Raises NVMLError."""
        lib = self._lib
        if gpu.device.model == UNIDENTIFIED:
            opened = self._discovery.reach(gpu.device.index)
            self._gpus[at : at + 1] = opened
            return opened[0]
        whole = gpu.device.uid if gpu.part is None else gpu.device.parent
        handle = lib.nvmlDeviceGetHandleByUUID(whole)
        if gpu.part is not None:
            gpu.part = replace(gpu.part, handle=lib.nvmlDeviceGetHandleByUUID(gpu.device.uid))
        if isinstance(gpu.meter, GpmMeter):
            gpu.meter.reach(handle, self._discovery.gpm(handle, gpu.part))
        elif isinstance(gpu.meter, UtilizationMeter):
            gpu.meter.reach(handle)
        gpu.handle = handle
        return gpu

    def _look_again(self) -> None:
        """MIG is switched, and slices come and go, while the daemon runs: so each GPU is checked every few seconds."""
        now_ns, looked_ns = self._clock.boottime_ns(), self._looked_ns
        if now_ns - looked_ns < _LOOK_AGAIN_NS:
            return
        self._looked_ns = now_ns
        for uid in dict.fromkeys(gpu.whole for gpu in self._gpus if gpu.device.model != UNIDENTIFIED):
            known = {gpu.device.uid: gpu for gpu in self._gpus if gpu.whole == uid}
            try:
                found = self._discovery.again(uid, known, looked_ns)
            except self._lib.NVMLError:
                continue  # its readings give the reason
            at = next(at for at, gpu in enumerate(self._gpus) if gpu.whole == uid)
            for gpu in known.values():
                if isinstance(gpu.meter, GpmMeter) and gpu not in found:
                    self._driver.optional(gpu.meter.release)
            self._gpus = [gpu for gpu in self._gpus if gpu.whole != uid]
            self._gpus[at:at] = found
        self._add_new()

    def _add_new(self) -> None:
        """GPUs that the driver did not list before: after a reset, a hot plug, or a late fabric manager.

        Each may have worked for the job since this source was opened: so its first reading begins there. Indices may
        have changed, so the UUID decides. An index whose GPU could not be identified is opened again by its reading.
        """
        lib, known = self._lib, {gpu.whole for gpu in self._gpus}
        count = self._driver.optional(lib.nvmlDeviceGetCount) or 0
        if count == len(known) and all(gpu.handle is not None for gpu in self._gpus):
            return
        unidentified = {gpu.device.index for gpu in self._gpus if gpu.device.model == UNIDENTIFIED}
        for index in set(range(count)) - unidentified:
            try:
                uid = str(lib.nvmlDeviceGetUUID(lib.nvmlDeviceGetHandleByIndex(index)))
                opened = [] if uid in known else self._discovery.reach(index)
            except lib.NVMLError:
                continue  # a GPU that is sick, and no reason not to look at the others
            for gpu in opened:
                gpu.since_ns = self._opened_ns
            self._gpus += opened

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
