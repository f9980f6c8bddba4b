"""NVIDIA GPUs through NVML: identity, clocks, energy, GPM activity (Hopper and newer) or utilisation.

Talks to the driver through the `pynvml` module of nvidia-ml-py. GPM percentages are cycle-weighted
averages between two samples of our own choosing, so they miss nothing; with the SM clock integrated over
the interval they give SM-cycles. GPUs without GPM give a ceiling from buffered utilisation samples.
Sources: nvml.h 13.5.37; open-gpu-kernel-modules 595.45.04.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopsd.clock import Clock
from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import (
    Active,
    Busy,
    Device,
    Evidence,
    Gap,
    GapReason,
    Gauges,
    Limits,
    Pipe,
    Reading,
    Sweep,
)
from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceUnavailableError, UnknownDeviceError
from flopsd.sources import SourceSettings

# Ids are stable from nvidia-ml-py 11.525 to 13.615; names of newer ones are missing in older bindings.
_ANY_TENSOR, _DFMA, _HMMA, _DMMA, _IMMA, _FP64, _FP32, _FP16 = 5, 6, 7, 8, 9, 11, 12, 13
_METRICS = (_ANY_TENSOR, _DFMA, _HMMA, _DMMA, _IMMA, _FP64, _FP32, _FP16)
_VECTOR_PIPES = ((_FP64, Pipe.FP64), (_FP32, Pipe.FP32), (_FP16, Pipe.FP16))
_GPM_MIN_INTERVAL_NS = 100_000_000  # "should be greater than 100ms", nvml.h; a hard minimum on Hopper, DCGM#310
_SAMPLE_PERIOD_MAX_NS = 1_000_000_000  # "between 1 second and 1/6 second, depending on the product", nvml.h
_CLOCK_SM, _SAMPLES_UTILIZATION = 1, 1
_PERCENT_MAX = 100.0
_PERCENT_SLACK = 0.5  # rounding of the driver's double

_NOT_SUPPORTED, _FUNCTION_NOT_FOUND, _NOT_FOUND = 3, 13, 6
_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND = 9, 12
_REASONS: Mapping[int, GapReason] = {
    _NOT_SUPPORTED: GapReason.NOT_SUPPORTED,
    _FUNCTION_NOT_FOUND: GapReason.NOT_SUPPORTED,
    4: GapReason.NO_PERMISSION,
    10: GapReason.DRIVER_TIMEOUT,
    15: GapReason.DEVICE_LOST,
    16: GapReason.DEVICE_LOST,
    28: GapReason.DEVICE_LOST,
}
_HINTS: Mapping[int, str] = {
    9: "load the driver (nvidia-smi shows whether it is); in a container start it with the NVIDIA runtime",
    4: "give this user access to /dev/nvidia*",
    12: "install the NVIDIA driver; in a container use the NVIDIA runtime "
    "with NVIDIA_DRIVER_CAPABILITIES=utility,compute",
    18: "library and kernel module are of different versions: reboot or reload the driver",
}


class _UnusableError(Exception):
    """A driver answer that cannot be a reading."""

    def __init__(self, reason: GapReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(slots=True)
class _Gpu:
    """One GPU between reads. `since_ns` is where its next reading begins."""

    device: Device
    handle: Any
    limits: Limits | None
    since_ns: int
    gpm: bool
    usable: bool = True  # whether its mode lets this source read it at all
    samples: tuple[Any, Any] | None = None  # baseline and spare GPM sample
    clock_mhz: int | None = None  # at since_ns; None: no baseline
    unread_reason: GapReason = GapReason.STARTING
    utilization_seen_us: int = 0


def open_source(settings: SourceSettings) -> NvmlSource:
    """The NVML source of this machine. Raises SourceUnavailableError with the remedy."""
    try:
        import pynvml
    except ImportError as fault:
        raise SourceUnavailableError(
            "the Python package nvidia-ml-py is not installed", hint="pip install 'flopsd[nvml]'", absent=True
        ) from fault
    return NvmlSource(pynvml, settings.clock, settings.peaks)


class NvmlSource:
    """All GPUs that NVML shows to this process."""

    name = "nvml"

    def __init__(self, lib: Any, clock: Clock, peaks: PeakTable) -> None:
        """`lib` is the pynvml module. Raises SourceUnavailableError: no library, no driver, no GPU."""
        self._lib, self._clock, self._peaks = lib, clock, peaks
        self._request = lib.c_nvmlGpmMetricsGet_t()
        self._request.version = 1
        self._request.numMetrics = len(_METRICS)
        for at, metric in enumerate(_METRICS):
            self._request.metrics[at].metricId = metric
        try:
            lib.nvmlInit()
        except lib.NVMLError as fault:
            raise SourceUnavailableError(
                f"NVML cannot be used: {fault}",
                hint=_HINTS.get(fault.value, ""),
                absent=fault.value in (_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND),
            ) from fault
        try:
            self._driver = str(lib.nvmlSystemGetDriverVersion())
            self._gpus = [self._open(index) for index in range(lib.nvmlDeviceGetCount())]
        except lib.NVMLError as fault:
            self.close()
            raise SourceUnavailableError(
                f"NVML does not list its devices: {fault}", hint=_HINTS.get(fault.value, "")
            ) from fault
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
        return {
            "driver": self._driver,
            "nvml": self._optional(self._lib.nvmlSystemGetNVMLVersion),
            "binding": None if version is None else str(version),
            "replay": None,
        }

    def read(self) -> Sweep:
        readings: list[Reading] = []
        gauges: dict[str, Gauges] = {}
        for at, gpu in enumerate(self._gpus):
            try:
                if gpu.handle is None:
                    gpu = self._gpus[at] = self._again(gpu)
                reading = self._read(gpu, gauges)
            except self._lib.NVMLError as fault:
                reading = self._failed(gpu, _REASONS.get(fault.value, GapReason.DRIVER_ERROR))
                gpu.handle = None
            except _UnusableError as fault:
                reading = self._failed(gpu, fault.reason)
            if reading is not None:
                readings.append(reading)
        if all(gpu.handle is None for gpu in self._gpus):
            self._restart()
        return Sweep(tuple(readings), gauges)

    def close(self) -> None:
        try:
            self._lib.nvmlShutdown()
        except self._lib.NVMLError:
            pass  # the driver is gone already, there is nothing left to give back

    def _open(self, index: int) -> _Gpu:
        """The GPU at `index`; one that cannot even be identified is a device of which nothing is known."""
        lib, now_ns = self._lib, self._clock.boottime_ns()
        try:
            handle = lib.nvmlDeviceGetHandleByIndex(index)
            model, uid = str(lib.nvmlDeviceGetName(handle)), str(lib.nvmlDeviceGetUUID(handle))
        except lib.NVMLError as fault:
            device = Device(
                f"nvml-index-{index}",
                index,
                "nvidia",
                "unidentified",
                driver=self._driver,
                evidence_reason=f"cannot be identified: {fault}",
            )
            return _Gpu(device, None, None, now_ns, gpm=False)
        pci = self._optional(lib.nvmlDeviceGetPciInfo, handle)
        gpm, usable, why = self._best_evidence(handle)
        evidence = Evidence.GAP if not usable else Evidence.ACTIVITY if gpm else Evidence.UTILIZATION
        device = Device(
            uid=uid,
            index=index,
            vendor="nvidia",
            model=model,
            serial=_text(self._optional(lib.nvmlDeviceGetSerial, handle)),
            pci_bus_id=None if pci is None else _text(pci.busId),
            pci_device_id=None if pci is None else pci.pciDeviceId >> 16,
            sm_count=self._sm_count(handle),
            sm_clock_max_mhz=self._optional(lib.nvmlDeviceGetMaxClockInfo, handle, _CLOCK_SM),
            driver=self._driver,
            evidence=evidence,
            evidence_reason=why,
        )
        try:
            known = self._peaks.limits(device, self._peaks.resolve(device))
            limits = known if isinstance(known, Limits) else None
        except UnknownDeviceError:
            limits = None  # the daemon names it; here it only means that nothing can be computed
        return _Gpu(device, handle, limits, now_ns, gpm, usable)

    def _best_evidence(self, handle: Any) -> tuple[bool, bool, str]:
        """Whether GPM works, whether anything does, and why it is not better."""
        lib = self._lib
        mode = self._optional(lib.nvmlDeviceGetMigMode, handle)
        if mode is not None and mode[0] == 1:
            return False, False, "MIG is on: slices are not metered yet, and a slice is never charged the whole device"
        try:
            if lib.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
                return True, True, ""
            return (
                False,
                True,
                "no GPM on this GPU (Hopper and newer have it): utilisation gives a ceiling, no measurement",
            )
        except lib.NVMLError as fault:
            return False, True, f"GPM cannot be asked for ({fault}): utilisation gives a ceiling, no measurement"

    def _sm_count(self, handle: Any) -> int | None:
        lib = self._lib
        cores = self._optional(lib.nvmlDeviceGetNumGpuCores, handle)
        arch = self._optional(lib.nvmlDeviceGetArchitecture, handle)
        capability = self._optional(lib.nvmlDeviceGetCudaComputeCapability, handle)
        if cores is None or arch is None:
            return None
        named = (arch, f"{capability[0]}.{capability[1]}") if capability is not None else (arch, "")
        per_sm = self._peaks.cores_per_sm.get(named, self._peaks.cores_per_sm.get((arch, "")))
        return cores // per_sm if per_sm and cores % per_sm == 0 else None

    def _again(self, gpu: _Gpu) -> _Gpu:
        """A GPU that failed, reached anew; where it was never identified, opened anew."""
        if gpu.device.model == "unidentified":
            return self._open(gpu.device.index)
        gpu.handle = self._lib.nvmlDeviceGetHandleByUUID(gpu.device.uid)
        return gpu

    def _restart(self) -> None:
        """All GPUs failed: perhaps the driver was reloaded. NVML is started again, with sample buffers of its own."""
        lib = self._lib
        try:
            for gpu in self._gpus:
                for sample in gpu.samples or ():
                    lib.nvmlGpmSampleFree(sample)
                gpu.samples = None
            self.close()
            lib.nvmlInit()
        except lib.NVMLError:
            pass  # still down; each GPU's gap says so, and the next read tries again

    def _failed(self, gpu: _Gpu, reason: GapReason) -> Reading:
        now_ns = self._clock.boottime_ns()
        reading = Reading(gpu.device.uid, gpu.since_ns, now_ns, Gap(reason))
        gpu.since_ns, gpu.clock_mhz, gpu.unread_reason = now_ns, None, reason
        return reading

    def _read(self, gpu: _Gpu, gauges: dict[str, Gauges]) -> Reading | None:
        if gpu.handle is None:
            raise _UnusableError(GapReason.DEVICE_LOST)
        if not gpu.usable:
            raise _UnusableError(GapReason.NOT_SUPPORTED)
        return self._read_activity(gpu, gauges) if gpu.gpm else self._read_utilization(gpu, gauges)

    def _read_activity(self, gpu: _Gpu, gauges: dict[str, Gauges]) -> Reading | None:
        lib, clock, handle = self._lib, self._clock, gpu.handle
        before_ns = clock.boottime_ns()
        if gpu.clock_mhz is not None and before_ns - gpu.since_ns < _GPM_MIN_INTERVAL_NS:
            return None
        if gpu.samples is None:
            gpu.samples = (lib.nvmlGpmSampleAlloc(), lib.nvmlGpmSampleAlloc())
        baseline, spare = gpu.samples
        lib.nvmlGpmSampleGet(handle, spare)
        now_ns = (before_ns + clock.boottime_ns()) // 2
        clock_mhz = lib.nvmlDeviceGetClockInfo(handle, _CLOCK_SM)
        counters = self._counters(handle)
        last_mhz, since_ns = gpu.clock_mhz, gpu.since_ns
        ratios: dict[Pipe, float] = {}
        if last_mhz is not None:
            ratios = self._ratios(baseline, spare)
        gpu.samples, gpu.since_ns, gpu.clock_mhz = (spare, baseline), now_ns, clock_mhz
        gauges[gpu.device.uid] = Gauges(ratios, self._utilization_ratio(handle), clock_mhz)
        if last_mhz is None:
            reason, gpu.unread_reason = gpu.unread_reason, GapReason.STARTING
            return Reading(gpu.device.uid, since_ns, now_ns, Gap(reason), counters)
        sm_count = gpu.limits.sm_count if gpu.limits is not None else 0
        # Trapezoid over the two clock readings; MHz x ns / 1000 is cycles, times the SMs is SM-cycles.
        sm_cycles = (last_mhz + clock_mhz) * (now_ns - since_ns) * sm_count / 2000
        work = Active(Evidence.ACTIVITY, {pipe: round(ratio * sm_cycles) for pipe, ratio in ratios.items()})
        return Reading(gpu.device.uid, since_ns, now_ns, work, counters)

    def _ratios(self, baseline: Any, now: Any) -> dict[Pipe, float]:
        """Activity ratios between two samples. Raises NVMLError, or _UnusableError for values that cannot be."""
        request = self._request
        request.sample1, request.sample2 = baseline, now
        self._lib.nvmlGpmMetricsGet(request)
        percent = {
            metric: self._percent(request.metrics[at], optional=metric in (_DFMA, _HMMA, _DMMA, _IMMA))
            for at, metric in enumerate(_METRICS)
        }
        hmma, imma = percent[_HMMA], percent[_IMMA]
        dfma = max(percent[_DFMA], percent[_DMMA])  # how the two ids relate is documented nowhere: never both
        ratios = {
            Pipe.TENSOR: max(0.0, percent[_ANY_TENSOR] - hmma - imma - dfma) / 100,
            Pipe.TENSOR_HMMA: hmma / 100,
            Pipe.TENSOR_IMMA: imma / 100,
            Pipe.TENSOR_DFMA: dfma / 100,
        }
        for metric, pipe in _VECTOR_PIPES:
            ratios[pipe] = percent[metric] / 100
        return ratios

    def _percent(self, metric: Any, *, optional: bool) -> float:
        """One percentage. A tensor sub-pipe that this chip does not split off stays in "any tensor"."""
        code = metric.nvmlReturn
        if code:
            if optional and code in (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND, _NOT_FOUND):
                return 0.0
            raise self._lib.NVMLError(code)
        value = float(metric.value)
        if math.isnan(value):
            raise _UnusableError(GapReason.NOT_A_NUMBER)
        if not 0.0 <= value <= _PERCENT_MAX + _PERCENT_SLACK:
            raise _UnusableError(GapReason.OUT_OF_RANGE)
        return min(value, _PERCENT_MAX)

    def _read_utilization(self, gpu: _Gpu, gauges: dict[str, Gauges]) -> Reading | None:
        """A ceiling from NVML's ring buffer of utilisation samples, which covers the whole interval.

        The reading ends where the newest sample ends; what comes after it belongs to the next reading.
        """
        lib, clock, handle, uid = self._lib, self._clock, gpu.handle, gpu.device.uid
        # CPU timestamps are wall-clock microseconds; only their distance from now is used.
        offset_ns = clock.wall_ns() - clock.boottime_ns()
        samples = self._samples(handle, gpu.utilization_seen_us)
        clock_mhz = lib.nvmlDeviceGetClockInfo(handle, _CLOCK_SM)
        counters = self._counters(handle)
        now_ns, since_ns = clock.boottime_ns(), gpu.since_ns
        newest_us = samples[-1][0] if samples else gpu.utilization_seen_us
        first, gpu.utilization_seen_us = gpu.clock_mhz is None, newest_us
        gauges[uid] = Gauges(
            {}, samples[-1][1] / 100 if samples and samples[-1][1] <= _PERCENT_MAX else None, clock_mhz
        )
        if first:
            gpu.since_ns, gpu.clock_mhz = now_ns, clock_mhz
            reason, gpu.unread_reason = gpu.unread_reason, GapReason.STARTING
            return Reading(uid, since_ns, now_ns, Gap(reason), counters)
        if any(not 0 <= value <= _PERCENT_MAX for _, value in samples):
            raise _UnusableError(GapReason.OUT_OF_RANGE)
        end_ns = min(now_ns, newest_us * 1000 - offset_ns)
        if not samples or end_ns <= since_ns:
            if now_ns - since_ns < 3 * 1_000_000_000:
                return None
            raise _UnusableError(GapReason.NOT_SUPPORTED)  # the ring buffer stands still
        gpu.since_ns, gpu.clock_mhz = end_ns, clock_mhz
        return Reading(uid, since_ns, end_ns, Busy(self._ceiling(gpu, samples, since_ns, end_ns, offset_ns)), counters)

    def _ceiling(
        self, gpu: _Gpu, samples: Sequence[tuple[int, int]], since_ns: int, end_ns: int, offset_ns: int
    ) -> int:
        """SM-cycles at most: each sample stands for the time since the one before it, whole percents
        rounded up, at the highest clock; time that no sample covers counts as fully busy."""
        if gpu.limits is None:
            return 0  # the meter makes it a gap: the device is not in the peak table
        busy_percent_ns, covered_ns, begin_ns = 0, 0, since_ns
        for stamp_us, percent in samples:
            until_ns = min(stamp_us * 1000 - offset_ns, end_ns)
            if until_ns > begin_ns:
                stands_for_ns = min(until_ns - begin_ns, _SAMPLE_PERIOD_MAX_NS)
                busy_percent_ns += min(percent + 1, 100) * stands_for_ns
                covered_ns, begin_ns = covered_ns + stands_for_ns, until_ns
        busy_percent_ns += 100 * (end_ns - since_ns - covered_ns)
        return max_sm_cycles(gpu.limits, -(-busy_percent_ns // 100))

    def _samples(self, handle: Any, seen_us: int) -> list[tuple[int, int]]:
        """(timestamp in us, percent) newer than `seen_us`, oldest first."""
        try:
            _, samples = self._lib.nvmlDeviceGetSamples(handle, _SAMPLES_UTILIZATION, seen_us)
        except self._lib.NVMLError as fault:
            if fault.value == _NOT_FOUND:
                return []
            raise
        return sorted((sample.timeStamp, sample.sampleValue.uiVal) for sample in samples if sample.timeStamp > seen_us)

    def _utilization_ratio(self, handle: Any) -> float | None:
        rates = self._optional(self._lib.nvmlDeviceGetUtilizationRates, handle)
        return rates.gpu / 100 if rates is not None and 0 <= rates.gpu <= _PERCENT_MAX else None

    def _counters(self, handle: Any) -> dict[str, int]:
        energy_mj = self._optional(self._lib.nvmlDeviceGetTotalEnergyConsumption, handle)
        return {} if energy_mj is None else {"energy_mj": int(energy_mj)}

    def _optional(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """A fact that some devices and drivers do not give: None then."""
        try:
            return call(*arguments)
        except self._lib.NVMLError:
            return None


def _text(value: Any) -> str | None:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
