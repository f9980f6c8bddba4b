"""GPUs that appear after the start, and indices that change."""

from dataclasses import replace

import pytest

from flopsd.core.model import Active, Evidence, GapReason, Pipe, Reading
from flopsd.sources.nvml.gpu_reader import LOOK_AGAIN_NS
from flopsd.sources.validate import check_devices
from tests.contract.conftest import Open
from tests.support.scenario import Fault, Segment, h100
from tests.support.sim import Fold, pass_time

LOAD = (Segment(1000, mhz=1755, hmma=0.5),)
EARLY, LATE = (f"GPU-5a4d0000-0000-4000-8000-00000000000{at}" for at in range(2))
SECOND = 10**9


def test_a_late_gpu_is_found_and_its_time_before_is_a_gap_with_a_ceiling(open_sim: Open) -> None:
    late = replace(h100(LOAD), appears_ms=25_500)
    source, clock = open_sim(h100(LOAD), late)
    begin_ns = clock.boottime_ns()
    fold = Fold(source, clock).read(10).read(990).read(1000, 24)
    assert [device.uid for device in source.devices()] == [EARLY]
    fold.read(1000, 10)
    assert [device.uid for device in source.devices()] == [EARLY, LATE]
    fold.read(1000, 25)
    tally, figures = fold.tallies[LATE], fold.figures(LATE)
    assert (tally.begin_ns, tally.watermark_ns) == (begin_ns, clock.boottime_ns())
    assert 25 * SECOND <= tally.gap_ns[GapReason.STARTING] <= 36 * SECOND
    assert tally.observed_ns[Evidence.ACTIVITY] >= 24 * SECOND
    true = late.sm_cycles(Pipe.TENSOR_HMMA, 0, 60 * SECOND, 132) * 4096
    assert figures.high_flop is not None
    assert figures.low_flop <= true <= figures.high_flop
    assert GapReason.CONTRADICTORY not in fold.tallies[EARLY].gap_ns


def test_gpus_are_looked_for_every_ten_seconds(open_sim: Open) -> None:
    source, clock = open_sim(h100(LOAD), replace(h100(LOAD), appears_ms=1_000))
    for pause_ns, listed in ((LOOK_AGAIN_NS - 1, [EARLY]), (1, [EARLY, LATE])):
        pass_time(source, clock, pause_ns)
        source.read()
        assert [device.uid for device in source.devices()] == listed


def test_gpus_whose_indices_change_continue_by_their_uuids(open_sim: Open) -> None:
    """The first GPU is listed last from the twelfth second on, and a third appears at the same time."""
    moved = replace(h100(LOAD), moves_ms=12_000)
    new = replace(h100(LOAD), appears_ms=12_000)
    source, clock = open_sim(moved, h100((Segment(1000, hmma=0.25),)), new)
    fold = Fold(source, clock).read(10).read(990).read(1000, 39)
    assert len({device.uid for device in source.devices()}) == len(source.devices()) == 3
    cycles = [fold.tallies[uid].active_sm_cycles[(Evidence.ACTIVITY, Pipe.TENSOR_HMMA)] for uid in (EARLY, LATE)]
    assert 1.99 < cycles[0] / cycles[1] < 2.01
    assert [fold.tallies[uid].total_gap_ns for uid in (EARLY, LATE)] == [10_000_000, 10_000_000]


@pytest.mark.parametrize("until_ms", [18_500, 10**9])
def test_an_unidentified_gpu_hides_no_late_one_and_is_listed_once(open_sim: Open, until_ms: int) -> None:
    """The first GPU is lost from the start, and back later or never; the third appears meanwhile."""
    sick = h100(LOAD, (Fault(0, until_ms, "gpu_lost"),))
    well = h100(LOAD)
    source, clock = open_sim(sick, well, replace(well, appears_ms=12_000))
    seen: list[Reading] = []
    for _ in range(40):
        pass_time(source, clock, SECOND)
        sweep = source.read()
        uids = [reading.device for reading in sweep.readings]
        assert len(uids) == len(set(uids))
        seen += sweep.readings
    listed = [device.uid for device in source.devices()]
    third = LATE[:-1] + "2"
    assert sorted(listed) == sorted(["nvml-index-0" if until_ms == 10**9 else EARLY, LATE, third])
    assert sum(reading.device == third and isinstance(reading.work, Active) for reading in seen) >= 15


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("until_ms", [38_500, 10**9])
def test_a_late_unidentified_gpu_is_listed(open_sim: Open, until_ms: int, at: int) -> None:
    """Next to a known GPU that is lost: the driver has one GPU more than are known. It may be at the index that another
    one had before."""
    known, late = h100(LOAD, (Fault(10_000, until_ms, "gpu_lost"),)), h100(LOAD, (Fault(0, until_ms, "timeout"),))
    gpus = [known, h100(LOAD)]
    gpus.insert(at, replace(late, appears_ms=12_000))
    source, clock = open_sim(*gpus)
    begin_ns, seen = clock.boottime_ns(), dict[str, int]()
    for _ in range(60):
        pass_time(source, clock, SECOND)
        for reading in source.read().readings:
            seen.setdefault(reading.device, reading.begin_ns)
    named = "nvml-index-2" if at == 2 else "nvml-index-1-2"
    uids = [EARLY, LATE, LATE[:-1] + "2"]
    if until_ms == 10**9:
        uids[at] = named
    assert sorted(device.uid for device in source.devices()) == sorted(uids)
    assert seen[named] == begin_ns


@pytest.mark.parametrize("how", ["moved", "shifted"])
def test_an_unidentified_gpu_is_found_at_another_index(open_sim: Open, how: str) -> None:
    """Before its driver answers, its index belongs to a known GPU or to none: its own is another one."""
    sick, well = h100(LOAD, (Fault(0, 15_500, "timeout"),)), h100(LOAD)
    gone = h100(LOAD, (Fault(8_500, 10**9, "gone"),))
    gpus = (replace(sick, moves_ms=8_500), well) if how == "moved" else (gone, sick)
    at = gpus.index(sick if how == "shifted" else gpus[0])
    source, clock = open_sim(*gpus)
    for _ in range(60):
        pass_time(source, clock, SECOND)
        sweep = source.read()
        check_devices(source.devices())
    uid = (EARLY, LATE)[at]
    assert sorted(device.uid for device in source.devices()) == [EARLY, LATE]
    assert sweep.renamed[f"nvml-index-{at}"].uid == uid
    assert next(isinstance(one.work, Active) for one in sweep.readings if one.device == uid)
