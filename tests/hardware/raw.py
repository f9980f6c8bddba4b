"""NVML read by the suite itself, beside flopsd: raw GPM values, clocks and power around each load.

Ids as in nvml.h 13.5.37; newer ones are plain numbers here, since older bindings lack their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event, Thread
from typing import Any

from flopsd.system.clock import NS_PER_S, Clock

PERCENT_IDS = tuple(range(1, 14))
CYCLE_IDS = tuple(range(248, 261))
NAMES = {
    1: "GRAPHICS_UTIL", 2: "SM_UTIL", 3: "SM_OCCUPANCY", 4: "INTEGER_UTIL", 5: "ANY_TENSOR_UTIL",
    6: "DFMA_TENSOR_UTIL", 7: "HMMA_TENSOR_UTIL", 8: "DMMA_TENSOR_UTIL", 9: "IMMA_TENSOR_UTIL",
    10: "DRAM_BW_UTIL", 11: "FP64_UTIL", 12: "FP32_UTIL", 13: "FP16_UTIL",
    248: "SM_CYCLES_ELAPSED", 249: "SM_CYCLES_ACTIVE", 250: "MMA_CYCLES_ACTIVE", 251: "DMMA_CYCLES_ACTIVE",
    252: "HMMA_CYCLES_ACTIVE", 253: "IMMA_CYCLES_ACTIVE", 254: "DFMA_CYCLES_ACTIVE", 255: "PCIE_TX", 256: "PCIE_RX",
    257: "INTEGER_CYCLES_ACTIVE", 258: "FP64_CYCLES_ACTIVE", 259: "FP32_CYCLES_ACTIVE", 260: "FP16_CYCLES_ACTIVE",
}  # fmt: skip
SPACINGS_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_FIRST_SECONDS = 0.05  # at the load's beginning, before the first inner sample
_CLOCK_SECONDS = 0.05
_CLOCK_SM = 1
_SAMPLES_CLOCK = 5
_REASONS = "nvmlDeviceGetCurrentClocksThrottleReasons"  # its older name, which every binding has
ANY_TENSOR = 5

Sampled = tuple[int, Any] | None  # boot ns and GPM buffer


@dataclass(slots=True)
class Watch:
    """The samples taken while a load ran. `samples` are (boot ns, GPM buffer)."""

    clock: list[tuple[int, int]] = field(default_factory=list)  # (boot ns, MHz)
    power_mw: list[int] = field(default_factory=list)
    reasons: int = 0  # clock event reasons, or-ed
    samples: list[tuple[int, Any]] = field(default_factory=list)
    fault: str = ""


class GpuError(Exception):
    """The GPU for the loads cannot be identified or opened. The text gives the reason."""


class Gpu:
    """One GPU by its UUID."""

    def __init__(self, uid: str | None, clock: Clock) -> None:
        """`uid` None: the only GPU here. Raises GpuError."""
        import pynvml

        self._lib, self.clock = pynvml, clock
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            if uid is None and count != 1:
                raise GpuError(f"{count} GPUs are visible and PyTorch does not say which one it uses")
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uid) if uid else pynvml.nvmlDeviceGetHandleByIndex(0)
            self.uid = str(pynvml.nvmlDeviceGetUUID(self._handle))
            uids = [str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(at))) for at in range(count)]
            self.index = uids.index(self.uid)
        except pynvml.NVMLError as fault:
            raise GpuError(f"NVML: {fault}; nvidia-smi and `python -m flopsd doctor` say more") from fault
        self._kept: list[Any] = []

    def facts(self) -> dict[str, Any]:
        """Name, driver and limits, None where the driver does not state them. Raises GpuError."""
        lib, handle = self._lib, self._handle
        try:
            named = {"name": str(lib.nvmlDeviceGetName(handle)), "driver": str(lib.nvmlSystemGetDriverVersion())}
        except lib.NVMLError as fault:
            raise GpuError(f"NVML does not identify {self.uid}: {fault}") from fault
        return {
            **named,
            "nvml": self._optional("nvmlSystemGetNVMLVersion"),
            "binding": getattr(lib, "__version__", None),
            "sm_clock_max_mhz": self._optional("nvmlDeviceGetMaxClockInfo", handle, _CLOCK_SM),
            "power_limit_mw": self._optional("nvmlDeviceGetPowerManagementLimit", handle),
            "gpm_streaming": self.streaming(),
        }

    def streaming(self) -> int | None:
        """1 while GPM renews its counters, for every reader; None where the driver does not say."""
        found: int | None = self._optional("nvmlGpmQueryIfStreamingEnabled", self._handle)
        return found

    def set_streaming(self, *, on: bool) -> int:
        """Switch it for every reader on this machine. Returns NVML's code, 0 on success."""
        try:
            self._lib.nvmlGpmSetStreamingEnabled(self._handle, int(on))
        except self._lib.NVMLError as fault:
            return int(fault.value)
        return 0

    def clock_buffer(self) -> dict[str, Any]:
        """The driver's buffer of SM clock samples: {status}, and if it has one {samples, span_ms, mhz}."""
        try:
            _, samples = self._lib.nvmlDeviceGetSamples(self._handle, _SAMPLES_CLOCK, 0)
        except self._lib.NVMLError as fault:
            return {"status": int(fault.value)}
        stamps = sorted(int(sample.timeStamp) for sample in samples)
        mhz = [int(sample.sampleValue.uiVal) for sample in samples]
        span_ms = (stamps[-1] - stamps[0]) / 1000 if stamps else 0.0
        return {"status": 0, "samples": len(stamps), "span_ms": span_ms, "mhz": [min(mhz), max(mhz)] if mhz else None}

    def sample_after(self, seconds: float) -> Sampled:
        self.clock.wait(Event(), seconds)
        return self.sample()

    def sample(self) -> Sampled:
        """(boot ns, GPM buffer), or None if GPM gives none."""
        lib = self._lib
        try:
            buffer = lib.nvmlGpmSampleAlloc()
            self._kept.append(buffer)
            lib.nvmlGpmSampleGet(self._handle, buffer)
        except lib.NVMLError:
            return None
        return self.clock.boottime_ns(), buffer

    def metrics(self, first: Sampled, second: Sampled, ids: Sequence[int]) -> dict[str, Any]:
        """{id: {status, value}} between two samples; a status other than 0 is NVML's own code."""
        lib = self._lib
        if first is None or second is None:
            return {str(i): {"status": None, "value": None} for i in ids}
        request = lib.c_nvmlGpmMetricsGet_t()
        request.version, request.numMetrics = 1, len(ids)
        request.sample1, request.sample2 = first[1], second[1]
        for at, metric in enumerate(ids):
            request.metrics[at].metricId = metric
        try:
            lib.nvmlGpmMetricsGet(request)
        except lib.NVMLError as fault:
            return {str(i): {"status": fault.value, "value": None} for i in ids}
        return {
            str(metric): {"status": request.metrics[at].nvmlReturn,
                          "value": None if request.metrics[at].nvmlReturn else _number(request.metrics[at].value)}
            for at, metric in enumerate(ids)
        }  # fmt: skip

    def triple(self, a: Sampled, b: Sampled, c: Sampled) -> dict[str, Any] | None:
        """Three samples queried in pairs, which shows whether cycle ids are differences or running counters."""
        if a is None or b is None or c is None:
            return None
        return {
            "ns": [a[0], b[0], c[0]],
            "percent": self.metrics(b, c, PERCENT_IDS),
            "cycles_ab": self.metrics(a, b, CYCLE_IDS),
            "cycles_bc": self.metrics(b, c, CYCLE_IDS),
            "cycles_ac": self.metrics(a, c, CYCLE_IDS),
        }

    def watch(self, stop: Event, into: Watch) -> Thread:
        """A thread that samples clock, power and GPM until `stop`."""
        thread = Thread(target=self._watch, args=(stop, into), name="watch", daemon=True)
        thread.start()
        return thread

    def free(self) -> None:
        """Free the GPM buffers."""
        while self._kept:
            self._optional("nvmlGpmSampleFree", self._kept.pop())

    def _watch(self, stop: Event, into: Watch) -> None:
        lib, handle, clock = self._lib, self._handle, self.clock
        due_ns: int | None = clock.boottime_ns() + round(_FIRST_SECONDS * NS_PER_S)
        spacings = iter(SPACINGS_SECONDS)
        try:
            while not stop.is_set():
                into.clock.append((clock.boottime_ns(), int(lib.nvmlDeviceGetClockInfo(handle, _CLOCK_SM))))
                power = self._optional("nvmlDeviceGetPowerUsage", handle)
                if power is not None:
                    into.power_mw.append(int(power))
                into.reasons |= self._optional(_REASONS, handle) or 0
                if due_ns is not None and clock.boottime_ns() >= due_ns:
                    taken = self.sample()
                    if taken is not None:
                        into.samples.append(taken)
                    spacing = next(spacings, None)
                    due_ns = None if spacing is None or taken is None else taken[0] + round(spacing * NS_PER_S)
                left = _CLOCK_SECONDS if due_ns is None else (due_ns - clock.boottime_ns()) / NS_PER_S
                clock.wait(stop, min(_CLOCK_SECONDS, left))
        except lib.NVMLError as fault:
            into.fault = str(fault)  # the load goes on; its result says that it was not watched to the end

    def _optional(self, call: str, *arguments: Any) -> Any:
        """The result of a function that some bindings, drivers and devices lack; None in that case."""
        try:
            return getattr(self._lib, call)(*arguments)
        except (AttributeError, self._lib.NVMLError):
            return None


def mean_mhz(watch: Watch) -> float | None:
    """The mean SM clock over time, by trapezoids between readings."""
    pairs = list(pairwise(watch.clock))
    span = sum(b[0] - a[0] for a, b in pairs)
    if not span:
        return float(watch.clock[0][1]) if watch.clock else None
    return sum((a[1] + b[1]) * (b[0] - a[0]) for a, b in pairs) / 2 / span


def _number(value: Any) -> float | None:
    number = float(value)
    return None if number != number else number
