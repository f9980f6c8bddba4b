"""The NVML calls that flopsd makes, with the meaning of their errors and the units of their values.

Calls the driver through the `pynvml` module of nvidia-ml-py. Source: nvml.h 13.5.37.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flopsd.core.clock_integral import is_clock
from flopsd.core.model import Device, GapReason, Totals
from flopsd.core.peaks import PeakTable
from flopsd.sources.nvml.polled_clock import LATE_NS, Moments
from flopsd.system.clock import Clock

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, DRIVER_NOT_LOADED = 3, 4, 6, 9
LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND = 12, 13
NOT_OFFERED = (NOT_SUPPORTED, FUNCTION_NOT_FOUND, NOT_FOUND)
PERCENT_MAX = 100.0
_POLLED_TOGETHER = 4
_CLOCK_SM = 1
_SAMPLES_UTILIZATION = 1
_SAMPLE_AGE_MAX_NS = 60_000_000_000  # longer than any buffer reaches back
# The wall clock may drift by this much, and by this share of the time that passed; if it moved more, it was set.
_DRIFT_NS, _DRIFT_PPM = 10_000_000, 1000
_AHEAD_NS = 1_000_000_000  # a stamp further in the future was made before the wall clock was set back
_LIMIT_MAX_MW = 100_000_000  # a power limit beyond this is no limit
_AT_ONCE_NS = 1_000_000  # two clocks that are read further apart are read again

_REASONS: Mapping[int, GapReason] = {
    NOT_SUPPORTED: GapReason.NOT_SUPPORTED,
    FUNCTION_NOT_FOUND: GapReason.NOT_SUPPORTED,
    NOT_FOUND: GapReason.DEVICE_MISSING,
    NO_PERMISSION: GapReason.NO_PERMISSION,
    10: GapReason.DRIVER_TIMEOUT,
    15: GapReason.DEVICE_LOST,
    16: GapReason.DEVICE_LOST,
    28: GapReason.DEVICE_LOST,
}
_HINTS: Mapping[int, str] = {
    DRIVER_NOT_LOADED: "load the driver (nvidia-smi shows whether it is); "
    "in a container start it with the NVIDIA runtime",
    NO_PERMISSION: "give this user access to /dev/nvidia*",
    LIBRARY_NOT_FOUND: "install the NVIDIA driver; in a container use the NVIDIA runtime "
    "with NVIDIA_DRIVER_CAPABILITIES=utility,compute",
    18: "library and kernel module are of different versions: reboot or reload the driver",
}


class UnusableError(Exception):
    """A driver answer that cannot be a reading. `totals`: running counters that lost something. Counting goes on from
    them, and what they missed stays a gap."""

    def __init__(self, reason: GapReason, totals: Totals | None = None) -> None:
        self.reason, self.totals = reason, totals


def reason_of(fault: Any) -> GapReason:
    """Return the gap reason that an NVMLError stands for."""
    return _REASONS.get(fault.value, GapReason.DRIVER_ERROR)


def hint_of(fault: Any) -> str:
    """Return what to do about an NVMLError at start."""
    return _HINTS.get(fault.value, "")


def is_absent(fault: Any) -> bool:
    """Whether an NVMLError at start means that this machine has no NVIDIA driver."""
    return fault.value in (DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND)


class Driver:
    """The pynvml module with flopsd's units. Calls raise its NVMLError unless they say otherwise."""

    def __init__(self, lib: Any, clock: Clock, peaks: PeakTable) -> None:
        self.lib, self.clock, self.peaks = lib, clock, peaks
        self.version = ""
        self._moments: defaultdict[tuple[int, int], Moments] = defaultdict(Moments)
        self._clock_call_ns = 0  # what reading a clock took lately
        self._offset_ns: tuple[int, int] | None = None  # how far the wall clock was ahead of boot time, and when
        self._unknown_until_ns = 0  # the wall clock was set: samples up to then have no known time

    def moment_of(self, index: int, begin_ns: int, end_ns: int) -> int:
        """Return when a GPU's clock is polled in a slot. As many GPUs share their moments as can be read before the
        last one is late, at most four."""
        together = max(1, min(_POLLED_TOGETHER, LATE_NS // 2 // max(1, self._clock_call_ns)))
        return self._moments[together, index // together].of(begin_ns, end_ns)

    def optional(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return a fact that some devices and drivers do not give: None then, and if pynvml cannot decode its text."""
        try:
            return call(*arguments)
        except (self.lib.NVMLError, UnicodeDecodeError):
            return None

    def identify(self, index: int, handle: Any) -> Device:
        """Return the device behind a handle, without its evidence, which is not known yet."""
        lib = self.lib
        uid = str(lib.nvmlDeviceGetUUID(handle))
        try:
            model = str(lib.nvmlDeviceGetName(handle))
        except UnicodeDecodeError:
            model = ""  # its PCI id may name it
        pci = self.optional(lib.nvmlDeviceGetPciInfo, handle)
        return Device(
            uid=uid,
            index=index,
            vendor="nvidia",
            model=model,
            serial=text(self.optional(lib.nvmlDeviceGetSerial, handle)),
            pci_bus_id=None if pci is None else text(pci.busId),
            pci_device_id=None if pci is None else pci.pciDeviceId >> 16,
            sm_count=self._sm_count(handle),
            sm_clock_max_mhz=self.sm_clock_max_mhz(handle),
            driver=self.version,
        )

    def _sm_count(self, handle: Any) -> int | None:
        lib = self.lib
        cores = self.optional(lib.nvmlDeviceGetNumGpuCores, handle)
        arch = self.optional(lib.nvmlDeviceGetArchitecture, handle)
        capability = self.optional(lib.nvmlDeviceGetCudaComputeCapability, handle)
        if not cores or arch is None:
            return None
        named = (arch, f"{capability[0]}.{capability[1]}") if capability is not None else (arch, "")
        per_sm = self.peaks.cores_per_sm.get(named, self.peaks.cores_per_sm.get((arch, "")))
        return cores // per_sm if per_sm and cores % per_sm == 0 else None

    def sm_clock_max_mhz(self, handle: Any) -> int | None:
        found: int | None = self.optional(self.lib.nvmlDeviceGetMaxClockInfo, handle, _CLOCK_SM)
        return found if found is not None and is_clock(found, None) else None

    def sm_clock_mhz(self, handle: Any, max_mhz: int | None) -> int | None:
        """Return the SM clock now; None if the driver reports a value that cannot be one."""
        began_ns = self.clock.boottime_ns()
        mhz = int(self.lib.nvmlDeviceGetClockInfo(handle, _CLOCK_SM))
        took_ns = min(LATE_NS, self.clock.boottime_ns() - began_ns)
        self._clock_call_ns += (took_ns - self._clock_call_ns) // 8
        return mhz if is_clock(mhz, max_mhz) else None

    def utilization_samples(self, handle: Any, after_ns: int) -> list[tuple[int, int]]:
        """Return the samples (boot time in ns, percent) of the driver's ring buffer since a boot time, oldest first.
        Their CPU timestamps are wall-clock microseconds; only the distance from now is used. Raises UnusableError if
        the wall clock was set after the driver took some of them, so that their times are not known."""
        now_ns, offset_ns = self._wall_offset()
        after_us = max(0, (after_ns + offset_ns) // 1000)
        samples: Sequence[Any] = ()
        try:
            _, samples = self.lib.nvmlDeviceGetSamples(handle, _SAMPLES_UTILIZATION, after_us)
        except self.lib.NVMLError as fault:
            if fault.value != NOT_FOUND:
                raise
        until_ns, _ = self._wall_offset()
        stamped = [(sample.timeStamp * 1000 - offset_ns, int(sample.sampleValue.uiVal)) for sample in samples]
        # A wall clock that was set back repeats times, which samples in the buffer have already.
        latest_ns = min(max([until_ns, *(at_ns for at_ns, _ in stamped)]), until_ns + _SAMPLE_AGE_MAX_NS)
        if latest_ns > until_ns + _AHEAD_NS:
            self._unknown_until_ns = max(self._unknown_until_ns, latest_ns)
        if after_ns < self._unknown_until_ns:  # the times of samples since then are not known
            raise UnusableError(GapReason.MISSED_READING)
        kept = [one for one in stamped if max(after_ns, now_ns - _SAMPLE_AGE_MAX_NS) < one[0] <= now_ns]
        return sorted(kept, key=lambda one: one[0])

    def _wall_offset(self) -> tuple[int, int]:
        """Return the time since boot, and how far the wall clock is ahead of it, in ns. Called from several threads: a
        step that two of them see is noted twice, and not missed."""
        for _ in range(3):
            now_ns, wall_ns = self.clock.boottime_ns(), self.clock.wall_ns()
            apart_ns = self.clock.boottime_ns() - now_ns
            if apart_ns <= _AT_ONCE_NS:  # else this thread was stopped in between
                break
        offset_ns = wall_ns - now_ns
        before, self._offset_ns = self._offset_ns, (offset_ns, now_ns)
        if before is not None:
            drift_ns = _DRIFT_NS + apart_ns + abs(now_ns - before[1]) * _DRIFT_PPM // 1_000_000
            if abs(offset_ns - before[0]) > drift_ns:
                self._unknown_until_ns = max(self._unknown_until_ns, now_ns)
        return now_ns, offset_ns

    def utilization_ratio(self, handle: Any) -> float | None:
        """Return the share of recent time in which any kernel ran; None if it is not reported or cannot be true."""
        rates = self.optional(self.lib.nvmlDeviceGetUtilizationRates, handle)
        percent = None if rates is None else rates.gpu
        return percent / 100 if percent is not None and percent <= PERCENT_MAX else None

    def power_ratio(self, handle: Any) -> float | None:
        """Return the power drawn, as a share of the effective limit; None: not known."""
        drawn_mw = self.optional(self.lib.nvmlDeviceGetPowerUsage, handle)
        limit_mw = self.optional(self.lib.nvmlDeviceGetEnforcedPowerLimit, handle)
        return drawn_mw / limit_mw if drawn_mw is not None and limit_mw else None

    def counters(self, handle: Any) -> dict[str, int]:
        """Return absolute counters for the journal: energy in mJ since the driver was loaded, where it is counted."""
        energy_mj = self.optional(self.lib.nvmlDeviceGetTotalEnergyConsumption, handle)
        return {} if energy_mj is None else {"energy_mj": int(energy_mj)}


class Power(NamedTuple):
    """The mean power of an interval, as a share of the limit. `late`: how long after a sample the energy was read, as a
    share of the interval."""

    share: float
    late: float = 0.0


class MeanPower:
    """The mean power between two samples, from the energy counter, which is read some time after each."""

    def __init__(self) -> None:
        self._limit_mw: int | None = None  # at the first read
        self._before: tuple[int, int, int] | None = None  # energy in mJ, when, and how long after the sample

    def between(self, driver: Driver, handle: Any, energy_mj: int | None, sampled_ns: int, now_ns: int) -> Power | None:
        """Return the power from the sample before to the one at `sampled_ns`; None if there is no energy counter, no
        limit, or no earlier reading."""
        late_ns = now_ns - sampled_ns
        before, self._before = self._before, None if energy_mj is None else (energy_mj, now_ns, late_ns)
        if energy_mj is None or before is None or now_ns <= before[1] or energy_mj < before[0]:
            return None
        if self._limit_mw is None:
            found = driver.optional(driver.lib.nvmlDeviceGetEnforcedPowerLimit, handle)
            self._limit_mw = found if found and found <= _LIMIT_MAX_MW else None
        mean_mw = (energy_mj - before[0]) * 1_000_000_000 / (now_ns - before[1])
        late = max(late_ns, before[2]) / (now_ns - before[1])
        return Power(mean_mw / self._limit_mw, late) if self._limit_mw else None


def text(value: Any) -> str | None:
    """Return as text what pynvml gives as bytes or text."""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
