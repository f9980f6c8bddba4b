"""SM clocks by NVML, for a source that learns everything else elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from flopsd.core.clock_integral import ClockSample
from flopsd.core.model import DeviceUid
from flopsd.core.peaks import PeakTable
from flopsd.sources.nvml.driver import Driver
from flopsd.sources.nvml.gpu_threads import SAMPLING_MAX_NS, GpuThreads
from flopsd.system.clock import Clock


class SmClocks:
    """What the SM clocks of GPUs were, for a while back. A fault of the driver is a clock that is not known."""

    def __init__(self, lib: Any, clock: Clock, peaks: PeakTable, keep_ns: int) -> None:
        """`lib` is the pynvml module; samples older than `keep_ns` are forgotten."""
        self._lib, self._clock, self._keep_ns = lib, clock, keep_ns
        self._driver = Driver(lib, clock, peaks)
        self._handles: dict[DeviceUid, tuple[Any, int | None]] = {}  # with the maximum clock
        self._samples: dict[DeviceUid, list[ClockSample]] = {}
        self._threads = GpuThreads(clock)
        self.is_open = False  # whether NVML answers

    def poll(self, uids: Iterable[DeviceUid]) -> None:
        """Add what is known of the clocks since the last poll: buffered samples where there are some, and one now."""
        try:
            if not self.is_open:
                self._lib.nvmlInit()
                self.is_open = True
        except self._lib.NVMLError:
            return
        for _, fault in self._threads.run({uid: partial(self._poll, uid) for uid in uids}):
            if isinstance(fault, self._lib.NVMLError):
                # NVML counts its users: only when all have let go does a new start see a driver that was reloaded.
                self.close()
            elif isinstance(fault, BaseException):
                raise fault

    def of(self, uid: DeviceUid) -> Sequence[ClockSample]:
        """The samples of one GPU that are kept, in order of time."""
        return self._samples.get(uid, ())

    def close(self) -> None:
        self._handles.clear()
        if self.is_open and not self._threads.hanging:
            self.is_open = False
            self._driver.optional(self._lib.nvmlShutdown)

    def _poll(self, uid: DeviceUid) -> None:
        if uid not in self._handles:
            found = self._lib.nvmlDeviceGetHandleByUUID(uid)
            self._handles[uid] = found, self._driver.sm_clock_max_mhz(found)
        handle, max_mhz = self._handles[uid]
        kept = self._samples.setdefault(uid, [])
        now_ns = self._clock.boottime_ns()
        since_ns = kept[-1][0] if kept else now_ns
        kept += self._driver.sm_clock_samples(handle, since_ns, max_mhz) or []
        mhz = self._driver.sm_clock_mhz(handle, max_mhz)
        if mhz is not None and self._clock.boottime_ns() - now_ns <= SAMPLING_MAX_NS:
            kept.append((now_ns, mhz))
        first = next((at for at, (ns, _) in enumerate(kept) if ns >= now_ns - self._keep_ns), 0)
        del kept[:first]


def open_clocks(clock: Clock, peaks: PeakTable, keep_ns: int) -> SmClocks | None:
    """The SM clocks of this machine, or None where NVML is not here."""
    try:
        import pynvml
    except ImportError:
        return None
    clocks = SmClocks(pynvml, clock, peaks, keep_ns)
    clocks.poll(())
    return clocks if clocks.is_open else None
