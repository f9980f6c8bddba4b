"""Whether the driver's MIG capabilities are open, on simulated trees."""

import os
from pathlib import Path

import pytest

from flopsd.sources.nvml.profiling_access import mig_capability


@pytest.mark.parametrize(
    ("file", "device_mode", "cap_eff", "state"),
    [
        (None, None, "0", "absent"),
        ("DeviceFileMinor: 2\nDeviceFileMode: 256\n", None, "0", "closed"),
        ("DeviceFileMinor: 2\nDeviceFileMode: 256\n", 0o400, "0", "open"),
        ("DeviceFileMinor: 2\nDeviceFileMode: 256\n", None, "200000", "open"),  # CAP_SYS_ADMIN has all of them
        ("", None, "0", "open"),  # for drivers without device files: whoever may read it has the capability
    ],
)
def test_a_capability_is_open_to_a_process_that_may_read_its_device_file(
    tmp_path: Path, file: str | None, device_mode: int | None, cap_eff: str, state: str
) -> None:
    folder, devices = tmp_path / "proc/driver/nvidia/capabilities/mig", tmp_path / "dev/nvidia-caps"
    for one in (folder, devices, tmp_path / "proc/self"):
        one.mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(f"Name:\tflopsd\nCapEff:\t{cap_eff:>016}\n")
    if file is not None:
        (folder / "monitor").write_text(file)
    if device_mode is not None:
        os.close(os.open(devices / "nvidia-cap2", os.O_CREAT, device_mode))
    assert mig_capability("monitor", tmp_path) == state
