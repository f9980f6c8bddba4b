"""What `doctor` says of a device that a source found."""

from dataclasses import replace

from flopsd.cli.doctor import device_diagnosis
from flopsd.core.model import Device, Evidence
from tests.support.strategies import table

H100 = Device("GPU-1", 0, "nvidia", "NVIDIA H100 80GB HBM3", sm_count=132, evidence=Evidence.CYCLES)


def test_a_slice_names_its_gpu_and_a_shared_device_who_else_may_use_it() -> None:
    alone = device_diagnosis(H100, "nvml", table())
    assert (alone.state, alone.meters) == ("ok", True)
    assert "132 SMs: evidence cycles by nvml, a measurement" in alone.detail
    assert not {"slice", "SHARED"} & set(alone.detail.split())
    found = device_diagnosis(replace(H100, sm_count=16, parent="GPU-0", shared="pod-2"), "nvml", table())
    assert "16 SMs, a slice of GPU-0: evidence cycles" in found.detail
    assert found.detail.endswith("; SHARED with pod-2")


def test_a_ceiling_is_no_measurement() -> None:
    bounded = device_diagnosis(replace(H100, evidence=Evidence.UTILIZATION), "nvml", table())
    assert (bounded.state, bounded.meters) == ("warn", True)
    assert "evidence utilization by nvml, only a ceiling" in bounded.detail
