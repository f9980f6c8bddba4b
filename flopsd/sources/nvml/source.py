"""All GPUs that NVML shows to this process, read as one source. One GPU's fault or hang never affects another."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from flopsd.core.model import Device, DeviceUid, Sweep
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.confidential import confidential_computing, profiling_access_of
from flopsd.sources.nvml.counter_servers import SERVERS, running
from flopsd.sources.nvml.discovery import Discovery
from flopsd.sources.nvml.driver import Driver, hint_of, is_absent
from flopsd.sources.nvml.gpu_reader import LOOK_AGAIN_NS, GpuReader
from flopsd.sources.nvml.gpu_threads import GpuThreads
from flopsd.sources.nvml.loaded_library import loaded_library
from flopsd.sources.nvml.profiling_access import mig_capability

log = logging.getLogger("flopsd")
_OPEN_SECONDS = 5.0  # without persistence mode a GPU is initialised when it is opened
_DRIVER = "driver"  # the key of calls that concern no single GPU


class NvmlSource:
    name = "nvml"

    def __init__(self, lib: Any, settings: SourceSettings) -> None:
        """`lib` is the pynvml module. Raises SourceUnavailableError: no library, no driver, no GPU."""
        self._lib, self._clock = lib, settings.clock
        self._driver = Driver(lib, settings.clock, settings.peaks)
        self._discovery = Discovery(self._driver, settings)
        self._threads = GpuThreads(settings.clock)
        self._opened_ns = self._looked_ns = settings.clock.boottime_ns()
        self._closed = False
        self._reads: list[Sweep] = []  # that came since the last sweep
        self._hanging: set[GpuReader] = set()  # as logged
        self._faults: dict[Any, str] = {}
        try:
            lib.nvmlInit()
        except lib.NVMLError as fault:
            why = f"NVML cannot be used: {fault}"
            raise SourceUnavailableError(why, hint=hint_of(fault), absent=is_absent(fault)) from fault
        try:
            self._driver.version = str(lib.nvmlSystemGetDriverVersion())
            self._readers = [self._reader(index) for index in range(lib.nvmlDeviceGetCount())]
        except lib.NVMLError as fault:
            self.close()
            raise SourceUnavailableError(f"NVML does not list its devices: {fault}", hint=hint_of(fault)) from fault
        if not self._readers:
            self.close()
            raise SourceUnavailableError(
                "the NVIDIA driver shows no GPU to this process",
                hint="in a container check NVIDIA_VISIBLE_DEVICES and that the NVIDIA runtime is in use",
            )
        self._run({reader: reader.open for reader in self._readers}, _OPEN_SECONDS)

    def devices(self) -> Sequence[Device]:
        return [device for reader in self._readers for device in reader.devices]

    def describe(self) -> Mapping[str, Any]:
        version = getattr(self._lib, "__version__", None)
        library, library_sha256 = loaded_library()
        return {
            "driver": self._driver.version,
            "nvml": self._driver.optional(self._lib.nvmlSystemGetNVMLVersion),
            "binding": None if version is None else str(version),
            "confidential_computing": confidential_computing(self._driver),
            "profiling_counters": profiling_access_of(self._driver).value,
            "counters_served_by": ", ".join(sorted(set(running(SERVERS).values()))) or None,
            "mig_monitor": mig_capability("monitor"),
            "mig_config": mig_capability("config"),
            "library": library,
            "library_sha256": library_sha256,
            "replay": None,
        }

    def read(self) -> Sweep:
        if self._closed:
            raise SourceError("the NVML source is closed")
        self._look_for_new()
        self._log_hangs()
        self._run({reader: reader.read for reader in self._readers})
        reads, self._reads = self._reads, []
        readings = tuple(reading for read in reads for reading in read.readings)
        gauges = {uid: shown for read in reads for uid, shown in read.gauges.items()}
        if not self._threads.hanging and all(reader.is_down for reader in self._readers):
            self._run({_DRIVER: self._restart})
        return Sweep(readings, gauges, renamed=dict(self._discovery.renamed))

    def before_last_read(self) -> None:
        """Let the next read look for GPUs and slices that came meanwhile."""
        self._looked_ns -= LOOK_AGAIN_NS
        for reader in self._readers:
            reader.looks_next = True

    def poll(self, until_ns: int) -> int | None:
        """Take the samples that are due before the next read, at `until_ns`; return when the next samples are due."""
        readers = [reader for reader in self._readers if reader.polls and not self._threads.is_slow(reader)]
        now_ns = self._clock.boottime_ns()
        due = {reader: reader.next_poll_ns(now_ns, until_ns) for reader in readers}
        polled = [reader for reader, ns in due.items() if ns is not None and ns <= now_ns]
        self._run({reader: reader.poll for reader in polled})
        due |= {r: None if self._threads.is_slow(r) else r.next_poll_ns(now_ns, until_ns) for r in polled}
        return min((ns for ns in due.values() if ns is not None), default=None)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._threads.hanging:
                self._driver.optional(self._lib.nvmlShutdown)
            self._threads.close()

    def _reader(self, index: int) -> GpuReader:
        def is_known(uid: DeviceUid) -> bool:
            return any(other.uid == uid for other in self._readers if other is not reader)

        reader = GpuReader(index, self._driver, self._discovery, is_known)
        return reader

    def _run(self, calls: Mapping[Any, Any], patience_seconds: float = 0.0) -> Mapping[Any, Any]:
        """Return the results of the calls, and of earlier ones that were late. Keep reads for the next sweep and list
        new GPUs. An exception of a call is no fault of the driver, and is logged once."""
        results = self._threads.run(calls, patience_seconds)
        for key, given in results:
            fault = repr(given) if isinstance(given, BaseException) else ""
            if fault and self._faults.get(key) != fault:
                log.error("internal error in reading a GPU; please report it with the traceback", exc_info=given)
            self._faults[key] = fault
            if isinstance(given, Sweep):
                self._reads.append(given)
            elif isinstance(given, GpuReader) and given not in self._readers:
                self._readers += [given] if given.uid not in {one.uid for one in self._readers if one.uid} else []
        return dict(results)

    def _log_hangs(self) -> None:
        """Log which GPUs have not answered since the previous read, and which answer again."""
        calls = self._threads.hanging
        if not calls and not self._hanging:
            return
        hanging = {reader for reader in self._readers if reader in calls}
        for reader in hanging - self._hanging:
            log.error("GPU %d: the driver hangs; its time is a gap until it answers, the others are read", reader.index)
        for reader in self._hanging - hanging:
            log.info("GPU %d: the driver answers again", reader.index)
        self._hanging = hanging

    def _look_for_new(self) -> None:
        """Find GPUs that the driver did not list before: after a reset, a hot plug, or a late fabric manager. Each may
        have worked for the job since this source was opened, so its first reading begins then. Indices may have
        changed, so the UUID decides. A GPU that cannot be identified is listed if the driver has more GPUs than are
        known. Its reading opens it again, at another index if its own is now a known GPU's, or none's."""
        now_ns, lib = self._clock.boottime_ns(), self._lib
        if now_ns - self._looked_ns < LOOK_AGAIN_NS:
            return
        self._looked_ns = now_ns
        known = {reader.uid for reader in self._readers}
        count = self._run({_DRIVER: lambda: self._driver.optional(lib.nvmlDeviceGetCount)}).get(_DRIVER)
        if not isinstance(count, int) or (count == len(self._readers) and not any(r.is_down for r in self._readers)):
            return
        unidentified = {reader.index for reader in self._readers if reader.uid is None}
        misplaced = deque(r for r in self._readers if r.uid is None and (r.is_misplaced or r.index >= count))

        def look(index: int) -> GpuReader | bool:
            """Return the reader of a new GPU; if there is none, whether the GPU answered."""
            uid = self._driver.optional(lambda: str(lib.nvmlDeviceGetUUID(lib.nvmlDeviceGetHandleByIndex(index))))
            if uid is None or uid in known:
                return uid is not None
            if misplaced:
                misplaced.popleft().move_to(index)
                return True
            return self._reader(index).open(self._opened_ns)

        found = self._run({index: partial(look, index) for index in set(range(count)) - unidentified})
        names, down = {device.uid for device in self.devices()}, {one.index for one in self._readers if one.is_down}
        refused = [self._reader(index) for index, given in found.items() if given is False]
        new = [reader for reader in refused if reader.devices[0].uid not in names]
        new.sort(key=lambda reader: reader.index in down)
        more = max(0, count - len(self._readers))  # the others are known GPUs, perhaps those that are down
        self._run({reader.index: partial(reader.open, self._opened_ns) for reader in new[:more]})

    def _restart(self) -> None:
        """Start NVML again, with new sample buffers: all GPUs failed, so perhaps the driver was reloaded."""
        for reader in self._readers:
            reader.release()
        self._driver.optional(self._lib.nvmlShutdown)
        # While NVML is down each GPU's gap says so, and the next read tries again.
        self._driver.optional(self._lib.nvmlInit)
