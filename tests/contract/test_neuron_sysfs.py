"""Without neuron-monitor: the driver's own totals, in a tree made from a real listing."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from flopsd.core.model import Counted, Device, Evidence, Gap, GapReason, Reading
from flopsd.sources import SourceSettings
from flopsd.sources.neuron import open_source
from flopsd.sources.neuron.chips import Chip, chips_of_document, sysfs_facts
from flopsd.sources.neuron.document import MonitorDocument
from flopsd.sources.neuron.source import NeuronSource
from flopsd.sources.neuron.sysfs import ChipNode, Tree
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.neuron import Sysfs
from tests.support.strategies import table


@pytest.fixture(autouse=True)
def _no_monitor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("flopsd.sources.neuron._INSTALLED", "/nowhere")


def opened(sysfs: Sysfs) -> tuple[NeuronSource, FakeClock]:
    clock = FakeClock()
    return open_source(SourceSettings(clock, table(), sysfs.options)), clock


def works(source: NeuronSource, clock: FakeClock) -> list[Counted | Gap]:
    clock.advance(NS_PER_S)
    return [reading.work for reading in source.read().readings if isinstance(reading.work, Counted | Gap)]


@pytest.mark.parametrize("driver", ["2.30.2", "2.31.7.0"])
def test_live_totals_are_counted_by_their_growth(tmp_path: Path, driver: str) -> None:
    sysfs = Sysfs(tmp_path, driver, chips=2)
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


def test_a_chip_that_the_driver_shows_later_is_metered_too(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path / "now", chips=3)
    late = sysfs.root / "neuron1"
    late.rename(tmp_path / "later")
    source, clock = opened(sysfs)
    sysfs.work(0, 5)
    works(source, clock)
    (tmp_path / "later").rename(late)
    assert works(source, clock) == [Counted(0), Counted(0), Gap(GapReason.STARTING)]
    sysfs.work(1, 7)
    assert works(source, clock) == [Counted(0), Counted(0), Counted(7)]
    assert [device.serial for device in source.devices()] == [f"000000a1b2c3d40{at}" for at in (0, 2, 1)]
    assert [device.index for device in source.devices()] == [0, 2, 1]


def test_a_chip_without_a_name_is_called_as_the_next_one(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path / "now", chips=2)
    (sysfs.root / "neuron0" / "info" / "architecture" / "device_name").unlink()
    source, _ = opened(sysfs)
    assert [device.model for device in source.devices()] == ["Inferentia2", "Inferentia2"]


@pytest.mark.parametrize("other", [100, 1000])  # however much work the other core did
def test_a_cleared_total_is_a_fall_and_counting_continues_from_there(tmp_path: Path, other: int) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.work(0, 100, 100)
    source, clock = opened(sysfs)
    works(source, clock)
    sysfs.work(0, 0, other)
    assert works(source, clock) == [Gap(GapReason.COUNTER_RESET)]
    sysfs.work(0, 30, other)
    assert works(source, clock) == [Counted(30)]


@pytest.mark.parametrize("garbage", ["", "-5", "0x10", "12 34", "9" * 30])
def test_an_unreadable_total_is_a_gap_and_loses_no_flop(tmp_path: Path, garbage: str) -> None:
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
    of = "driver 2." if driver.startswith("2.") else "driver unknown" if driver else "a driver of unknown version"
    assert f"and {of}" in chip.evidence_reason
    assert "only when a process exits" in chip.evidence_reason
    assert "2.30.2" in chip.evidence_fix
    assert works(source, clock) == [Gap(GapReason.NOT_SUPPORTED)]


def test_a_moved_tree_is_found_and_an_ambiguous_one_is_not_guessed(tmp_path: Path) -> None:
    moved = Sysfs(tmp_path / "moved")
    folder = moved.root / "neuron0" / "neuron_core0" / "stats"
    (folder / "other_info").rename(folder / "counters")  # as driver 2.31.7 may have done: the new paths are unknown
    (moved.root / "neuron0" / "neuron_core1" / "stats" / "other_info").rename(
        moved.root / "neuron0" / "neuron_core1" / "stats" / "counters"
    )
    assert len(Tree(**moved_options(moved)).chips[0].totals) == 2
    doubled = Sysfs(tmp_path / "doubled")
    doubled.put(0, "stats/flop_count/total", 1)
    source, clock = opened(doubled)
    assert "flop_count in 2 kinds of places" in source.devices()[0].evidence_reason
    assert works(source, clock) == [Gap(GapReason.NOT_SUPPORTED)]


def test_a_driver_without_totals_is_a_gap_with_its_reason(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    for folder in sorted((sysfs.root / "neuron0").rglob("flop_count")):
        folder.rename(folder.with_name("other_count"))
    (chip,) = opened(sysfs)[0].devices()
    assert (chip.evidence, chip.evidence_reason) == (
        Evidence.GAP, "no neuron-monitor, and this driver shows no flop_count"
    )  # fmt: skip
    assert Tree(**moved_options(sysfs)).chips[0].flop_totals() is None


def moved_options(sysfs: Sysfs) -> dict[str, str]:
    return {"root": str(sysfs.root), "module": str(sysfs.module)}


def test_a_flop_count_may_be_a_file_as_in_the_guide(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    for core in range(2):
        folder = sysfs.root / f"neuron0/neuron_core{core}/stats/other_info/flop_count"
        for leaf in folder.iterdir():
            leaf.unlink()
        folder.rmdir()
        folder.write_text(f"{core + 40}\n")
    assert Tree(**moved_options(sysfs)).chips[0].flop_totals() == (40, 41)


def test_a_serial_number_that_identifies_no_chip_is_not_used(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path, chips=3)
    sysfs.put(0, "info/serial_number", "")  # printed by the driver where firmware does not answer
    sysfs.put(1, "info/serial_number", "00ab")
    sysfs.put(2, "info/serial_number", "00AB")
    source, _ = opened(sysfs)
    assert [device.uid for device in source.devices()] == ["neuron0", "neuron1", "neuron2"]


def test_power_is_read_where_firmware_states_it(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    (chip,) = Tree(**moved_options(sysfs)).chips
    assert chip.power_percent() == "0.86/25.00/18.86"
    sysfs.put(0, "stats/power/utilization", "POWER_STATUS_NO_DATA,0,0.00,0.00,0.00")
    assert chip.power_percent() is None


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
    assert chip.flop_totals_after((2**33, 0)) == (total, 0)
    teller.join()


def cores(total: int | None) -> tuple[int, ...] | None:
    return None if total is None else (total, 0)


def chip_with(totals: Sequence[int | None], worked: Sequence[bool] = ()) -> Chip:
    """A chip whose total was read once for each of `totals`."""
    left = iter(totals)
    node = SimpleNamespace(
        flop_totals_after=lambda _: cores(next(left)), index=3, architecture="NCv3", power_percent=lambda: None
    )
    chip = Chip(Device("neuron3", 3, "aws", "trainium2"), 0, cast("ChipNode", node))
    for total, at in zip(totals, [*worked, *[False] * len(totals)], strict=False):
        assert chip.read_total(worked=at) is (total is not None)
    return chip


@pytest.mark.parametrize(
    ("totals", "worked", "live", "ends"),
    [
        ([], [], None, None),
        ([None], [True], None, None),
        ([5], [True], None, (5, 5)),
        ([5, 6], [False, False], None, (5, 6)),
        ([5, 5], [False, True], False, (5, 5)),
        ([5, 6], [False, True], True, (5, 6)),
        ([5, 6, 6], [False, True, True], False, (5, 6)),
        ([5, 6, 6, 7], [False, True, True, True], True, (5, 7)),
        ([5, None, 6], [False, True, True], True, (5, 6)),
        ([5, 4], [False, True], None, (5, 4)),
    ],
)
def test_a_total_is_live_if_it_mostly_moved_while_work_was_counted(
    totals: list[int | None], worked: list[bool], live: bool | None, ends: tuple[int, int] | None
) -> None:
    chip = chip_with(totals, worked)
    assert chip.sysfs_live is live
    seen = {} if live is None else {"neuron_sysfs_live": int(live)}
    begin_end = {} if ends is None else {"neuron_sysfs_flop_begin": ends[0], "neuron_sysfs_flop_total": ends[1]}
    assert chip.counters == ({**begin_end, **seen} if begin_end else {})


LIVE, AT_EXIT, UNSEEN, UNREAD = ([5, 6], [False, True]), ([5, 5], [False, True]), ([5], [True]), ([None], [True])


@pytest.mark.parametrize(
    ("chips", "moves"),
    [
        ([], None),
        ([UNREAD], None),
        ([LIVE, LIVE], "live"),
        ([LIVE, AT_EXIT], "at exit"),
        ([LIVE, UNSEEN], "not seen"),
        ([AT_EXIT, UNREAD], "at exit"),
    ],
)
def test_the_behaviour_of_totals_is_stated_for_all_chips_that_have_one(
    chips: Sequence[tuple[list[int | None], list[bool]]], moves: str | None, tmp_path: Path
) -> None:
    found = sysfs_facts([chip_with(*one) for one in chips], Tree(str(tmp_path), str(tmp_path)))
    assert found["sysfs_flop_count"] == moves
    assert found["architecture"] == ("NCv3" if chips else None)
    assert (found["driver"], found["power_percent"]) == (None, None)


def test_growth_begins_at_the_last_reading_and_a_lost_total_is_not_zero() -> None:
    chip = chip_with([])
    assert chip.read_growth(5) == Reading("neuron3", 0, 5, Gap(GapReason.NOT_SUPPORTED))
    chip = chip_with([])
    chip.expect(Evidence.COUNT)
    values = iter([7, 9, None, 3])
    chip.node = cast("ChipNode", SimpleNamespace(flop_totals_after=lambda _: cores(next(values))))
    found = [chip.read_growth(at) for at in (10, 20, 30, 40)]
    assert [(one.begin_ns, one.end_ns) for one in found] == [(0, 10), (10, 20), (20, 30), (30, 40)]
    assert [one.work for one in found] == [
        Gap(GapReason.STARTING), Counted(2), Gap(GapReason.DRIVER_ERROR), Gap(GapReason.COUNTER_RESET),
    ]  # fmt: skip
    assert [one.counters["neuron_sysfs_flop_total"] for one in found] == [7, 9, 9, 3]


@pytest.mark.parametrize(
    ("count", "here", "kind", "instance", "expected"),
    [
        (2, 2, "trainium2", None, [("NEURON-ab00", "trainium2"), ("NEURON-ab01", "trainium2")]),
        (None, 1, None, None, [("NEURON-ab00", "Inferentia2")]),
        (None, 0, "trainium2", None, []),
        (0, 2, None, None, []),
        (1, 2, None, "trn1.2xlarge", [("neuron0", "trainium1")]),
        (1, 0, None, "m5.large", [("neuron0", "unknown Neuron device")]),
    ],
)
def test_chips_are_counted_by_the_document_and_named_by_sysfs_if_both_agree(
    tmp_path: Path, count: int | None, here: int, kind: str | None, instance: str | None,
    expected: list[tuple[str, str]],
) -> None:  # fmt: skip
    sysfs = Sysfs(tmp_path, chips=here)
    for index in range(here):
        sysfs.put(index, "info/serial_number", f"ab0{index}")
    document = MonitorDocument((), None, None, kind, count, 2, instance, "")
    found = chips_of_document(document, Tree(**moved_options(sysfs)), table(), 17)
    assert [(chip.device.uid, chip.device.model) for chip in found] == expected
    assert [(chip.device.index, chip.since_ns, chip.device.vendor) for chip in found] == [
        (at, 17, "aws") for at in range(len(found))
    ]
