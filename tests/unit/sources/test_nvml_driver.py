"""NVML's answers in flopsd's units: missing and impossible values, and the meaning of errors."""

from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pynvml
import pytest

from flopsd.core.model import GapReason
from flopsd.errors import SourceUnavailableError
from flopsd.sources.nvml import SOURCE
from flopsd.sources.nvml.driver import MeanPower, Power, UnusableError, hint_of, is_absent, reason_of
from flopsd.testing import FakeClock
from tests.support.nvml_answers import HANDLE, NvmlFault, driver

SECOND = 10**9


@pytest.mark.parametrize(
    ("error", "reason", "hint", "absent"),
    [
        (pynvml.NVML_ERROR_NOT_SUPPORTED, GapReason.NOT_SUPPORTED, "", False),
        (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, GapReason.NOT_SUPPORTED, "", False),
        (pynvml.NVML_ERROR_NO_PERMISSION, GapReason.NO_PERMISSION, "/dev/nvidia", False),
        (pynvml.NVML_ERROR_TIMEOUT, GapReason.DRIVER_TIMEOUT, "", False),
        (pynvml.NVML_ERROR_GPU_IS_LOST, GapReason.DEVICE_LOST, "", False),
        (pynvml.NVML_ERROR_RESET_REQUIRED, GapReason.DEVICE_LOST, "", False),
        (28, GapReason.DEVICE_LOST, "", False),
        (pynvml.NVML_ERROR_NOT_FOUND, GapReason.DEVICE_MISSING, "", False),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, GapReason.DRIVER_ERROR, "load the driver", True),
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, GapReason.DRIVER_ERROR, "install the NVIDIA driver", True),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, GapReason.DRIVER_ERROR, "reboot or reload the driver", False),
        (pynvml.NVML_ERROR_UNKNOWN, GapReason.DRIVER_ERROR, "", False),
    ],
)
def test_each_nvml_error_has_its_reason_and_hint(error: int, reason: GapReason, hint: str, absent: bool) -> None:
    fault = NvmlFault(error)
    assert (reason_of(fault), is_absent(fault)) == (reason, absent)
    assert hint in hint_of(fault)
    assert bool(hint_of(fault)) is bool(hint)


def test_a_module_of_another_distribution_or_age_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pynvml` before 12 and nvidia-ml-py before 12.550.52 lack this function."""
    monkeypatch.delattr(pynvml, "nvmlDeviceGetComputeRunningProcesses_v2")
    with pytest.raises(SourceUnavailableError, match=r"pynvml\S* is older than nvidia-ml-py 12\.550\.52") as caught:
        SOURCE.open(Mock())
    assert "pip uninstall pynvml" in caught.value.hint


@pytest.mark.parametrize(
    ("cores", "arch", "capability", "sms"),
    [
        (6912, pynvml.NVML_DEVICE_ARCH_AMPERE, (8, 0), 108), (10240, pynvml.NVML_DEVICE_ARCH_AMPERE, (8, 6), 80),
        (10240, pynvml.NVML_DEVICE_ARCH_AMPERE, (8, 7), None), (10240, pynvml.NVML_DEVICE_ARCH_AMPERE, None, None),
        (16896, pynvml.NVML_DEVICE_ARCH_HOPPER, (9, 0), 132), (16896, pynvml.NVML_DEVICE_ARCH_HOPPER, None, 132),
        (16897, pynvml.NVML_DEVICE_ARCH_HOPPER, (9, 0), None), (16896, None, (9, 0), None),
        (None, pynvml.NVML_DEVICE_ARCH_HOPPER, (9, 0), None), (16896, 99, (9, 0), None),
    ],
)  # fmt: skip
def test_the_sm_count_follows_from_the_cores_of_a_known_chip(
    cores: int | None, arch: int | None, capability: tuple[int, int] | None, sms: int | None
) -> None:
    facts = {"NumGpuCores": cores, "Architecture": arch, "CudaComputeCapability": capability}
    given = {f"nvmlDeviceGet{name}": value for name, value in facts.items() if value is not None}
    device = driver(nvmlDeviceGetName="A", nvmlDeviceGetUUID="GPU-1", **given).identify(3, HANDLE)
    assert (device.sm_count, device.index, device.vendor, device.uid, device.model) == (sms, 3, "nvidia", "GPU-1", "A")
    assert (device.serial, device.pci_bus_id, device.pci_device_id, device.sm_clock_max_mhz) == (None,) * 4


@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_identity_is_read_from_bytes_or_text(as_bytes: bool) -> None:
    text: Any = str.encode if as_bytes else str
    pci = SimpleNamespace(busId=text("00000000:10:00.0"), pciDeviceId=0x2330_10DE)
    one = driver(
        nvmlDeviceGetName="NVIDIA H100", nvmlDeviceGetUUID="GPU-1", nvmlDeviceGetPciInfo=pci,
        nvmlDeviceGetSerial=text("1650000000001"),
        nvmlDeviceGetMaxClockInfo=lambda kind: 1980 if kind == pynvml.NVML_CLOCK_SM else 2619,
    )  # fmt: skip
    one.version = "595.91.07"
    device = one.identify(0, HANDLE)
    assert (device.serial, device.pci_bus_id, device.pci_device_id) == ("1650000000001", "00000000:10:00.0", 0x2330)
    assert (device.sm_clock_max_mhz, device.driver) == (1980, "595.91.07")


@pytest.mark.parametrize(
    ("mhz", "max_mhz", "found"),
    [(0, 1980, None), (1, 1980, 1), (3960, 1980, 3960), (3961, 1980, None), (9999, None, 9999)],
)
def test_an_impossible_clock_is_none(mhz: int, max_mhz: int | None, found: int | None) -> None:
    one = driver(nvmlDeviceGetClockInfo=lambda kind: mhz if kind == pynvml.NVML_CLOCK_SM else 1)
    assert one.sm_clock_mhz(HANDLE, max_mhz) == found


def utilization(
    stamps_ms: Sequence[int], after_ms: int, again_ms: int | None = None, *, is_kept: bool = True
) -> list[list[int]]:
    """The stamps of the samples found, in ms before now, for samples stamped `stamps_ms` before now. With
    `again_ms`, read again after that time, with the samples kept or not."""
    clock = FakeClock()
    value = SimpleNamespace(uiVal=7)
    stamps = [SimpleNamespace(timeStamp=clock.wall_ns() // 1000 - 1000 * ms, sampleValue=value) for ms in stamps_ms]
    one, found = driver(clock, nvmlDeviceGetSamples=(0, stamps)), list[list[int]]()
    for wait_ms in (0,) if again_ms is None else (0, again_ms):
        clock.advance(wait_ms * 1_000_000)
        del stamps[: 0 if is_kept or not wait_ms else None]
        now_ns = clock.boottime_ns()
        try:
            samples = one.utilization_samples(HANDLE, now_ns - after_ms * 1_000_000)
        except UnusableError as fault:
            assert fault.reason is GapReason.MISSED_READING
            found.append([-1])
        else:
            assert {percent for _, percent in samples} <= {7}
            found.append([(now_ns - at_ns) // 1_000_000 for at_ns, _ in samples])
    return found


@pytest.mark.parametrize(
    ("stamps_ms", "after_ms", "found"),
    [
        ([], 1000, []), ([300, 100, 200], 1000, [300, 200, 100]), ([1000, 999], 1000, [999]), ([0, -1], 1000, [0]),
        ([60_000, 59_999], 90_000, [59_999]),
    ],
)  # fmt: skip
def test_samples_are_those_since_a_time_within_the_last_minute_in_order(
    stamps_ms: Sequence[int], after_ms: int, found: Sequence[int]
) -> None:
    assert utilization(stamps_ms, after_ms) == [found]


@pytest.mark.parametrize(("ahead_ns", "is_known"), [(10**9, True), (10**9 + 1, False)])
def test_a_stamp_over_a_second_ahead_predates_a_wall_clock_set_back(ahead_ns: int, is_known: bool) -> None:
    clock = FakeClock(wall_ns=1_790_000_000 * SECOND - ahead_ns % 1000)
    sample = SimpleNamespace(timeStamp=(clock.wall_ns() + ahead_ns) // 1000, sampleValue=SimpleNamespace(uiVal=7))
    one = driver(clock, nvmlDeviceGetSamples=(0, [sample]))
    with nullcontext() if is_known else pytest.raises(UnusableError):
        assert one.utilization_samples(HANDLE, clock.boottime_ns() - 1) == []


@pytest.mark.parametrize(
    ("stamp_ms", "again_ms", "is_kept", "found"),
    [
        (-5000, 5999, True, [-1]), (-5000, 6000, True, []), (-5000, 5999, False, [-1]),
        (-10**9, 90_000, True, [-1]), (-10**9, 60_999, False, [-1]), (-10**9, 61_000, False, []),
    ],
)  # fmt: skip
def test_after_a_wall_clock_set_back_no_sample_is_used_until_its_times_are_over(
    stamp_ms: int, again_ms: int, is_kept: bool, found: Sequence[int]
) -> None:
    """Or for a minute after the last sample with a stamp too far ahead."""
    assert utilization([stamp_ms], 1000, again_ms, is_kept=is_kept) == [[-1], found]


def test_samples_are_requested_since_1970_at_the_earliest() -> None:
    one = driver(FakeClock(wall_ns=0), nvmlDeviceGetSamples=lambda *asked: (0, [] if asked[1] == 0 else [None]))
    assert one.utilization_samples(HANDLE, 5) == []


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_UNKNOWN])
def test_no_new_sample_is_no_error(error: int) -> None:
    one = driver(nvmlDeviceGetSamples=NvmlFault(error))
    if error == pynvml.NVML_ERROR_NOT_FOUND:
        assert one.utilization_samples(HANDLE, 0) == []
    else:
        with pytest.raises(NvmlFault):
            one.utilization_samples(HANDLE, 0)


@pytest.mark.parametrize(
    ("drawn_mw", "limit_mw", "ratio"),
    [(350_000, 700_000, 0.5), (0, 700_000, 0.0), (None, 700_000, None), (350_000, None, None), (350_000, 0, None)],
)
def test_power_is_a_share_of_the_limit_where_there_is_one(
    drawn_mw: int | None, limit_mw: int | None, ratio: float | None
) -> None:
    given = {"nvmlDeviceGetPowerUsage": drawn_mw, "nvmlDeviceGetEnforcedPowerLimit": limit_mw}
    one = driver(**{name: value for name, value in given.items() if value is not None})
    assert one.power_ratio(HANDLE) == ratio
    power = MeanPower()
    energies_mj = (1000, 1000 + (drawn_mw or 0) * 2)  # in two seconds
    found = [power.between(one, HANDLE, mj, at * 2 * SECOND, at * 2 * SECOND) for at, mj in enumerate(energies_mj)]
    assert found == [None, Power((drawn_mw or 0) / limit_mw) if limit_mw else None]


def test_the_mean_power_between_two_reads_needs_both() -> None:
    power, limits = MeanPower(), [700_000, 1]
    one = driver(nvmlDeviceGetEnforcedPowerLimit=lambda: limits.pop(0))
    reads = ((0, 5), (700, 6), (None, 7), (1400, 8), (1750, 9), (1750, 10), (1749, 11), (2449, 11), (2799, 12))
    given = [power.between(one, HANDLE, energy and energy * 1000, at * SECOND, at * SECOND) for energy, at in reads]
    found = [one and one.share for one in given]
    assert found == [None, 1.0, None, None, 0.5, 0.0, None, None, 0.5]


@pytest.mark.parametrize(("late_ms", "late"), [((0, 0), 0), ((0, 250), 0.2), ((200, 0), 0.25)])
def test_power_shows_how_late_the_energy_was_read(late_ms: tuple[int, int], late: float) -> None:
    """After each of two samples a second apart."""
    power, one = MeanPower(), driver(nvmlDeviceGetEnforcedPowerLimit=1000)
    for at, ms in enumerate(late_ms):
        now_ns = at * SECOND + ms * 1_000_000
        found = power.between(one, HANDLE, now_ns // 1_000_000, at * SECOND, now_ns)
    assert found == Power(1.0, late)


@pytest.mark.parametrize("limit_mw", [0, 2**32 - 1])
def test_an_invalid_power_limit_is_asked_for_again(limit_mw: int) -> None:
    """Otherwise work would seem to draw too little power to the end of the run, or no power would ever contradict
    it."""
    power, limits = MeanPower(), [limit_mw, 700_000, 1]
    one = driver(nvmlDeviceGetEnforcedPowerLimit=lambda: limits.pop(0))
    found = [power.between(one, HANDLE, at * 350_000, at * SECOND, at * SECOND) for at in range(4)]
    assert found == [None, None, Power(0.5), Power(0.5)]


def test_energy_is_a_counter_where_it_is_counted() -> None:
    assert driver().counters(HANDLE) == {}
    assert driver(nvmlDeviceGetTotalEnergyConsumption=7).counters(HANDLE) == {"energy_mj": 7}
    assert driver().utilization_ratio(HANDLE) is None
