"""Reads one GPU of the NVML source with its slices. All calls for one GPU are made in one thread at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.model import UNIDENTIFIED, Device, DeviceUid, Evidence, GapReason, Gauges, Reading, Sweep
from flopsd.sources.nvml.discovery import Discovery
from flopsd.sources.nvml.driver import NO_PERMISSION, NOT_OFFERED, Driver, UnusableError, reason_of
from flopsd.sources.nvml.gpm_meter import GpmMeter
from flopsd.sources.nvml.gpu import Gpu, Unread
from flopsd.sources.nvml.meter import Meter
from flopsd.sources.nvml.mig import PERMISSION_FIX
from flopsd.system.clock import NS_PER_S

LOOK_AGAIN_NS = 10 * NS_PER_S  # for GPUs that come late, MIG that was switched, and slices that were made or removed


class GpuReader:
    """The GPU that was at `index` when it was found. From then on its UUID identifies it, since indices may change."""

    def __init__(self, index: int, driver: Driver, discovery: Discovery, is_known: Callable[[DeviceUid], bool]) -> None:
        """`is_known`: whether a GPU is another reader's."""
        self.index = index
        self.is_misplaced = False  # whether it was not identified, and the GPU at its index is another reader's now
        self._driver, self._discovery, self._is_known = driver, discovery, is_known
        self._gpus: list[Gpu] = [discovery.unanswered(index)]
        self._looked_ns = self._found_ns = driver.clock.boottime_ns()  # the last look, and the last that succeeded
        self.looks_next = False  # for changes, with the next read
        self.devices: Sequence[Device] = [gpu.device for gpu in self._gpus]
        self.polls = False  # whether a clock is to be read between two reads

    @property
    def uid(self) -> DeviceUid | None:
        """The uid of the whole GPU; None: it could not be identified yet."""
        first = self._gpus[0]
        return None if first.device.model == UNIDENTIFIED else first.whole

    @property
    def is_down(self) -> bool:
        """Whether nothing of the GPU could be read at the last try."""
        return all(gpu.handle is None for gpu in self._gpus)

    def open(self, since_ns: int | None = None) -> GpuReader:
        """Find out what the GPU is. `since_ns`: when it may have begun to work. Never raises NVMLError."""
        found = self._discovery.open(self.index, self._gpus[0].device.uid, self._is_known)
        for gpu in found:
            gpu.since_ns = since_ns
        self._use(found)
        return self

    def read(self) -> Sweep:
        """Return one reading of each device that has one. Never raises NVMLError."""
        self._look_again()
        readings, gauges = list[Reading](), dict[DeviceUid, Gauges]()
        for at, gpu in enumerate(self._gpus):
            reading, shown = self._read(gpu)
            gpu = self._gpus[at]  # it may have been identified just now
            if gpu.since_ns is not None:
                reading = reading or gpu.meter.fail(GapReason.STARTING)
                reading, gpu.since_ns = replace(reading, begin_ns=gpu.since_ns), None
            if reading is not None:
                readings.append(reading)
            if shown is not None:
                gauges[gpu.device.uid] = shown
        self._use(self._gpus)
        return Sweep(tuple(readings), gauges)

    def next_poll_ns(self, now_ns: int, until_ns: int) -> int | None:
        """Return when the next sample is due before a read at `until_ns`; None: none is. Makes no call."""
        due = [meter.next_poll_ns(now_ns, until_ns) for meter in self._open_meters()]
        return min((ns for ns in due if ns is not None), default=None)

    def poll(self) -> None:
        """Take the samples that are due. Never raises NVMLError: the next read gives the reason."""
        for meter in self._open_meters():
            self._driver.optional(meter.poll)

    def _open_meters(self) -> list[Meter]:
        return [gpu.meter for gpu in self._gpus if gpu.handle is not None]

    def move_to(self, index: int) -> None:
        """Look at another index for the GPU that was not identified."""
        self.index, self.is_misplaced = index, False

    def release(self) -> None:
        for gpu in self._gpus:
            if isinstance(gpu.meter, GpmMeter):
                self._driver.optional(gpu.meter.release)

    def _use(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = list(gpus)
        self.devices = [gpu.device for gpu in gpus]
        self.polls = any(gpu.meter.polls for gpu in gpus)

    def _read(self, gpu: Gpu) -> tuple[Reading | None, Gauges | None]:
        try:
            if gpu.handle is None:
                gpu = self._reopen(gpu)
            if gpu.part is not None and not isinstance(gpu.meter, Unread) and gpu.part.has_changed(self._driver):
                self.looks_next = True
                return gpu.meter.fail(GapReason.DEVICE_MISSING), None
            reading, gauges = gpu.meter.read()
            gpu.refusals = None
            gpu.updated()
            return reading, gauges
        except self._driver.lib.NVMLError as fault:
            return self._failed(gpu, fault), None
        except UnusableError as fault:
            return gpu.meter.fail(fault.reason, fault.totals), None

    def _failed(self, gpu: Gpu, fault: Any) -> Reading:
        reading = gpu.meter.fail(reason_of(fault))
        if isinstance(gpu.meter, GpmMeter):
            gpu.refusals = None if gpu.refusals is None else gpu.refusals + 1
            if gpu.part is not None and fault.value == NO_PERMISSION:
                gpu.meter.evidence = (Evidence.GAP, "no permission to read this MIG slice's counters", PERMISSION_FIX)
            elif gpu.part is None and gpu.refusals == 3 and fault.value in NOT_OFFERED:
                # Seen on vGPU guests (dcgm-exporter#701): GPM is reported as supported, but never gives a sample.
                why = f"GPM is reported as supported, but gives no sample with an SM clock ({fault})"
                gpu.meter, gpu.may_have_gpm = self._discovery.ceiling(gpu.device, gpu.handle, why), True
                gpu.updated()
                return reading
            gpu.updated()
        gpu.handle = None
        return reading

    def _reopen(self, gpu: Gpu) -> Gpu:
        """Give a GPU that failed a new handle; open one again that was never identified. Raises NVMLError."""
        lib = self._driver.lib
        if gpu.device.model == UNIDENTIFIED:
            found = self._discovery.reach(self.index, gpu.device.uid, self._is_known)
            self.is_misplaced = not found
            self._gpus[:] = found or [gpu]
            return self._gpus[0]
        handle = lib.nvmlDeviceGetHandleByUUID(gpu.whole)
        if gpu.part is not None:
            gpu.part = replace(gpu.part, handle=lib.nvmlDeviceGetHandleByUUID(gpu.device.uid))
        gpu.meter.reach(handle)
        if isinstance(gpu.meter, GpmMeter):
            gpu.meter.take(self._discovery.gpm(handle, gpu.part))
        gpu.handle = handle
        return gpu

    def _look_again(self) -> None:
        """Look for changes while the daemon runs: MIG is switched, slices come and go, refused GPM is available."""
        now_ns = self._driver.clock.boottime_ns()
        if (now_ns - self._looked_ns < LOOK_AGAIN_NS and not self.looks_next) or self.uid is None:
            return
        self._looked_ns, self.looks_next = now_ns, False
        known = {gpu.device.uid: gpu for gpu in self._gpus}
        try:
            found = self._discovery.again(self.uid, known, self._found_ns)
        except self._driver.lib.NVMLError:
            return  # its readings give the reason
        self._found_ns = now_ns
        for gpu in known.values():
            if isinstance(gpu.meter, GpmMeter) and gpu not in found:
                self._driver.optional(gpu.meter.release)
        self._gpus = list(found)  # listed with their first readings
