"""The AMD source through the real amdsmi module against the stand-in library: flopsd's contract, and its own."""

from __future__ import annotations

import itertools
from pathlib import Path

import flopsd_amd
import pytest
import yaml
from conftest import Gpu, Simulation

from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import Busy, DeviceUid, Evidence, Gap, GapReason, Limits, Reading
from flopsd.errors import SourceUnavailableError
from flopsd.settings.data_files import load_peaks
from flopsd.sources import Source, SourceSettings
from flopsd.sources.peak_rows import table_of
from flopsd.sources.registry import open_source
from flopsd.system.clock import NS_PER_S
from flopsd.testing import SourceContract

MI300X = Limits(304, 2100)


class TestContract(SourceContract):
    name = "amd"

    @pytest.fixture(autouse=True)
    def _simulated(self, simulation: Simulation) -> None:
        self.simulation = simulation

    def clock(self) -> Simulation:
        return self.simulation

    def open_nothing(self, settings: SourceSettings) -> Source:
        self.simulation.gpus.clear()
        self.simulation.write()
        return self.open(settings)

    def break_one(self, source: Source) -> DeviceUid:
        self.simulation.change(1, status=31)
        return source.devices()[1].uid


def opened(simulation: Simulation) -> Source:
    simulation.write()
    return open_source("amd", SourceSettings(simulation, load_peaks()))


def read(source: Source, simulation: Simulation, ms: int) -> list[Reading]:
    simulation.advance(ms * 1_000_000)
    return list(source.read().readings)


def test_identity(simulation: Simulation) -> None:
    device = opened(simulation).devices()[0]
    assert device.uid == "5aff74a1-0000-1000-8000-000000000000"
    assert (device.vendor, device.model, device.pci_device_id) == ("amd", "AMD Instinct MI300X OAM", 0x74A1)
    assert (device.sm_count, device.sm_clock_max_mhz, device.driver) == (304, 2100, "6.14.14")
    assert (device.serial, device.pci_bus_id) == ("0x5A4D000000000001", "0000:0d:00.0")
    assert device.evidence is Evidence.UTILIZATION
    assert "ceiling" in device.evidence_reason


def test_the_description(simulation: Simulation) -> None:
    assert opened(simulation).describe() == {
        "driver": "6.14.14", "library": "26.0.2", "binding": "7.0.2", "replay": None,
    }  # fmt: skip


@pytest.mark.parametrize("busy_ms", [0, 3, 500, 997, 1000])
def test_the_ceiling_is_one_and_a_tight_one(simulation: Simulation, busy_ms: int) -> None:
    simulation.gpus[:] = [Gpu(busy_ms=busy_ms)]
    source = opened(simulation)
    read(source, simulation, 100)
    begin_ns, bound, count = simulation.boottime_ns(), 0, 0
    for ms in (1000, 137, 30, 2503, 60_000, 999):
        (reading,) = read(source, simulation, ms)
        assert isinstance(reading.work, Busy)
        bound, count = bound + reading.work.sm_cycles, count + 1
    end_ns = simulation.boottime_ns()
    true_ns = simulation.gpus[0].busy_ns(end_ns) - simulation.gpus[0].busy_ns(begin_ns)
    assert max_sm_cycles(MI300X, true_ns) <= bound
    assert bound <= max_sm_cycles(MI300X, true_ns + count * 21_000_000) + count
    assert bound <= max_sm_cycles(MI300X, end_ns - begin_ns) + count


def test_the_counter_may_wrap(simulation: Simulation) -> None:
    """32 bits of percent and milliseconds are twelve hours of full load."""
    simulation.gpus[:] = [Gpu(busy_ms=1000)]
    simulation.advance((1 << 32) * 10_000 - 3 * NS_PER_S - simulation.boottime_ns())
    source = opened(simulation)
    works = [read(source, simulation, 1000)[0].work for _ in range(6)]
    assert works[0] == Gap(GapReason.STARTING)
    assert works[1:] == [Busy(max_sm_cycles(MI300X, NS_PER_S))] * 5


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (31, GapReason.DEVICE_LOST),
        (8, GapReason.DRIVER_TIMEOUT),
        (9, GapReason.DRIVER_TIMEOUT),
        (10, GapReason.NO_PERMISSION),
        (2, GapReason.NOT_SUPPORTED),
        (6, GapReason.DRIVER_ERROR),
    ],
)
def test_a_fault_is_a_gap_with_its_reason(simulation: Simulation, status: int, reason: GapReason) -> None:
    source = opened(simulation)
    for _ in range(2):
        read(source, simulation, 1000)
    simulation.change(0, status=status)
    hit, other = read(source, simulation, 1000)
    assert hit.work == Gap(reason)
    assert isinstance(other.work, Busy)
    simulation.change(0, status=0)
    assert read(source, simulation, 1000)[0].work == Gap(reason)  # until there is a baseline again
    assert isinstance(read(source, simulation, 1000)[0].work, Busy)


def test_a_counter_that_fell_is_a_gap(simulation: Simulation) -> None:
    source = opened(simulation)
    for _ in range(2):
        read(source, simulation, 1000)
    simulation.change(0, busy_ms=100)  # the sum since the boot is another one, and a smaller
    assert read(source, simulation, 1000)[0].work == Gap(GapReason.COUNTER_RESET)
    assert isinstance(read(source, simulation, 1000)[0].work, Busy)


def test_a_counter_that_stands_still_is_a_gap_after_a_while(simulation: Simulation) -> None:
    source = opened(simulation)
    for _ in range(2):
        read(source, simulation, 1000)
    path, simulation.path = simulation.path, simulation.path.with_name("elsewhere")
    assert read(source, simulation, 1000) == []
    (first, second) = read(source, simulation, 3000)
    assert first.work == second.work == Gap(GapReason.COUNTER_STALLED)
    simulation.path = path
    assert isinstance(read(source, simulation, 1000)[0].work, Busy)


def test_an_activity_in_other_units_is_no_ceiling(simulation: Simulation) -> None:
    """Were the sum one of ratios, a full load would look like one percent."""
    simulation.gpus[:] = [Gpu(busy_ms=1000, metrics="scaled")]
    source = opened(simulation)
    read(source, simulation, 1000)
    assert read(source, simulation, 1000)[0].work == Gap(GapReason.ZERO_AT_FULL_LOAD)


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (Gpu(partition="CPX"), "compute partition CPX"),
        (Gpu(metrics="mi200", partition="-"), "no accumulating activity counter"),
    ],
)
def test_what_cannot_be_bounded_is_a_gap(simulation: Simulation, gpu: Gpu, words: str) -> None:
    simulation.gpus[:] = [gpu]
    source = opened(simulation)
    device = source.devices()[0]
    assert device.evidence is Evidence.GAP
    assert words in device.evidence_reason
    for _ in range(3):
        assert read(source, simulation, 1000)[0].work == Gap(GapReason.NOT_SUPPORTED)


def test_a_gpu_that_cannot_be_identified_is_named_when_it_can(simulation: Simulation) -> None:
    simulation.change(0, status=31)
    source = opened(simulation)
    assert (source.devices()[0].uid, source.devices()[0].model) == ("amd-index-0", "unidentified")
    assert read(source, simulation, 1000)[0].work == Gap(GapReason.DEVICE_LOST)
    simulation.change(0, status=0)
    read(source, simulation, 1000)
    assert source.devices()[0].model == "AMD Instinct MI300X OAM"
    read(source, simulation, 1000)
    assert isinstance(read(source, simulation, 1000)[0].work, Busy)


def test_energy_is_an_absolute_counter(simulation: Simulation) -> None:
    source = opened(simulation)
    energy = [read(source, simulation, 1000)[0].counters["energy_mj"] for _ in range(3)]
    assert [later - earlier for earlier, later in itertools.pairwise(energy)] == pytest.approx([750_000] * 2, abs=2)


def test_the_row_reproduces_the_published_peaks_and_fits_the_table(simulation: Simulation) -> None:
    table = table_of(None, ["amd"]).table
    part = table.resolve(opened(simulation).devices()[0])
    assert part.id == "mi300x"
    limits = table.limits(opened(simulation).devices()[0], part)
    assert isinstance(limits, Limits)
    assert (limits.sm_count, limits.sm_clock_max_mhz) == (MI300X.sm_count, MI300X.sm_clock_max_mhz)
    (told,) = yaml.safe_load((Path(flopsd_amd.__file__).parent / "peaks.yaml").read_text())
    rates = told["flop_per_cycle_per_sm"]
    for name, tflop_per_s in told["datasheet_dense_tflop_per_s"].items():
        pipe, number_format = name.split(".")
        assert round(rates[pipe][number_format] * 304 * 2100 / 10**6, 1) == tflop_per_s, name


def test_no_driver_is_unavailable_with_a_hint(simulation: Simulation) -> None:
    simulation.driver = 0
    simulation.write()
    with pytest.raises(SourceUnavailableError, match="Driver not loaded") as caught:
        opened(simulation)
    assert caught.value.absent
    assert "load amdgpu" in caught.value.hint
