"""Without neuron-monitor: the driver's own totals, in a tree made from a real listing."""

import os
import threading
from pathlib import Path

import pytest

from flopsd.core.model import Counted, Evidence, Gap, GapReason
from flopsd.sources import SourceSettings
from flopsd.sources.neuron import open_source
from flopsd.sources.neuron.source import NeuronSource
from flopsd.sources.neuron.sysfs import Power, Tree
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.neuron import Sysfs
from tests.support.strategies import table


@pytest.fixture(autouse=True)
def _no_monitor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def opened(sysfs: Sysfs) -> tuple[NeuronSource, FakeClock]:
    clock = FakeClock()
    return open_source(SourceSettings(clock, table(), sysfs.options)), clock


def works(source: NeuronSource, clock: FakeClock) -> list[Counted | Gap]:
    clock.advance(NS_PER_S)
    return [reading.work for reading in source.read().readings if isinstance(reading.work, Counted | Gap)]


def test_live_totals_are_counted_by_their_growth(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path, chips=2)
    sysfs.work(0, 10**15, 5)
    source, clock = opened(sysfs)
    assert [device.evidence for device in source.devices()] == [Evidence.COUNT] * 2
    assert table().resolve(source.devices()[1]).id == "inferentia2"
    assert works(source, clock) == [Gap(GapReason.STARTING)] * 2
    sysfs.work(0, 10**15 + 7, 6)
    assert works(source, clock) == [Counted(8), Counted(0)]
    found = source.describe()
    assert found["counted_from"] == "sysfs flop_count"
    assert found["power_percent"] == "0: 0.86/25.00/18.86; 1: 0.86/25.00/18.86"
    assert source.read().readings[0].counters["neuron_sysfs_flop_total"] == 10**15 + 13


def test_a_write_that_clears_is_a_fall_and_counting_goes_on_from_there(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.work(0, 100, 100)
    source, clock = opened(sysfs)
    works(source, clock)
    sysfs.work(0, 0, 100)
    assert works(source, clock) == [Gap(GapReason.COUNTER_RESET)]
    sysfs.work(0, 30, 100)
    assert works(source, clock) == [Counted(30)]


@pytest.mark.parametrize("garbage", ["", "-5", "0x10", "12 34", "9" * 30])
def test_a_total_that_cannot_be_read_is_a_gap_and_loses_no_flop(tmp_path: Path, garbage: str) -> None:
    sysfs = Sysfs(tmp_path)
    source, clock = opened(sysfs)
    works(source, clock)
    sysfs.work(0, 50)
    sysfs.put(0, "neuron_core1/stats/other_info/flop_count/total", garbage)
    assert works(source, clock) == [Gap(GapReason.DRIVER_ERROR)]
    sysfs.work(0, 60, 4)
    assert works(source, clock) == [Counted(64)]


@pytest.mark.parametrize("driver", ["2.30.1.9", "2.24.7.0", "", "unknown"])
def test_totals_of_older_drivers_are_a_gap_with_its_reason(tmp_path: Path, driver: str) -> None:
    source, clock = opened(Sysfs(tmp_path, driver=driver))
    (chip,) = source.devices()
    assert chip.evidence is Evidence.GAP
    assert "only when a process exits" in chip.evidence_reason
    assert "2.30.2" in chip.evidence_fix
    assert works(source, clock) == [Gap(GapReason.NOT_SUPPORTED)]


def test_a_moved_tree_is_found_and_a_doubled_one_is_not_guessed(tmp_path: Path) -> None:
    moved = Sysfs(tmp_path / "moved")
    folder = moved.root / "neuron0" / "neuron_core0" / "stats"
    (folder / "other_info").rename(folder / "counters")  # as driver 2.31.7 may have done: the new paths are not known
    (moved.root / "neuron0" / "neuron_core1" / "stats" / "other_info").rename(
        moved.root / "neuron0" / "neuron_core1" / "stats" / "counters"
    )
    assert len(Tree(**moved_options(moved)).chips[0].totals) == 2
    doubled = Sysfs(tmp_path / "doubled")
    doubled.put(0, "stats/flop_count/total", 1)
    source, clock = opened(doubled)
    assert "flop_count in 2 kinds of places" in source.devices()[0].evidence_reason
    assert works(source, clock) == [Gap(GapReason.NOT_SUPPORTED)]


def moved_options(sysfs: Sysfs) -> dict[str, str]:
    return {"root": str(sysfs.root), "module": str(sysfs.module)}


def test_a_flop_count_that_is_a_file_as_the_guide_draws_it(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    for core in range(2):
        folder = sysfs.root / f"neuron0/neuron_core{core}/stats/other_info/flop_count"
        for leaf in folder.iterdir():
            leaf.unlink()
        folder.rmdir()
        folder.write_text(f"{core + 40}\n")
    assert Tree(**moved_options(sysfs)).chips[0].flop_total() == 81


def test_a_serial_number_that_names_no_chip_is_not_used(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path, chips=3)
    sysfs.put(0, "info/serial_number", "")  # what the driver prints where firmware does not answer
    sysfs.put(1, "info/serial_number", "00ab")
    sysfs.put(2, "info/serial_number", "00AB")
    source, _ = opened(sysfs)
    assert [device.uid for device in source.devices()] == ["neuron0", "neuron1", "neuron2"]


def test_power_is_read_where_firmware_tells_it(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    (chip,) = Tree(**moved_options(sysfs)).chips
    assert chip.power() == Power(1789180860, ("0.86", "25.00", "18.86"))
    sysfs.put(0, "stats/power/utilization", "POWER_STATUS_NO_DATA,0,0.00,0.00,0.00")
    assert chip.power() is None


@pytest.mark.parametrize(("second", "total"), [(2**33 + 1, 2**33 + 1), (6, 6)])
def test_a_total_that_seems_to_fall_is_read_again(tmp_path: Path, second: int, total: int) -> None:
    sysfs = Sysfs(tmp_path)
    (chip,) = Tree(**moved_options(sysfs)).chips
    for pipe in chip.totals:
        pipe.unlink()
        os.mkfifo(pipe)

    def tell() -> None:
        for value in (5, second):
            for pipe, text in zip(chip.totals, (value, 0), strict=True):
                pipe.write_text(str(text))  # waits until it is read

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    assert chip.flop_total_after(2**33) == total
    teller.join()
