"""How a GPU is metered, by the driver's answers, and what happens when MIG is switched."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from flopsd.core.model import UNIDENTIFIED, Evidence, Gap, GapReason, Reading
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.discovery import Discovery
from flopsd.sources.nvml.driver import Driver
from flopsd.sources.nvml.gpm_meter import GpmMeter
from flopsd.sources.nvml.gpu import Gpu, Unread
from flopsd.sources.nvml.mig import PERMISSION_FIX, Slice
from flopsd.sources.nvml.utilization_meter import UtilizationMeter
from flopsd.sources.validate import check_devices
from flopsd.testing import FakeClock
from tests.support.nvml_answers import HANDLE, NvmlFault, library
from tests.support.story import H100
from tests.support.strategies import table

UID, SMS = "GPU-1", 132
NOT_UTF8 = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")  # as pynvml raises it
SUPPORTED, NOT_SUPPORTED = (SimpleNamespace(isSupportedDevice=one) for one in (1, 0))


class Machine:
    """One GPU at index 3. `slices`: the SMs of each GPU instance, None where the driver does not say."""

    def __init__(self, *slices: int | None, mig: int | Exception = 0, gpm: Any = SUPPORTED, **answers: Any) -> None:
        self.slices, self.mig, self.clock = slices, mig, FakeClock()
        self.known = set[str]()  # UUIDs of GPUs that were found before
        facts = {
            "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3", "nvmlDeviceGetUUID": UID, "nvmlDeviceGetNumGpuCores": SMS * 128,
            "nvmlDeviceGetArchitecture": 9, "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetPciInfo": SimpleNamespace(busId="0", pciDeviceId=0x2330_10DE),
            "nvmlDeviceGetMigMode": self._mode, "nvmlGpmQueryDeviceSupport": gpm,
            "nvmlDeviceGetMaxMigDeviceCount": lambda: len(self.slices), "nvmlDeviceGetMigDeviceHandleByIndex": self._slice,
        }  # fmt: skip
        self.lib = library(**{**facts, **answers})
        self.lib.nvmlDeviceGetHandleByIndex = lambda index: HANDLE if index == 3 else None
        self.lib.nvmlDeviceGetHandleByUUID = lambda uid: HANDLE if uid == UID else None
        self.lib.nvmlDeviceGetGpuInstanceId = lambda mig: mig.instance
        self.lib.nvmlDeviceGetAttributes_v2 = lambda mig: mig.attributes()
        self.lib.c_nvmlGpmMetricsGet_t = pynvml.c_nvmlGpmMetricsGet_t
        name, uuid = self.lib.nvmlDeviceGetName, self.lib.nvmlDeviceGetUUID
        self.lib.nvmlDeviceGetName = lambda one: name(one) if one is HANDLE else "NVIDIA H100 MIG 1g.10gb"
        self.lib.nvmlDeviceGetUUID = lambda one: uuid(one) if one is HANDLE else f"MIG-{one.instance}"
        self.driver = Driver(self.lib, self.clock, table())
        self.discovery = Discovery(self.driver, SourceSettings(self.clock, table()))

    def _mode(self) -> tuple[int, int]:
        if isinstance(self.mig, Exception):
            raise self.mig
        return self.mig, 0

    def _slice(self, at: int) -> SimpleNamespace:
        sms = self.slices[at]

        def attributes() -> SimpleNamespace:
            if sms is None:
                raise NvmlFault(4)
            return SimpleNamespace(multiprocessorCount=sms, computeInstanceSliceCount=1, gpuInstanceSliceCount=1)

        return SimpleNamespace(instance=at + 1, attributes=attributes)

    def open(self) -> list[Gpu]:
        return self.discovery.open(3, "nvml-index-3", self.known.__contains__)


def test_a_gpu_with_a_known_uuid_is_not_listed_as_another() -> None:
    machine = Machine()
    machine.known.add(UID)
    (gpu,) = machine.open()
    assert (gpu.device.uid, gpu.device.model) == ("nvml-index-3", UNIDENTIFIED)
    assert gpu.device.evidence_reason == "the driver gives it the UUID of another GPU"
    assert machine.discovery.renamed == {}


@pytest.mark.parametrize(
    ("call", "answer", "model", "sms", "mhz"),
    [
        ("nvmlDeviceGetMaxClockInfo", 0, H100.model, SMS, None),
        ("nvmlDeviceGetMaxClockInfo", 2**32 - 1, H100.model, SMS, None),
        ("nvmlDeviceGetNumGpuCores", 0, H100.model, None, 1980),
        ("nvmlDeviceGetSerial", NOT_UTF8, H100.model, SMS, 1980),
        ("nvmlDeviceGetName", NOT_UTF8, "", SMS, 1980),
    ],
)
def test_an_impossible_or_unreadable_fact_is_unknown(
    call: str, answer: Any, model: str, sms: int | None, mhz: int | None
) -> None:
    (gpu,) = Machine(**{call: answer}).open()
    check_devices([gpu.device])
    assert (gpu.device.uid, gpu.device.model, gpu.device.serial) == (UID, model, None)
    assert (gpu.device.sm_count, gpu.device.sm_clock_max_mhz) == (sms, mhz)
    assert table().resolve(gpu.device).sm_count == SMS


def test_a_slice_without_sms_is_not_read_and_costs_no_other() -> None:
    found = Machine(0, 16, mig=1).open()
    check_devices([gpu.device for gpu in found])
    assert kinds(found) == [("MIG-1", None, Unread), ("MIG-2", 16, GpmMeter)]


def kinds(gpus: Any) -> list[tuple[str, int | None, type]]:
    return [(gpu.device.uid, gpu.device.sm_count, type(gpu.meter)) for gpu in gpus]


@pytest.mark.parametrize(
    ("gpm", "meter", "why"),
    [
        (SUPPORTED, GpmMeter, "not read yet"), (NOT_SUPPORTED, UtilizationMeter, "no GPM on this GPU"),
        (NvmlFault(3), UtilizationMeter, "GPM support cannot be queried"),
    ],
)  # fmt: skip
def test_a_gpu_is_metered_by_gpm_where_available(gpm: Any, meter: type, why: str) -> None:
    machine = Machine(gpm=gpm)
    (gpu,) = machine.open()
    assert kinds([gpu]) == [(UID, SMS, meter)]
    assert why in gpu.device.evidence_reason
    assert (gpu.handle, gpu.device.index, gpu.is_partitioned) == (HANDLE, 3, False)
    assert {placeholder: one.uid for placeholder, one in machine.discovery.renamed.items()} == {"nvml-index-3": UID}


@pytest.mark.parametrize(
    ("error", "reason", "fix"),
    [(15, GapReason.DEVICE_LOST, ""), (4, GapReason.NO_PERMISSION, "/dev/nvidia"), (999, GapReason.DRIVER_ERROR, "")],
)
@pytest.mark.parametrize("call", ["nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMigMode"])
def test_an_unidentified_gpu_is_listed_and_not_read(call: str, error: int, reason: GapReason, fix: str) -> None:
    machine = Machine(**{call: NvmlFault(error)})
    (gpu,) = machine.open()
    assert (gpu.device.uid, gpu.device.model, gpu.handle) == ("nvml-index-3", UNIDENTIFIED, None)
    assert gpu.device.evidence is Evidence.GAP
    assert "cannot be identified" in gpu.device.evidence_reason
    assert fix in gpu.device.evidence_fix
    assert bool(fix) is bool(gpu.device.evidence_fix)
    begin_ns = machine.clock.boottime_ns()
    machine.clock.advance(7)
    assert gpu.meter.read() == (Reading("nvml-index-3", begin_ns, begin_ns + 7, Gap(reason)), None)
    assert machine.discovery.renamed == {}


def test_a_partitioned_gpu_is_its_slices_and_a_gap_if_none_is_visible() -> None:
    machine = Machine(16, None, 60, mig=1)
    found = machine.open()
    assert kinds(found) == [("MIG-1", 16, GpmMeter), ("MIG-2", None, Unread), ("MIG-3", 60, GpmMeter)]
    assert "do not cover the GPU instance" in found[1].device.evidence_reason
    assert [gpu.device.gpu_instance for gpu in found] == [1, 2, 3]
    assert all(gpu.handle is HANDLE and gpu.whole == UID and gpu.is_partitioned for gpu in found)
    (alone,) = Machine(mig=1, nvmlDeviceGetNumGpuCores=100 * 128).open()  # fewer SMs than in the peak table
    assert kinds([alone]) == [(UID, SMS, Unread)]
    assert alone.device.evidence_fix == PERMISSION_FIX
    assert "MIG is on and no instance is visible" in alone.device.evidence_reason


@pytest.mark.parametrize(("cores", "sms", "doubted"), [(132, 132, 0), (100, 132, 32), (144, 144, 12)])
def test_the_larger_sm_count_is_taken_where_driver_and_peak_table_differ(cores: int, sms: int, doubted: int) -> None:
    (gpu,) = Machine(nvmlDeviceGetNumGpuCores=cores * 128).open()
    assert isinstance(gpu.meter, GpmMeter)
    assert (gpu.device.sm_count, gpu.meter._doubted_sms) == (sms, doubted)
    pci = SimpleNamespace(busId="0", pciDeviceId=0x9999_10DE)
    (other,) = Machine(nvmlDeviceGetPciInfo=pci, nvmlDeviceGetName="X9000", nvmlDeviceGetNumGpuCores=cores * 128).open()
    assert isinstance(other.meter, GpmMeter)
    assert (other.device.sm_count, other.meter._doubted_sms) == (cores, 0), "the table does not have it"


def test_devices_are_found_again_after_mig_and_slices_changed() -> None:
    machine = Machine(16, 32)
    whole = machine.open()

    def again(known: list[Gpu]) -> list[Gpu]:
        machine.clock.advance(10**9)
        return list(machine.discovery.again(UID, {gpu.device.uid: gpu for gpu in known}, 77))

    assert again(whole)[0] is whole[0], "MIG is off, as it was"
    machine.mig = 1
    parts = again(whole)
    assert kinds(parts) == [("MIG-1", 16, GpmMeter), ("MIG-2", 32, GpmMeter)]
    assert [part.since_ns for part in parts] == [77, 77]
    machine.slices = (16, 32, 60)
    parts[0].since_ns = parts[1].since_ns = None
    more = again(parts)
    assert (more[0] is parts[0], more[1] is parts[1], more[2].since_ns, more[0].since_ns) == (True, True, 77, None)
    machine.slices = ()
    (none,) = again(more)
    assert kinds([none]) == [(UID, SMS, Unread)]
    assert none.since_ns == 77
    assert again([none])[0] is none
    machine.slices = (16,)
    assert kinds(again([none])) == [("MIG-1", 16, GpmMeter)]
    more[0].handle = None
    machine.mig = 0
    back = again(more)
    assert kinds(back) == [(UID, SMS, GpmMeter)]
    machine.mig, back[0].handle = NvmlFault(999), None
    with pytest.raises(NvmlFault):
        again(back)


@pytest.mark.parametrize(
    ("part", "error", "sampled"),
    [
        (False, 4, ("whole", HANDLE)), (True, None, ("slice", HANDLE, 7)), (True, 4, ("whole", "of the slice")),
        (True, 3, None),
    ],
)  # fmt: skip
def test_a_slice_is_sampled_by_its_parent_or_else_by_itself(
    part: bool, error: int | None, sampled: tuple[object, ...] | None
) -> None:
    machine, samples = Machine(), list[tuple[object, ...]]()

    def sample_slice(handle: object, instance: int, _sample: object) -> None:
        if error is not None:
            raise NvmlFault(error)
        samples.append(("slice", handle, instance))

    machine.lib.nvmlGpmSampleAlloc = pynvml.c_nvmlGpmSample_t
    machine.lib.nvmlGpmSampleGet = lambda handle, _sample: samples.append(("whole", handle))
    machine.lib.nvmlGpmMigSampleGet = sample_slice
    gpm = machine.discovery.gpm(HANDLE, Slice(replace(H100, gpu_instance=7), "of the slice", False) if part else None)
    if sampled is None:
        with pytest.raises(NvmlFault):
            gpm.sample()
    else:
        gpm.sample()
        assert samples == [sampled]
