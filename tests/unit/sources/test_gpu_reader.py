"""One GPU of the NVML source from read to read: the results of its failures, and when it is looked up again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from flopsd.core.model import UNIDENTIFIED, Device, DeviceUid, Evidence, Gap, GapReason, Limits
from flopsd.sources.nvml.driver import Driver
from flopsd.sources.nvml.gpu import Gpu, Unread
from flopsd.sources.nvml.gpu_reader import GpuReader
from flopsd.sources.nvml.mig import PERMISSION_FIX, Slice
from flopsd.sources.nvml.polled_clock import Moments
from flopsd.sources.nvml.utilization_meter import UtilizationMeter
from flopsd.testing import FakeClock
from tests.support.gpm_gpu import MHZ, SECOND, SMS
from tests.support.gpm_gpu import Gpu as GpmGpu
from tests.support.nvml_answers import NvmlFault
from tests.support.story import H100
from tests.support.strategies import table

NAMELESS = Device("nvml-index-0", 0, "nvidia", UNIDENTIFIED)
SLICES = [replace(H100, uid=f"MIG-{at}", parent=H100.uid) for at in range(3)]


def unread(device: Device, clock: FakeClock, handle: object = None) -> Gpu:
    driver = Driver(None, clock, table())
    return Gpu(device, handle, Unread(driver, device, GapReason.DRIVER_TIMEOUT, "why", "fix"))


class Found:
    """The GPUs that discovery finds; `later`: the result of the next lookup, or the error that it raises."""

    def __init__(self, simulated: GpmGpu, *devices: Device) -> None:
        self.simulated, self.clock = simulated, simulated.clock
        self.later: Sequence[Gpu] | Exception = ()
        self.asked: list[tuple[DeviceUid, list[DeviceUid], int]] = []
        self.found = [self.gpu(device) for device in devices or (H100,)]
        self.handles: list[str] = []
        lib = SimpleNamespace(NVMLError=NvmlFault, nvmlDeviceGetHandleByUUID=self._handle)
        driver = Driver(lib, self.clock, table())
        self.reader = GpuReader(0, driver, self, lambda _: False)  # type: ignore[arg-type]

    def gpu(self, device: Device) -> Gpu:
        part = None if device.parent is None else Slice(device, "old", False)
        meter = replace(self.simulated, device=device, made=self.simulated.made, faults=self.simulated.faults).meter
        return Gpu(device, "first", meter, part)

    def _handle(self, uid: str) -> str:
        self.handles.append(uid)
        return "first"

    def unanswered(self, _index: int) -> Gpu:
        return unread(NAMELESS, self.clock)

    def open(self, index: int, stand_in: DeviceUid, _is_known: object) -> list[Gpu]:
        assert (index, stand_in) == (0, NAMELESS.uid)
        return self.found

    def reach(self, index: int, stand_in: DeviceUid, is_known: object) -> list[Gpu]:
        return self.open(index, stand_in, is_known)

    def again(self, uid: DeviceUid, known: Mapping[DeviceUid, Gpu], looked_ns: int) -> Sequence[Gpu]:
        self.asked.append((uid, list(known), looked_ns - 1000 * SECOND))
        if isinstance(self.later, Exception):
            raise self.later
        return self.later or list(known.values())

    def gpm(self, handle: object, part: Slice | None) -> Any:
        assert handle == "first"
        assert part is None or part.handle == "first", "the slice has a new handle too"
        return self.simulated.gpm("new")

    def ceiling(self, device: Device, handle: object, why: str) -> UtilizationMeter:
        assert handle == "first"
        driver: Any = SimpleNamespace(
            clock=self.clock, utilization_samples=lambda *_: [], sm_clock_mhz=lambda *_: MHZ, counters=lambda _: {},
            moment_of=lambda _, *slot: Moments().of(*slot),
        )  # fmt: skip
        return UtilizationMeter(driver, device, handle, Limits(SMS, MHZ), (why, "a fix"))

    def reads(self, seconds: int = 1) -> list[GapReason | None]:
        """The reasons of all readings, one read per second."""
        reasons = list[GapReason | None]()
        for _ in range(seconds):
            self.clock.advance(SECOND)
            found = self.reader.read()
            reasons += [one.work.reason if isinstance(one.work, Gap) else None for one in found.readings]
        return reasons


@pytest.mark.parametrize(
    ("faults", "is_ceiling"),
    [
        ([3, 3, 3], True), ([999, 4, 13], True), ([6, 3, 6], True),
        ([3, 3], False), ([3, 3, 4], False), ([3, 3, 999, 3], False), ([3, 3, None, 3, 3, 3], False),
    ],
)  # fmt: skip
def test_a_gpu_that_refuses_its_first_three_samples_gets_a_ceiling(faults: list[int | None], is_ceiling: bool) -> None:
    found = Found(GpmGpu((), faults=list(faults)))
    found.reader.open()
    found.reads(len(faults))
    (device,) = found.reader.devices
    assert (device.evidence is Evidence.UTILIZATION) is is_ceiling
    assert ("no sample with an SM clock" in device.evidence_reason) is is_ceiling
    found.reads()
    assert found.simulated.made.count("release gpm") == 1, "its buffers were the old handle's"


def test_a_slice_that_refuses_its_samples_stays_a_slice_and_names_its_lack() -> None:
    found = Found(GpmGpu((), faults=[3, 3, 3, 4]), SLICES[0])
    found.reader.open()
    assert found.reads(4) == [*[GapReason.NOT_SUPPORTED] * 3, GapReason.NO_PERMISSION]
    (device,) = found.reader.devices
    assert (device.evidence, device.evidence_fix) == (Evidence.GAP, PERMISSION_FIX)
    assert found.reads(2) == [GapReason.NO_PERMISSION, None]
    assert found.reader.devices[0].evidence is Evidence.ACTIVITY
    assert found.handles == [H100.uid, SLICES[0].uid] * 4
    assert found.reader.uid == H100.uid


def test_a_gpu_that_is_down_is_reopened_and_named_when_it_answers() -> None:
    found = Found(GpmGpu(()))
    reader = found.reader
    assert (reader.uid, list(reader.devices), reader.is_down, reader.polls) == (None, [NAMELESS], True, False)
    found.clock.advance(SECOND)
    named, found.found = found.found, [unread(NAMELESS, found.clock)]
    reader.open(since_ns=7)
    found.clock.advance(20 * SECOND)
    first = reader.read().readings[0]
    assert (first.device, first.begin_ns, first.end_ns) == (NAMELESS.uid, 7, found.clock.boottime_ns())
    assert first.work == Gap(GapReason.DRIVER_TIMEOUT)
    assert found.asked == [], "who it is comes first"
    found.found = named
    named[0].since_ns = 9
    read = reader.read()
    assert (read.readings[0].device, read.readings[0].begin_ns) == (H100.uid, 9)
    assert list(read.gauges) == [H100.uid]
    assert (reader.uid, reader.is_down, [device.uid for device in reader.devices]) == (H100.uid, False, [H100.uid])
    found.clock.advance(SECOND)
    assert reader.read().readings[0].begin_ns > 9, "only the first reading begins there"


def test_a_gpu_is_looked_up_again_every_ten_seconds_and_lost_parts_are_released() -> None:
    found = Found(GpmGpu(()), *SLICES[:2])
    found.reader.open()
    found.reads(9)
    assert found.asked == []
    found.reads(1)
    old = [SLICES[0].uid, SLICES[1].uid]
    assert found.asked == [(H100.uid, old, 0)]
    found.later = NvmlFault(999)
    assert found.reads(10) == [None] * 20, "what cannot be looked at goes on"
    found.later = [found.found[1], found.gpu(SLICES[2])]
    found.simulated.made.clear()
    found.reads(9)
    assert found.simulated.made == []
    assert found.reads(1) == [None, GapReason.STARTING]
    assert found.asked[1:] == [(H100.uid, old, 10 * SECOND)] * 2, "since the last look that succeeded"
    assert found.simulated.made == ["release gpm"], "that of the slice that is gone"
    assert [device.uid for device in found.reader.devices] == [SLICES[1].uid, SLICES[2].uid]
    found.reader.release()
    assert found.simulated.made == ["release gpm"] * 3


def test_the_clocks_of_all_devices_of_a_gpu_are_polled() -> None:
    found = Found(GpmGpu(()), SLICES[0], H100)
    found.found.append(unread(SLICES[2], found.clock, "first"))  # it has no clock to poll
    found.reader.open()
    until_ns = found.clock.boottime_ns() + 2 * SECOND
    assert (found.reader.polls, found.reader.next_poll_ns(found.clock.boottime_ns(), until_ns)) == (False, None)
    found.reads(1)
    assert found.reader.polls
    moments = list[int]()
    while (due_ns := found.reader.next_poll_ns(found.clock.boottime_ns(), until_ns)) is not None:
        moments.append(due_ns)
        found.clock.advance(due_ns - found.clock.boottime_ns())
        found.reader.poll()
    assert len(moments) == 2 * 18
    assert moments == sorted(moments)
