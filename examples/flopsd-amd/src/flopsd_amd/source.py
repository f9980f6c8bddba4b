"""AMD Instinct GPUs through AMD SMI: a ceiling from an accumulating counter of busy time.

AMD SMI reports in which share of the time anything ran on the GPU, not what ran: that bounds the work and
does not measure it, so the evidence is utilisation. Of two readings of the counter the difference is taken,
so that no moment between them is missed.
Sources: amdsmi.h and py-interface of ROCm 7.0 (amdsmi 7.0.2); smu_cmn.c and smu_v13_0_6_ppt.c of Linux.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import Busy, Device, Evidence, Gap, GapReason, Gauges, Limits, Reading, Sweep
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.system.clock import NS_PER_S, Clock

# "The counter is the accumulated percentages. Every milliseconds the firmware calculates % busy count and then
# accumulates that value in the counter" (amdsmi.h, amdsmi_get_utilization_count). `accumulation_counter` counts
# how often it did so (ROCm/rocm-systems#6487), 32 bits of the sum are reported.
_PERCENT, _WRAP = 100, 1 << 32
# Both counters are read at once, but from a table that the kernel driver renews only when it is older than one
# jiffy (smu_cmn.c), so at HZ=100 it is up to 20 ms old. What a reading misses by that is added to its ceiling.
_RENEWAL_TICKS = 20
_STALLED_NS = 3 * NS_PER_S
_IDLE_PERCENT, _BUSY_PERCENT = 1, 50
_ABSENT = (34, 51)  # driver not loaded, no driver
_REASONS: Mapping[int, GapReason] = {
    2: GapReason.NOT_SUPPORTED,
    3: GapReason.NOT_SUPPORTED,
    8: GapReason.DRIVER_TIMEOUT,
    9: GapReason.DRIVER_TIMEOUT,
    10: GapReason.NO_PERMISSION,
    30: GapReason.DRIVER_TIMEOUT,
    31: GapReason.DEVICE_LOST,
    40: GapReason.NOT_SUPPORTED,
}
_CEILING = "AMD SMI reports how long anything ran, not what: utilisation gives a ceiling, no measurement"


@dataclass(frozen=True, slots=True)
class _Counts:
    """The accumulators at one moment: percent summed over `ticks`, and the percentage just then."""

    percent_ticks: int
    ticks: int
    percent_now: int | None


@dataclass(slots=True)
class _Gpu:
    """One GPU between reads. `since_ns` is where its next reading begins."""

    device: Device
    handle: Any
    since_ns: int
    last: _Counts | None = None
    unread_reason: GapReason = GapReason.STARTING


def open_source(settings: SourceSettings) -> AmdSource:
    """The AMD GPUs of this machine. Raises SourceUnavailableError with the remedy."""
    try:
        with redirect_stdout(sys.stderr):  # amdsmi prints when it finds no library; stdout is for data
            import amdsmi
    except ImportError as fault:
        raise SourceUnavailableError(
            "the Python module amdsmi is not installed",
            hint="install that of your ROCm: pip install /opt/rocm/share/amd_smi",
            absent=True,
        ) from fault
    except (KeyError, OSError, AttributeError) as fault:
        raise SourceUnavailableError(
            f"the Python module amdsmi cannot use libamd_smi.so: {fault!r}",
            hint="install amd-smi-lib, of the same ROCm as the module; ROCM_PATH names its folder",
            absent=isinstance(fault, KeyError),  # it looked everywhere and found none
        ) from fault
    return AmdSource(amdsmi, settings.clock)


class AmdSource:
    """All GPUs that AMD SMI shows to this process."""

    name = "amd"

    def __init__(self, smi: Any, clock: Clock) -> None:
        """`smi` is the amdsmi module. Raises SourceUnavailableError: no driver, no GPU."""
        self._smi, self._clock, self._closed = smi, clock, False
        # Beside its own errors, amdsmi lets out those of its parsing.
        self._faults = (smi.AmdSmiException, ValueError, KeyError, TypeError)
        try:
            smi.amdsmi_init()
        except smi.AmdSmiException as fault:
            absent = getattr(fault, "err_code", None) in _ABSENT
            raise SourceUnavailableError(f"AMD SMI cannot be used: {fault}", absent=absent) from fault
        try:
            handles = smi.amdsmi_get_processor_handles()
            self._gpus: list[_Gpu] = []
            for index, handle in enumerate(handles):
                self._gpus.append(self._open(index, handle))
        except smi.AmdSmiException as fault:
            self.close()
            raise SourceUnavailableError(f"AMD SMI does not list its devices: {fault}") from fault
        if not self._gpus:
            self.close()
            raise SourceUnavailableError("AMD SMI shows no GPU to this process", absent=True)

    def devices(self) -> Sequence[Device]:
        return [gpu.device for gpu in self._gpus]

    def describe(self) -> Mapping[str, Any]:
        smi = self._smi
        library = self._optional(smi.amdsmi_get_lib_version)
        return {
            "driver": self._gpus[0].device.driver,
            "library": None if library is None else "{major}.{minor}.{release}".format(**library),
            "binding": str(smi.__version__),
            "replay": None,
        }

    def read(self) -> Sweep:
        if self._closed:
            raise SourceError("the AMD source is closed")
        readings: list[Reading] = []
        gauges: dict[str, Gauges] = {}
        for at, gpu in enumerate(self._gpus):
            try:
                if gpu.device.model == "unidentified":
                    gpu = self._gpus[at] = self._again(gpu)
                reading = self._read(gpu, gauges)
            except self._faults as fault:
                code = getattr(fault, "err_code", None)
                reading = self._gap(gpu, _REASONS.get(code or 0, GapReason.DRIVER_ERROR), None)
            if reading is not None:
                readings.append(reading)
        return Sweep(tuple(readings), gauges)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._smi.amdsmi_shut_down()
        except self._smi.AmdSmiException:
            pass  # the driver is gone already, there is nothing left to give back

    def _open(self, index: int, handle: Any) -> _Gpu:
        """The GPU at `index`; one that cannot even be identified is a device of which nothing is known."""
        smi, now_ns = self._smi, self._clock.boottime_ns()
        try:
            asic, uid = smi.amdsmi_get_gpu_asic_info(handle), smi.amdsmi_get_gpu_device_uuid(handle)
        except self._faults as fault:
            why = f"cannot be identified: {fault}"
            return _Gpu(Device(f"amd-index-{index}", index, "amd", "unidentified", evidence_reason=why), handle, now_ns)
        driver = self._optional(smi.amdsmi_get_gpu_driver_info, handle) or {}
        clocks = self._optional(smi.amdsmi_get_clock_info, handle, smi.AmdSmiClkType.GFX) or {}
        evidence, why = self._best_evidence(handle)
        taken = {gpu.device.uid for gpu in self._gpus if gpu.device.index != index}
        device = Device(
            uid=f"{uid}/{index}" if uid in taken else uid,  # partitions of one GPU may share its uuid
            index=index,
            vendor="amd",
            model=_text(asic["market_name"]) or "unnamed",
            serial=_text(asic["asic_serial"]),
            pci_bus_id=_text(self._optional(smi.amdsmi_get_gpu_device_bdf, handle)),
            pci_device_id=_hexadecimal(asic["device_id"]),
            sm_count=_positive(asic["num_compute_units"]),  # an SM is a compute unit here
            sm_clock_max_mhz=_positive(clocks.get("max_clk")),
            driver=_text(driver.get("driver_version")),
            evidence=evidence,
            evidence_reason=why,
        )
        return _Gpu(device, handle, now_ns)

    def _again(self, gpu: _Gpu) -> _Gpu:
        """A GPU that could not be identified, asked again; the time since then is still reported under the old name."""
        opened = self._open(gpu.device.index, gpu.handle)
        return opened if opened.device.model != "unidentified" else gpu

    def _best_evidence(self, handle: Any) -> tuple[Evidence, str]:
        partition = _text(self._optional(self._smi.amdsmi_get_gpu_compute_partition, handle))
        if partition not in (None, "SPX"):
            return Evidence.GAP, f"compute partition {partition}: a slice is never charged the whole device"
        metrics = self._optional(self._smi.amdsmi_get_gpu_metrics_info, handle)
        if metrics is not None and _counts(metrics) is None:
            return Evidence.GAP, "this GPU or driver has no accumulating activity counter (the MI300 series has it)"
        return Evidence.UTILIZATION, _CEILING

    def _read(self, gpu: _Gpu, gauges: dict[str, Gauges]) -> Reading | None:
        device = gpu.device
        metrics = self._smi.amdsmi_get_gpu_metrics_info(gpu.handle)
        now_ns, now, last = self._clock.boottime_ns(), _counts(metrics), gpu.last
        gauges[device.uid] = _gauges(metrics)
        if now_ns <= gpu.since_ns:
            return None
        if device.evidence is Evidence.GAP or now is None or not device.sm_count or not device.sm_clock_max_mhz:
            return self._gap(gpu, GapReason.NOT_SUPPORTED, None)
        if last is None:
            reason, gpu.unread_reason = gpu.unread_reason, GapReason.STARTING
            return self._gap(gpu, reason, now)
        ticks, percent_ticks = now.ticks - last.ticks, (now.percent_ticks - last.percent_ticks) % _WRAP
        if ticks == 0:
            return None if now_ns - gpu.since_ns < _STALLED_NS else self._gap(gpu, GapReason.COUNTER_STALLED, now)
        if ticks < 0 or percent_ticks > _PERCENT * (ticks + _RENEWAL_TICKS):
            return self._gap(gpu, GapReason.COUNTER_RESET, now)
        shown = [counts.percent_now for counts in (last, now)]
        if percent_ticks <= _IDLE_PERCENT * ticks and all(p is not None and p >= _BUSY_PERCENT for p in shown):
            # Busy at both ends and idle in between: the counter stands, or counts in other units.
            return self._gap(gpu, GapReason.ZERO_AT_FULL_LOAD, now)
        begin_ns, gpu.since_ns, gpu.last = gpu.since_ns, now_ns, now
        whole = _PERCENT * ticks
        most = min(whole, percent_ticks + 1 + _PERCENT * _RENEWAL_TICKS)
        busy_ns = -(-(now_ns - begin_ns) * most // whole)
        work = Busy(max_sm_cycles(Limits(device.sm_count, device.sm_clock_max_mhz), busy_ns))
        return Reading(device.uid, begin_ns, now_ns, work, self._counters(gpu.handle))

    def _gap(self, gpu: _Gpu, reason: GapReason, baseline: _Counts | None) -> Reading | None:
        """Nothing known until now; the next reading starts from `baseline`, or takes one first."""
        begin_ns, now_ns = gpu.since_ns, self._clock.boottime_ns()
        if now_ns <= begin_ns:
            return None
        gpu.since_ns, gpu.last = now_ns, baseline
        if baseline is None:
            gpu.unread_reason = reason
        counters = {} if baseline is None else self._counters(gpu.handle)
        return Reading(gpu.device.uid, begin_ns, now_ns, Gap(reason), counters)

    def _counters(self, handle: Any) -> dict[str, int]:
        energy = self._optional(self._smi.amdsmi_get_energy_count, handle)
        if energy is None:
            return {}
        microjoules = int(energy["energy_accumulator"] * energy["counter_resolution"])
        return {"energy_mj": microjoules // 1000}

    def _optional(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """A fact that some devices and drivers do not give: None then."""
        try:
            return call(*arguments)
        except self._faults:
            return None


def _counts(metrics: Mapping[str, Any]) -> _Counts | None:
    busy, ticks, now = (metrics.get(k) for k in ("gfx_activity_acc", "accumulation_counter", "average_gfx_activity"))
    if not isinstance(busy, int) or not isinstance(ticks, int):
        return None  # amdsmi says "N/A"
    return _Counts(busy, ticks, now if isinstance(now, int) and now <= _PERCENT else None)


def _gauges(metrics: Mapping[str, Any]) -> Gauges:
    percent, clocks = metrics.get("average_gfx_activity"), metrics.get("current_gfxclks") or ()
    read = [mhz for mhz in (*clocks, metrics.get("current_gfxclk")) if isinstance(mhz, int)]
    ratio = percent / _PERCENT if isinstance(percent, int) and percent <= _PERCENT else None
    return Gauges({}, ratio, max(read, default=None))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value not in ("", "N/A") else None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _hexadecimal(value: Any) -> int | None:
    try:
        return int(value, 16)
    except (TypeError, ValueError):
        return None
