"""MIG devices as the driver lists them: one slice for each GPU instance, whatever its compute instances."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import pynvml
import pytest

from flopsd.sources.nvml.driver import Driver
from flopsd.sources.nvml.mig import is_partitioned, slices
from flopsd.testing import FakeClock
from tests.support.nvml_answers import NvmlFault
from tests.support.story import H100
from tests.support.strategies import table


class Mig(NamedTuple):
    """A compute instance: its GPU instance, with the SMs and slices of that, None where the driver does not say."""

    instance: int
    sms: int | None = 16
    compute: int = 1
    whole: int = 1
    name: str | None = "NVIDIA H100 MIG 1g.10gb"


def driver(*devices: Mig | int, mode: Any = None) -> Driver:
    """A driver for a GPU whose places for MIG devices each hold one, or an error."""

    def at(handle: object, place: int) -> int:
        assert handle == "handle"
        found = devices[place]
        if isinstance(found, int):
            raise NvmlFault(found)
        return place

    def of(place: int) -> Mig:
        found = devices[place]
        assert isinstance(found, Mig)
        return found

    def attributes(place: int) -> SimpleNamespace:
        one = of(place)
        if one.sms is None:
            raise NvmlFault(pynvml.NVML_ERROR_NO_PERMISSION)
        return SimpleNamespace(
            multiprocessorCount=one.sms, computeInstanceSliceCount=one.compute, gpuInstanceSliceCount=one.whole
        )

    def name(place: int) -> str:
        given = of(place).name
        if given is None:
            raise NvmlFault(pynvml.NVML_ERROR_UNKNOWN)
        return given

    def asked(handle: object) -> Any:
        assert handle == "handle"
        if isinstance(mode, Exception):
            raise mode
        return mode

    lib = SimpleNamespace(
        NVMLError=NvmlFault, nvmlDeviceGetMaxMigDeviceCount=lambda _: len(devices),
        nvmlDeviceGetMigDeviceHandleByIndex=at, nvmlDeviceGetGpuInstanceId=lambda place: of(place).instance,
        nvmlDeviceGetAttributes_v2=attributes, nvmlDeviceGetName=name, nvmlDeviceGetUUID=lambda place: f"MIG-{place}",
        nvmlDeviceGetMigMode=asked,
    )  # fmt: skip
    return Driver(lib, FakeClock(), table())


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ((), []),
        ((Mig(7), Mig(3, 32, 2, 2)), [(1, 3, 32, False), (0, 7, 16, False)]),  # in order of their instances
        ((6, Mig(3), 6), [(1, 3, 16, False)]),  # not every place holds one
        ((Mig(3, 16, 1, 2), Mig(4), Mig(3, 14, 1, 2)), [(0, 3, 30, False), (1, 4, 16, False)]),
        ((Mig(3, 16, 1, 4), Mig(3, 16, 1, 4), Mig(3, 16, 1, 4)), [(0, 3, 48, True)]),
        ((Mig(3, 16, 1, 2),), [(0, 3, 16, True)]),
        ((Mig(3, None),), [(0, 3, None, False)]),
        ((Mig(3, 16), Mig(3, None)), [(0, 3, None, True)]), ((Mig(3, None), Mig(3, 16)), [(0, 3, None, False)]),
    ],
)  # fmt: skip
def test_compute_instances_form_one_slice_per_gpu_instance(
    devices: tuple[Mig | int, ...], found: list[tuple[int, int, int | None, bool]]
) -> None:
    """Expected: the place of the first, the instance, its SMs, and whether a part of it is unassigned."""
    got = slices(driver(*devices), H100, "handle")
    assert [(one.handle, one.device.gpu_instance, one.device.sm_count, one.partial) for one in got] == found
    for one in got:
        assert one.device == replace(
            H100, uid=f"MIG-{one.handle}", serial=None, sm_count=one.device.sm_count, parent=H100.uid,
            gpu_instance=one.device.gpu_instance, mig_profile="1g.10gb",
        )  # fmt: skip


@pytest.mark.parametrize("name", [None, "NVIDIA H100", ""])
def test_a_slice_may_have_no_profile_in_its_name(name: str | None) -> None:
    (one,) = slices(driver(Mig(3, name=name)), H100, "handle")
    assert one.device.mig_profile is None


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_GPU_IS_LOST])
def test_a_place_that_cannot_be_read_is_an_error(error: int) -> None:
    with pytest.raises(NvmlFault):
        slices(driver(Mig(3), error), H100, "handle")


@pytest.mark.parametrize(
    ("mode", "is_on"),
    [
        ((1, 0), True), ((0, 1), False), ((2, 1), False), (NvmlFault(3), False), (NvmlFault(6), False),
        (NvmlFault(13), False), (NvmlFault(4), None), (NvmlFault(999), None),
    ],
)  # fmt: skip
def test_a_gpu_is_partitioned_by_its_current_mig_mode(mode: Any, is_on: bool | None) -> None:
    if is_on is None:
        with pytest.raises(NvmlFault):
            is_partitioned(driver(mode=mode), "handle")
    else:
        assert is_partitioned(driver(mode=mode), "handle") is is_on
