"""SM clocks from NVML, for a source that gets everything else elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import partial
from typing import Any

from flopsd.core.clock_integral import Cycles
from flopsd.core.dataclass import dataclass
from flopsd.core.model import DeviceUid
from flopsd.core.peaks import PeakTable
from flopsd.core.values import ceil_div
from flopsd.sources.nvml.driver import Driver
from flopsd.sources.nvml.gpu_threads import SAMPLING_MAX_NS, GpuThreads
from flopsd.sources.nvml.polled_clock import PolledClock
from flopsd.system.clock import Clock


@dataclass(frozen=True, slots=True)
class _Part:
    """The cycles that one clock ran between two reads of it."""

    begin_ns: int
    end_ns: int
    cycles: Cycles


@dataclass(slots=True)
class _Gpu:
    handle: Any
    max_mhz: int
    polled: PolledClock
    read_ns: int | None = None  # when its clock was read last
    parts: list[_Part] = field(default_factory=list)


class SmClocks:
    """The recent SM clocks of GPUs. After a fault of the driver a clock is not known."""

    def __init__(self, lib: Any, clock: Clock, peaks: PeakTable, keep_ns: int) -> None:
        """`lib` is the pynvml module; what is older than `keep_ns` is forgotten."""
        self._lib, self._clock, self._keep_ns = lib, clock, keep_ns
        self._driver = Driver(lib, clock, peaks)
        self._gpus: dict[DeviceUid, _Gpu] = {}
        self._threads = GpuThreads(clock)
        self.is_open = False  # whether NVML answers

    def read(self, max_mhz: Mapping[DeviceUid, int]) -> None:
        """Read the clocks, and add them with those polled since the last read. `max_mhz`: the maximum, by GPU."""
        try:
            if not self.is_open:
                self._lib.nvmlInit()
                self.is_open = True
        except self._lib.NVMLError:
            return
        self._run({uid: partial(self._read, uid, mhz) for uid, mhz in max_mhz.items()})

    def poll(self, until_ns: int) -> int | None:
        """Read the clocks that are due before the next read, at `until_ns`; return when the next clocks are due."""
        gpus = {uid: gpu for uid, gpu in self._gpus.items() if not self._threads.is_slow(uid)}
        now_ns = self._clock.boottime_ns()
        due = {uid: gpu.polled.next_ns(now_ns, until_ns) for uid, gpu in gpus.items()}
        self._run({uid: partial(self._poll, gpus[uid]) for uid, ns in due.items() if ns is not None and ns <= now_ns})
        return min((gpu.polled.due_ns for gpu in gpus.values() if gpu.polled.due_ns is not None), default=None)

    def cycles(self, uid: DeviceUid, begin_ns: int, end_ns: int) -> Cycles | None:
        """Return the cycles that a GPU's clock ran in an interval; None if too little is known of it."""
        gpu = self._gpus.get(uid)
        if gpu is None:
            return None
        parts = [one for one in gpu.parts if begin_ns <= (one.begin_ns + one.end_ns) // 2 < end_ns]
        known_ns = sum(one.end_ns - one.begin_ns for one in parts)
        if 2 * known_ns < end_ns - begin_ns:
            return None
        # Time that no part covers, or a part covers beyond the interval, may have any clock up to the maximum.
        covered_ns = sum(min(one.end_ns, end_ns) - max(one.begin_ns, begin_ns) for one in parts)
        unknown_ns = (end_ns - begin_ns - covered_ns) + (known_ns - covered_ns)
        ran = sum(one.cycles.cycles for one in parts)
        doubt = sum(one.cycles.doubt_cycles for one in parts) + ceil_div(unknown_ns * gpu.polled.max_mhz, 1000)
        return Cycles(ran * (end_ns - begin_ns) // known_ns, doubt, sum(one.cycles.square_sum for one in parts))

    def close(self) -> None:
        self._gpus.clear()
        if self.is_open and not self._threads.hanging:
            self.is_open = False
            self._driver.optional(self._lib.nvmlShutdown)

    def _run(self, calls: Mapping[Any, Any]) -> None:
        has_failed = False
        for uid, fault in self._threads.run(calls):
            if isinstance(fault, self._lib.NVMLError):
                has_failed = True
                self._gpus.pop(str(uid), None)
            elif isinstance(fault, BaseException):
                raise fault
        if has_failed and not self._gpus:
            # NVML counts its users: a new start sees a reloaded driver only once all of them have shut it down.
            self.close()

    def _read(self, uid: DeviceUid, max_mhz: int) -> None:
        gpu = self._gpus.get(uid)
        if gpu is None:
            handle = self._lib.nvmlDeviceGetHandleByUUID(uid)
            polled = PolledClock(max_mhz, partial(self._driver.moment_of, len(self._gpus)))
            gpu = self._gpus[uid] = _Gpu(handle, max_mhz, polled)
        now_ns = self._clock.boottime_ns()
        mhz = self._driver.sm_clock_mhz(gpu.handle, max_mhz)
        if mhz is None or self._clock.boottime_ns() - now_ns > SAMPLING_MAX_NS:
            return
        before_ns, gpu.read_ns = gpu.read_ns, now_ns
        if before_ns is not None and before_ns < now_ns:
            gpu.parts.append(_Part(before_ns, now_ns, gpu.polled.cycles(before_ns, now_ns, mhz)))
        gpu.parts = [part for part in gpu.parts if part.begin_ns >= now_ns - self._keep_ns]

    def _poll(self, gpu: _Gpu) -> None:
        gpu.polled.poll(self._clock, lambda: self._driver.sm_clock_mhz(gpu.handle, gpu.max_mhz))


def open_clocks(clock: Clock, peaks: PeakTable, keep_ns: int) -> SmClocks | None:
    """Return the SM clocks of this machine, or None if NVML is not here."""
    try:
        import pynvml
    except ImportError:
        return None
    clocks = SmClocks(pynvml, clock, peaks, keep_ns)
    clocks.read({})
    return clocks if clocks.is_open else None
