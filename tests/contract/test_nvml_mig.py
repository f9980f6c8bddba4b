"""MIG: each slice with its own SMs, the parent never counted as well, a missing permission named."""

from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.core.model import Evidence, Gap, GapReason, Pipe
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.snapshot import DeviceState
from tests.campaign.cases import Case
from tests.campaign.simulation import judge
from tests.contract.conftest import Open
from tests.support.runs import Run
from tests.support.scenario import Fault, Gpu, Segment, Slice, h100
from tests.support.sim import Fold, pass_time

PARENT = "GPU-5a4d0000-0000-4000-8000-000000000000"
BUSY, HALF = (Segment(1000, mhz=1755, hmma=0.9, watts=500),), (Segment(1000, mhz=1755, hmma=0.3, watts=500),)


def mig(*slices: Slice, counters: str = "none") -> Gpu:
    return h100((Segment(1000, mhz=1755, hmma=0.5, util=100),), mig=True, slices=slices, counters=counters)


@pytest.mark.parametrize("counters", ["none", "average", "sum"])
def test_slices_are_devices_with_their_own_sm_counts(open_sim: Open, counters: str) -> None:
    source, clock = open_sim(mig(Slice(1, 60, BUSY), Slice(2, 32, HALF), counters=counters), h100(BUSY))
    devices = source.devices()
    assert [(d.uid[:4], d.parent, d.sm_count) for d in devices] == [
        ("MIG-", PARENT, 60), ("MIG-", PARENT, 32), ("GPU-", None, 132),
    ]  # fmt: skip
    fold = Fold(source, clock).read(10).read(1000, 25)
    for device, ratio in zip(source.devices(), (0.9, 0.3, 0.9), strict=True):
        counted = sum(
            n for (_, pipe), n in fold.tallies[device.uid].active_sm_cycles.items() if pipe is Pipe.TENSOR_HMMA
        )
        assert device.sm_count is not None
        assert counted == pytest.approx(ratio * 25e9 * 1.755 * device.sm_count, rel=1e-6)
        assert device.evidence is (
            Evidence.ACTIVITY if counters == "none" or device.parent is None else Evidence.CYCLES
        )
    assert PARENT not in fold.tallies
    assert all(
        "energy_mj" not in fold.tallies[d.uid].counters for d in devices if d.parent
    )  # the energy is that of the whole GPU


def test_a_slices_gap_is_bounded_by_its_own_sms(open_sim: Open) -> None:
    source, clock = open_sim(mig(Slice(1, 16, BUSY, faults=(Fault(2500, 9500, "timeout"),)), Slice(2, 16, BUSY)))
    fold = Fold(source, clock).read(10).read(1000, 8)
    hit, other = (device.uid for device in source.devices())
    high, others_high = fold.figures(hit).high_flop, fold.figures(other).high_flop
    assert high is not None
    assert others_high is not None
    assert others_high < high < 9 * 16 * 1.98e9 * (8192 + 128 + 256 + 512) * 1.06
    assert fold.reasons(other) == [GapReason.STARTING, *[None] * 8]


@pytest.mark.parametrize(
    ("slices", "parent", "reason"),
    [((Slice(1, 30, BUSY, of="2/4"),), PARENT, "do not cover the GPU instance"), ((), None, "no instance is visible")],
)
def test_an_uncovered_or_invisible_instance_is_a_gap_with_its_reason(
    open_sim: Open, slices: tuple[Slice, ...], parent: str | None, reason: str
) -> None:
    source, clock = open_sim(mig(*slices))
    (device,) = source.devices()
    assert (device.evidence, device.parent) == (Evidence.GAP, parent)
    assert reason in device.evidence_reason
    clock.advance(10**9)
    assert source.read().readings[0].work == Gap(GapReason.NOT_SUPPORTED)


def test_a_missing_permission_is_named_with_the_remedy(open_sim: Open) -> None:
    source, clock = open_sim(mig(Slice(1, 60, BUSY, faults=(Fault(0, 5000, "no_permission"),))))
    # Without permission from the beginning, not even the slice's id can be read: the GPU is an unknown device.
    assert source.devices()[0].evidence is Evidence.GAP
    assert "/dev/nvidia" in source.devices()[0].evidence_fix
    source.close()
    source, clock = open_sim(mig(Slice(1, 60, BUSY, faults=(Fault(2500, 5500, "no_permission"),))))
    fold = Fold(source, clock).read(10).read(1000, 4)
    device = source.devices()[0]
    assert fold.reasons(device.uid)[-1] is GapReason.NO_PERMISSION
    assert "NVIDIA_MIG_MONITOR_DEVICES" in device.evidence_fix
    fold.read(1000, 4)
    assert source.devices()[0].evidence is Evidence.ACTIVITY


FOREVER = 10**9


def metered(open_sim: Open, folder: Path, gpu: Gpu, seconds: int) -> tuple[Run, dict[str, DeviceState]]:
    """The GPU through source and writer, read each second; the metered states, by UUID without the common part."""
    source, clock = open_sim(gpu)
    run = Run(folder / "state", devices=(), clock=clock)
    for _ in range(seconds):
        pass_time(source, clock, NS_PER_S)
        sweep = source.read()
        run.writer.take(Message("sim", clock.boottime_ns(), tuple(source.devices()), sweep))
    shown = {state.device.uid.replace("5a4d0000-0000-4000-8000-", ""): state for state in run.writer.snapshot.devices}
    run.finish()
    run.seal(folder / "out" / "ledger.json")
    return run, shown


def unknown_seconds(run: Run) -> float:
    return sum(state.unknown_ns for state in run.writer.snapshot.devices) / NS_PER_S


def test_switching_mig_off_leaves_the_whole_gpu_metered(open_sim: Open, tmp_path: Path) -> None:
    gpu = replace(mig(Slice(1, 16, BUSY)), faults=(Fault(50_000, FOREVER, "mig_flip"),))
    run, shown = metered(open_sim, tmp_path, gpu, 150)
    truth = float(gpu.sm_cycles(Pipe.TENSOR_HMMA, 52 * NS_PER_S, 150 * NS_PER_S, 132)) * 4096
    whole, part = shown["GPU-000000000000"], shown["MIG-000000001000"]
    figures = run.writer.snapshot.view.figures
    assert figures.high_flop is not None
    assert (figures.measured_flop or 0) > truth
    assert part.tally.gap_ns[GapReason.REPLACED] >= 80 * NS_PER_S
    both_ns = part.tally.job_ns + whole.tally.job_ns
    assert 150 * NS_PER_S <= both_ns <= 160 * NS_PER_S  # the GPU has more SMs than the slice: from the last lookup
    assert unknown_seconds(run) < 14


def test_switching_mig_on_leaves_the_slices_metered(open_sim: Open, tmp_path: Path) -> None:
    parts = (Slice(1, 60, BUSY), Slice(2, 60, BUSY))
    gpu = replace(mig(*parts), mig=False, faults=(Fault(50_000, FOREVER, "mig_flip"),))
    run, shown = metered(open_sim, tmp_path, gpu, 100)
    whole = shown.pop("GPU-000000000000").tally
    assert whole.gap_ns[GapReason.METERED_AS_MIG] >= 30 * NS_PER_S
    assert len(shown) == 2
    for state in shown.values():
        assert whole.job_ns + state.tally.job_ns == 100 * NS_PER_S
        assert state.tally.total_observed_ns >= 39 * NS_PER_S
    assert unknown_seconds(run) < 5


def test_new_slices_of_a_gpu_begin_when_slices_were_last_looked_up(open_sim: Open, tmp_path: Path) -> None:
    old = tuple(Slice(n, 16, BUSY, faults=(Fault(50_000, FOREVER, "gone"),)) for n in range(1, 8))
    new = Slice(8, 132, BUSY, faults=(Fault(0, 50_000, "gone"),))
    run, shown = metered(open_sim, tmp_path, mig(*old, new), 100)
    last = shown.pop("MIG-000000008000").tally
    assert {state.tally.job_ns + last.job_ns for state in shown.values()} == {109 * NS_PER_S}
    assert (
        run.writer.snapshot.view.coverage_ppm or 0
    ) > 980_000 - 100_000  # ten seconds until slices are looked up again
    most = 109 * 132 * 1.98e9 * (8192 + 128 + 256 + 512)
    assert (run.writer.snapshot.view.figures.high_flop or 0) < most


def test_a_slice_created_next_to_others_is_a_gap_until_it_is_seen(open_sim: Open, tmp_path: Path) -> None:
    later = Slice(2, 60, BUSY, faults=(Fault(0, 13_500, "gone"),))
    _, shown = metered(open_sim, tmp_path, mig(Slice(1, 60, BUSY), later), 30)
    tally = shown["MIG-000000002000"].tally
    assert shown["MIG-000000001000"].tally.span_ns == 30 * NS_PER_S
    assert tally.span_ns == 20 * NS_PER_S  # from the last lookup that did not show it
    assert tally.gap_ns == {GapReason.STARTING: 10 * NS_PER_S}


FULL = (Segment(1000, mhz=1980, hmma=1.0),)


def _slice(number: int, sms: int, *absent_ms: tuple[int, int]) -> Slice:
    return Slice(number, sms, FULL, faults=tuple(Fault(a, b, "gone") for a, b in absent_ms))


@pytest.mark.parametrize(
    ("slices", "switched_ms"),
    [
        ((_slice(1, 16, (12_500, FOREVER)), _slice(2, 132, (0, 12_500))), None),
        ((_slice(1, 16), _slice(2, 60, (7000, 12_000))), None),
        ((_slice(1, 16), _slice(2, 60, (0, 12_500)), _slice(3, 16, (18_000, FOREVER))), None),
        ((_slice(1, 16),), 12_500),
    ],
    ids=["a larger one", "one comes back", "one comes and another goes", "the whole GPU"],
)
@pytest.mark.parametrize("seconds", [19, 39])
def test_work_before_a_new_layout_is_seen_is_bounded(
    standin: Path, tmp_path: Path, slices: tuple[Slice, ...], switched_ms: int | None, seconds: int
) -> None:
    faults = () if switched_ms is None else (Fault(switched_ms, FOREVER, "mig_flip"),)
    found = judge(Case("layout", (h100(FULL, faults, mig=True, slices=slices),), seconds), standin, tmp_path)
    assert found
    assert [one for one in found if not one.holds] == []


def test_an_unreadable_mig_mode_changes_nothing(open_sim: Open, tmp_path: Path) -> None:
    gpu = replace(mig(Slice(1, 60, BUSY)), faults=(Fault(8_500, 12_500, "unknown"),))
    _, shown = metered(open_sim, tmp_path, gpu, 30)
    assert list(shown) == ["MIG-000000001000"]
    assert shown["MIG-000000001000"].tally.total_observed_ns >= 23 * NS_PER_S


@pytest.mark.parametrize(
    ("before", "after", "boot", "is_bounded"),
    [
        (60, 16, None, True),
        (16, 60, None, False),  # it is journalled with 16
        (60, 16, "boot-1", True),  # a killed daemon's device continues unchanged
        (16, 60, "boot-1", False),
        (
            60,
            16,
            "boot-1+2",
            False,
        ),  # after another boot the device is the present one, also for the time between the boots
        (16, 60, "boot-1+2", True),
    ],
)
def test_a_recreated_slice_with_the_same_uuid_and_another_size_is_another_device(
    open_sim: Open, tmp_path: Path, before: int, after: int, boot: str | None, is_bounded: bool
) -> None:
    """A UUID is made of the ids of GPU and instances: 4g.40gb and 3g.40gb can have the same. The second slice works.
    With `boot`, a daemon is killed before the second exists, and another one started on that boot."""
    changed_ms = 13_300
    work = (Segment(changed_ms, mhz=1755), Segment(40_000 - changed_ms, mhz=1755, hmma=0.9))
    old = Slice(1, before, work, faults=(Fault(changed_ms, FOREVER, "gone"),))
    new = Slice(1, after, work, faults=(Fault(0, changed_ms, "gone"),))
    source, clock = open_sim(mig(old, new))
    run = Run(tmp_path / "state", devices=(), clock=clock)
    for second in range(39):
        if boot is not None and second == 12:
            run.kill()
            run.context = replace(run.context, boot_id=boot)
            clock.advance(2 * NS_PER_S)
            run.start()
            source.close()
            source, _ = open_sim(again=clock)
        pass_time(source, clock, NS_PER_S)
        sweep = source.read()
        run.writer.take(Message("sim", clock.boottime_ns(), tuple(source.devices()), sweep))
    (device,) = source.devices()
    assert device.sm_count == after
    figures = run.writer.snapshot.view.figures
    true = replace(mig(), segments=work).sm_cycles(Pipe.TENSOR_HMMA, 0, clock.boottime_ns() - 1000 * NS_PER_S, after)
    assert figures.low_flop <= true * 2048  # the slowest format
    assert (figures.high_flop is not None) is is_bounded
    if figures.high_flop is not None:
        assert figures.high_flop >= true * 4096
    run.finish()
    run.seal(tmp_path / "out" / "ledger.json")
