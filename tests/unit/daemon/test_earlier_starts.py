"""Incarnations that follow earlier ones, the silence of a source, and the time from which a device of another job is
metered: through the real writer, journal and seal."""

from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.core.declarations import NOTHING_DECLARED, Base, Method, OperatorDeclarations, Phase, base_from
from flopsd.core.ledger.history import Incarnation
from flopsd.core.ledger.run_view import view_of
from flopsd.core.model import Active, Device, DeviceUid, Evidence, GapReason, Pipe, Precision, Sweep
from flopsd.core.tally import Tally
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.accounts.tracked_device import HOLD_NS
from flopsd.report.ledger_text import sealed_text, verified_text
from flopsd.settings.data_files import load_policies
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.process import in_process
from tests.support.runs import H100, Run, history_of, verified
from tests.support.story import A100, Second, Story, gap
from tests.support.story import H100 as LISTED
from tests.support.strategies import table


def reboot(run: Run, wall_seconds: int, boot: str = "boot-2", up_seconds: int = 20) -> None:
    """Kill the daemon and reboot the machine, with the wall clock moved by `wall_seconds`."""
    run.kill()
    run.clock = FakeClock(up_seconds * NS_PER_S, run.clock.wall_ns() + wall_seconds * NS_PER_S)
    run.context = replace(run.context, boot_id=boot)
    run.start()


def sealed(run: Run, tmp_path: Path) -> list[Incarnation]:
    """The run's incarnations, after its ledger was made and verified."""
    run.finish()
    verified(run.seal(tmp_path / "out" / "ledger.json"))
    return history_of(run.state.journal).incarnations


def test_a_clock_set_back_while_metering_hides_no_downtime(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(5)
    run.clock.step_wall(-90 * NS_PER_S)
    run.meter(60)
    reboot(run, wall_seconds=60)
    run.meter(30)
    _, second = sealed(run, tmp_path)
    assert second.tallies["GPU-h"].gap_ns == {GapReason.DAEMON_DOWN: 60 * NS_PER_S}
    assert second.begin["recovered"] is None


def test_a_clock_set_back_between_two_starts_of_one_boot_leaves_a_bounded_gap(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(5)
    run.kill()
    run.clock.advance(4 * NS_PER_S)
    run.clock.step_wall(-90 * NS_PER_S)
    run.start()
    run.meter(3)
    *_, second = sealed(run, tmp_path)
    assert second.tallies["GPU-h"].gap_ns == {GapReason.DAEMON_DOWN: 4 * NS_PER_S}


@pytest.mark.parametrize(
    ("began", "devices", "gaps"),
    [
        (7, (H100,), {GapReason.SOURCE_SILENT: 4}),  # after the previous start: all of the time is this start's
        (3, (H100,), {GapReason.SOURCE_SILENT: 6}),  # within the previous start, which metered the device
        (3, (A100,), {GapReason.END_UNKNOWN: 6}),  # no start metered that device
        (-1, (H100,), {GapReason.END_UNKNOWN: 6}),  # nor was this one metered before that start
    ],
)
def test_a_job_that_began_before_its_daemon_is_accounted_for_from_its_begin(
    tmp_path: Path, began: int, devices: tuple[Device, ...], gaps: dict[GapReason, int]
) -> None:
    """Like a launcher whose first daemons could not start: the folder was in use, for five seconds here."""
    clock = FakeClock()
    clock.advance(2 * NS_PER_S)
    zero_ns = clock.boottime_ns()
    run = Run(tmp_path / "state", devices=(H100,), clock=clock)
    run.meter(5)
    run.finish("job_ended")
    clock.advance(6 * NS_PER_S)
    run.devices = devices
    run.start(job_began_ns=zero_ns + began * NS_PER_S)
    run.meter(3)
    _, second = sealed(run, tmp_path)
    assert second.begin["ns"] == zero_ns + max(5, began) * NS_PER_S
    found = dict(second.tallies[devices[0].uid].gap_ns)
    assert {reason: round(ns / NS_PER_S) for reason, ns in found.items()} == gaps


def test_starts_killed_before_listing_devices_hide_no_time(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=())
    for seconds in (2, 9):
        run.clock.advance(NS_PER_S)
        run.restart(seconds)
    run.devices = (H100,)
    run.meter(3)
    run.finish()
    verified(run.seal(tmp_path / "out" / "ledger.json"))
    tally = history_of(run.state.journal).incarnations[-1].tallies["GPU-h"]
    assert (tally.total_gap_ns, tally.span_ns) == (13 * NS_PER_S, 16 * NS_PER_S)


def test_killed_starts_hide_no_time_of_a_device_that_appears_late(tmp_path: Path) -> None:
    late = replace(H100, uid="GPU-late", index=7)
    run = Run(tmp_path / "state", devices=(H100,))
    for seconds in (2, 9):
        run.meter(4)
        run.restart(seconds)
    run.devices = (H100, late)
    run.meter(3)
    tally = sealed(run, tmp_path)[-1].tallies[late.uid]
    assert tally.gap_ns == {GapReason.DAEMON_DOWN: 19 * NS_PER_S}
    assert tally.span_ns == 22 * NS_PER_S


def test_a_device_new_in_a_later_segment_lost_no_time_before_the_boot(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(60)
    reboot(run, wall_seconds=60)
    run.meter(4)
    assert run.writer.rotate()
    run.meter(4)
    run.restart(2, devices=(H100, replace(H100, uid="GPU-late", index=7)))
    run.meter(3)
    run.finish()
    tally = history_of(run.state.journal).incarnations[-1].tallies["GPU-late"]
    assert (tally.begin_ns, tally.span_ns) == (0, (20 + 4 + 4 + 2 + 3) * NS_PER_S)


@pytest.mark.parametrize("before", ["slices", "whole"])
def test_a_gpu_whose_layout_changes_during_downtime_loses_no_time(tmp_path: Path, before: str) -> None:
    """It may have worked in the new layout during the whole downtime, and since slices were last looked for."""
    slices = tuple(replace(H100, uid=f"MIG-{n}", parent=H100.uid, serial=None, sm_count=16) for n in range(2))
    layouts: tuple[tuple[Device, ...], ...] = ((H100,), slices)
    run = Run(tmp_path / "state", devices=layouts[before == "slices"])
    run.meter(30)
    run.restart(9, devices=layouts[before == "whole"])
    run.meter(3)
    _, second = sealed(run, tmp_path)
    for device in run.devices:
        assert second.tallies[device.uid].gap_ns[GapReason.DAEMON_DOWN] == HOLD_NS + 9 * NS_PER_S


@pytest.mark.parametrize("returns", [False, True])
def test_a_slice_made_during_downtime_may_have_worked_since_its_gpu_was_last_looked_at(
    tmp_path: Path, returns: bool
) -> None:
    """Also where starts were killed before they read anything, and where the slice `returns` in place of another."""
    large, small = (replace(H100, uid=f"MIG-{sms}", parent=H100.uid, serial=None, sm_count=sms) for sms in (60, 16))
    run = Run(tmp_path / "state", devices=(large if returns else small,))
    run.meter(30)
    run.devices = (small,)
    run.meter(30)
    run.meter(7, GapReason.DRIVER_TIMEOUT)
    for seconds, devices in ((9, (small,)), (600, ()), (3, (large,))):
        run.restart(seconds, devices=devices)
    run.meter(4)
    tally = sealed(run, tmp_path)[-1].tallies[large.uid]
    assert tally.gap_ns == {GapReason.DAEMON_DOWN: HOLD_NS + (7 + 9 + 600 + 3) * NS_PER_S}


def test_a_start_without_devices_has_no_bound_where_none_was_known_before(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=())
    run.meter(600)
    run.finish()
    run.clock.advance(9 * NS_PER_S)
    for _ in range(2):
        run.start()
        run.devices = (H100,)
        run.meter(3)
        _, second, *_ = sealed(run, tmp_path)
        assert second.tallies["GPU-h"].gap_ns == {GapReason.END_UNKNOWN: NS_PER_S}
        assert second.tallies["GPU-h"].span_ns == 3 * NS_PER_S
        assert view_of(history_of(run.state.journal), table()).figures.high_flop is None


@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
@pytest.mark.parametrize(("ends", "metered"), [(True, 600), (True, 0), (False, 600)])
def test_devices_of_the_previous_start_stand_for_those_the_driver_does_not_list(
    tmp_path: Path, boot: str, ends: bool, metered: int
) -> None:
    """Also where the start ends before its first checkpoint."""
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(3)
    run.finish()
    run.context, run.devices = replace(run.context, boot_id=boot), ()
    run.start()
    run.meter(metered)
    run.clock.advance((600 - metered) * NS_PER_S)
    if ends:
        *_, second = sealed(run, tmp_path)
    else:
        run.kill()
        *_, second = history_of(run.state.journal).incarnations
    tally = second.tallies["GPU-h"]
    assert set(tally.gap_ns) <= {
        GapReason.STOPPING,
        GapReason.MISSED_READING,
        GapReason.SOURCE_DOWN,
        GapReason.DEVICE_MISSING,
    }
    assert tally.total_gap_ns == tally.span_ns >= 590 * NS_PER_S
    run.devices = (H100,)
    run.start()
    run.meter(3)
    *_, third = sealed(run, tmp_path)
    assert third.tallies["GPU-h"].total_observed_ns == 3 * NS_PER_S
    assert view_of(history_of(run.state.journal), table()).figures.high_flop is not None


@pytest.mark.parametrize(("wall_seconds", "is_bounded"), [(60, True), (-60, False)])
def test_a_device_of_another_boot_joins_a_later_segment_only_when_listed_again(
    tmp_path: Path, wall_seconds: int, is_bounded: bool
) -> None:
    """Each segment is sealed on its own, and does not cover time that the previous one covers."""
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(30)
    run.devices = (replace(H100, uid="GPU-other", serial="170"),)
    reboot(run, wall_seconds)
    run.meter(12)
    assert {H100.uid, "GPU-other"} == history_of(run.state.journal).incarnations[-1].tallies.keys()
    assert not run.writer.has_open_gap, "a rotation would wait for it"
    assert run.writer.rotate()
    run.meter(12)
    assert {"GPU-other"} == history_of(run.state.journal).incarnations[-1].tallies.keys()
    verified(run.seal(tmp_path / "one" / "ledger.json"))
    run.devices = (H100, *run.devices)
    run.meter(3)
    tally = sealed(run, tmp_path)[-1].tallies[H100.uid]
    assert (tally.begin_ns, tally.span_ns) == (20 * NS_PER_S, (12 + 12 + 3) * NS_PER_S), "since this daemon start"
    assert (GapReason.END_UNKNOWN in tally.gap_ns) is not is_bounded


def test_a_killed_start_without_devices_hides_no_time_of_an_earlier_device(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(3)
    run.restart(7, ends=True, devices=())
    run.meter(4)
    run.restart(5, devices=(H100,))
    run.meter(3)
    *_, third = sealed(run, tmp_path)
    assert third.tallies["GPU-h"].gap_ns == {GapReason.DAEMON_DOWN: 9 * NS_PER_S}


def test_placeholder_devices_are_replaced_by_the_listed_ones(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(3)
    run.finish()
    run.context, run.devices = replace(run.context, boot_id="boot-2"), ()
    run.start()
    run.meter(20)
    other = replace(H100, uid="GPU-other", serial="7", pci_bus_id="00000000:20:00.0")
    run.devices = (other,)
    run.meter(100)
    *_, second = sealed(run, tmp_path)
    gaps = second.tallies["GPU-h"].gap_ns
    assert gaps[GapReason.REPLACED] >= 99 * NS_PER_S
    assert sum(gaps.values()) == second.tallies["GPU-h"].span_ns == 120 * NS_PER_S
    assert second.tallies["GPU-other"].total_observed_ns >= 99 * NS_PER_S


CHIP = Device("neuron0", 0, "aws", "trainium1", evidence=Evidence.COUNT)
LISTS: dict[str, object] = {"devices": (CHIP,), "sweep": Sweep(())}


def says(run: Run, source: str, **what: object) -> None:
    run.writer.take(Message(source, run.clock.boottime_ns(), **what))  # type: ignore[arg-type]


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize(
    ("source", "first", "then", "is_bounded"),
    [
        ("neuron", {}, {}, False),
        ("neuron", {"fault": "it hangs"}, {}, False),
        ("neuron", {"fault": "no device", "none_here": True}, {}, True),
        ("neuron", {"fault": "it hangs"}, LISTS, True),
        ("dcgm", {"fault": "it hangs"}, {}, True),  # NVML lists the devices that DCGM would list
        ("plug-in", {"fault": "it hangs"}, {}, False),
    ],
)
def test_devices_of_a_source_that_never_opens_have_no_bound(
    tmp_path: Path, source: str, first: dict[str, object], then: dict[str, object], is_bounded: bool, is_killed: bool
) -> None:
    run = Run(tmp_path / "state", devices=(H100,), sources=("nvml", source))
    run.meter(3, source="nvml")
    run.meter(20, source="nvml")
    assert len(run.writer.snapshot.devices) == 1, "it may be opening"
    if first:
        says(run, source, **first)
    run.meter(20 if first else 120, source="nvml")
    assert len(run.writer.snapshot.devices) == 2 - (source == "dcgm" or "none_here" in first)
    if is_killed:
        run.restart(1)
    if then or first.get("none_here"):
        says(run, source, **(then or first))
    run.meter(3, source="nvml")
    *_, last = sealed(run, tmp_path)
    assert last.tallies["GPU-h"].total_gap_ns == is_killed * NS_PER_S
    is_bounded &= not (then and is_killed)  # a later start adds nothing about a device that this one did not learn
    assert (view_of(history_of(run.state.journal), table()).figures.high_flop is not None) is is_bounded
    if then:
        gaps = last.tallies["neuron-unlisted"].gap_ns
        assert gaps[GapReason.REPLACED] == 3 * NS_PER_S
        assert last.tallies["neuron0"].total_gap_ns == last.tallies["neuron0"].span_ns >= 4 * NS_PER_S


def test_a_new_journal_has_no_placeholder_for_devices_the_machine_lacks(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,), sources=("nvml", "neuron"))
    says(run, "neuron", fault="no device", none_here=True)
    run.meter(12, source="nvml")
    run.state.journal.write_bytes(b"x")
    run.meter(12, source="nvml")
    (begun,) = sealed(run, tmp_path)
    assert begun.tallies.keys() == {"GPU-h"}


def test_chips_of_an_earlier_start_stand_for_those_of_a_source_that_does_not_open(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,), sources=("nvml", "neuron"))
    says(run, "neuron", **LISTS)
    run.meter(3, source="nvml")
    run.restart(ends=True)
    run.meter(30, source="nvml")
    assert run.writer.rotate()
    run.meter(5, source="nvml")
    *_, last = sealed(run, tmp_path)
    assert last.tallies["neuron0"].total_gap_ns == last.tallies["neuron0"].span_ns >= 5 * NS_PER_S
    assert view_of(history_of(run.state.journal), table()).figures.high_flop is not None


def test_unknown_downtime_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(60)
    reboot(run, wall_seconds=-40)
    run.meter(30)
    _, second = sealed(run, tmp_path)
    assert second.tallies["GPU-h"].gap_ns == {GapReason.END_UNKNOWN: 20 * NS_PER_S}  # since the boot, at least
    assert view_of(history_of(run.state.journal), table()).figures.high_flop is None
    assert second.begin["recovered"]["reasons"] == [{"code": "time_not_known", "seconds": "40.000000000"}]
    assert "the wall clock stands 40.000000000 s before the last record of another boot" in caplog.text


def test_a_wall_clock_that_stands_at_the_last_record_was_not_set_back(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(2)
    reboot(run, wall_seconds=0)
    assert history_of(run.state.journal).incarnations[-1].begin["recovered"] is None
    run.kill()


@pytest.mark.parametrize(
    ("up_seconds", "boot", "uid", "is_bounded"),
    [
        (60, "boot-2", "GPU-h", True), (61, "boot-2", "GPU-h", False), (900, "boot-2", "GPU-h", False),
        (900, "boot-1+snapshot", "GPU-h", True), (900, "boot-2", "neuron0", True),
    ],
)  # fmt: skip
def test_downtime_is_at_least_the_uptime_of_a_machine_with_the_same_device(
    tmp_path: Path, up_seconds: int, boot: str, uid: str, is_bounded: bool
) -> None:
    """By the wall clock, which was set back meanwhile, a minute passed since the last record. Another machine may
    have been up for longer, and have a device of the same index."""
    device = H100 if uid == H100.uid else replace(H100, uid=uid, serial=None)
    run = Run(tmp_path / "state", devices=(device,))
    run.meter(60)
    reboot(run, wall_seconds=60, boot=boot, up_seconds=up_seconds)
    run.meter(30)
    _, second = sealed(run, tmp_path)
    reason = GapReason.DAEMON_DOWN if is_bounded else GapReason.END_UNKNOWN
    assert second.tallies[uid].gap_ns == {reason: (60 if is_bounded else up_seconds) * NS_PER_S}
    assert (view_of(history_of(run.state.journal), table()).figures.high_flop is not None) is is_bounded


def test_downtime_is_at_least_the_uptime_when_the_same_device_is_listed_late(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(60)
    run.devices = ()
    reboot(run, wall_seconds=60, up_seconds=900)
    run.meter(30)  # until a checkpoint, the device counted as one of a machine that is gone
    run.devices = (H100,)
    run.meter(30)
    _, second = sealed(run, tmp_path)
    assert second.tallies["GPU-h"].gap_ns[GapReason.END_UNKNOWN] > 0
    assert view_of(history_of(run.state.journal), table()).figures.high_flop is None


def test_a_device_of_an_earlier_machine_is_accounted_for_where_no_record_says_that_it_left(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(12)
    assert run.writer.rotate()
    run.state.journal.unlink()  # a kill before the next segment had all that it begins with
    run.devices = (replace(H100, uid="GPU-new"),)
    reboot(run, wall_seconds=60)
    run.meter(12)
    (only,) = sealed(run, tmp_path)
    assert only.tallies["GPU-h"].gap_ns[GapReason.REPLACED] > 0
    assert only.tallies["GPU-h"].watermark_ns == only.tallies["GPU-new"].watermark_ns


def test_a_device_of_an_earlier_machine_is_not_missing_on_the_next_one(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(60)
    run.devices = (replace(H100, uid="GPU-new"),)
    reboot(run, wall_seconds=60)
    run.meter(60)
    run.restart(1)
    run.meter(60)
    assert [state.device.uid for state in run.writer.snapshot.devices] == ["GPU-new"]
    first, second, third = sealed(run, tmp_path)
    assert [incarnation.tallies["GPU-h"].span_ns for incarnation in (first, second)] == [60 * NS_PER_S] * 2
    assert "GPU-h" not in third.tallies


TOLERATED_NS = 2_500_000_000  # two and a half intervals of a second


def busy(_: Second) -> Active:
    return Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 1000})


def tallies(story: Story) -> dict[DeviceUid, Tally]:
    return {tracked.entry.device.uid: tracked.tally for tracked in story.writer._devices.tracked}


def test_a_source_is_silent_only_after_two_and_a_half_intervals(tmp_path: Path) -> None:
    story = Story(tmp_path, (LISTED,))
    story.during(3, {LISTED: busy})
    story.clock.advance(TOLERATED_NS)
    story.writer.tick()
    assert tallies(story)[LISTED.uid].gap_ns == {}
    before = story.writer.snapshot
    story.clock.advance(1)
    story.writer.tick()
    assert tallies(story)[LISTED.uid].gap_ns == {GapReason.SOURCE_SILENT: TOLERATED_NS + 1}
    assert [snapshot.sources["told"].up for snapshot in (before, story.writer.snapshot)] == [True, False]
    story.kill()


def test_the_declared_patience_of_a_source_delays_its_silence(tmp_path: Path) -> None:
    story = Story(tmp_path, (LISTED,))
    story.during(2, {LISTED: busy})
    story.writer.take(Message("told", story.clock.boottime_ns(), (LISTED,), Sweep((), patience_ns=5 * NS_PER_S)))
    story.clock.advance(TOLERATED_NS + 5 * NS_PER_S)
    story.writer.tick()
    assert tallies(story)[LISTED.uid].gap_ns == {}
    story.clock.advance(1)
    story.writer.tick()
    assert set(tallies(story)[LISTED.uid].gap_ns) == {GapReason.SOURCE_SILENT}
    story.kill()


def test_readings_that_became_gaps_are_source_errors_except_at_its_start(tmp_path: Path) -> None:
    story = Story(tmp_path, (LISTED,))
    for times, reason in ((2, GapReason.STARTING), (3, GapReason.DRIVER_TIMEOUT), (1, GapReason.DEVICE_LOST)):
        story.during(times, {LISTED: gap(reason)})
    story.during(1, {LISTED: busy})
    assert story.writer.snapshot.sources["told"].errors == {"driver_timeout": 3, "device_lost": 1}
    story.kill()


def test_a_device_taken_over_from_another_job_is_metered_from_then_on(tmp_path: Path) -> None:
    story = Story(tmp_path, (LISTED,))
    for _ in range(4):
        story.clock.advance(NS_PER_S)
        now_ns = story.clock.boottime_ns()
        story.writer.take(Message("told", now_ns, (LISTED,), Sweep((), not_ours=frozenset({A100.uid}))))
    story.since_ns = story.clock.boottime_ns()
    story.devices = (LISTED, A100)
    story.during(3, {LISTED: busy, A100: busy})
    tally = tallies(story)[A100.uid]
    assert tally.observed_ns == {Evidence.ACTIVITY: 3 * NS_PER_S}
    assert tally.span_ns == 3 * NS_PER_S
    story.kill()


def test_a_device_belongs_to_another_job_no_longer_than_known(tmp_path: Path) -> None:
    """Work between the last reading for the other job and the first for this one may belong to this job."""
    story = Story(tmp_path, (LISTED,))

    def away(seconds: int, known_s: int) -> None:
        since_ns = story.clock.boottime_ns()
        for second in range(1, seconds + 1):
            story.clock.advance(NS_PER_S)
            at_ns = since_ns + min(second, known_s) * NS_PER_S
            sweep = Sweep((), not_ours=frozenset({A100.uid}), not_ours_at_ns=at_ns)
            story.writer.take(Message("told", story.clock.boottime_ns(), (LISTED,), sweep))
        story.since_ns = story.clock.boottime_ns()

    away(9, known_s=4)
    story.devices = (LISTED, A100)
    story.during(3, {LISTED: busy, A100: busy})
    tally = tallies(story)[A100.uid]
    assert tally.gap_ns == {GapReason.STARTING: 5 * NS_PER_S}
    assert tally.total_observed_ns == 3 * NS_PER_S
    away(20, known_s=12)
    story.during(1, {LISTED: busy, A100: busy})
    gaps = {
        GapReason.STARTING: 5 * NS_PER_S,
        GapReason.OTHER_JOB: 11 * NS_PER_S,
        # One second before the device was first found to be another job's, and eight after it was last found so.
        GapReason.MISSED_READING: 9 * NS_PER_S,
    }
    assert tallies(story)[A100.uid].gap_ns == gaps
    away(10, known_s=7)
    story.finish()
    gaps |= {GapReason.OTHER_JOB: 17 * NS_PER_S, GapReason.MISSED_READING: 10 * NS_PER_S}
    gaps[GapReason.STOPPING] = 3 * NS_PER_S
    assert tallies(story)[A100.uid].gap_ns == gaps


def test_a_slow_disk_at_the_end_leaves_no_time_out(tmp_path: Path) -> None:
    """The end record states the time up to which each device is accounted for, not the time of writing."""
    run = Run(tmp_path / "state")
    run.meter(3)
    run.writer._emit = lambda _: run.clock.advance(600 * NS_PER_S)
    run.finish()
    assert verified(run.seal(tmp_path / "ledger.json")).statement["predicate"]["coverage"]["gaps"] == []


def test_a_source_fault_is_a_gap_of_its_own_devices_only(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,), sources=("sim", "other"))
    other = replace(H100, uid="GPU-other", index=1)
    run.writer.take(Message("other", run.clock.boottime_ns(), (other,), Sweep(())))
    run.clock.advance(NS_PER_S // 2)
    run.writer.take(Message("other", run.clock.boottime_ns(), fault="it hangs", reason=GapReason.DRIVER_TIMEOUT))
    run.meter(2)
    first, second = (state.tally for state in run.writer.snapshot.devices)
    assert (first.gap_ns, first.total_observed_ns) == ({}, 2 * NS_PER_S + NS_PER_S // 2)
    assert second.gap_ns == {GapReason.DRIVER_TIMEOUT: NS_PER_S // 2}
    run.kill()


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_changed_declaration_after_a_kill_does_not_apply_to_the_downtime(tmp_path: Path, is_ended: bool) -> None:
    fp8, bf16 = (Precision(((name, 1_000_000),), "config") for name in ("fp8", "bf16"))
    training, evaluation = (replace(NOTHING_DECLARED, phase=phase) for phase in (Phase.TRAIN, Phase.EVALUATE))
    run = Run(tmp_path / "state", devices=(H100,), precision=fp8, declared=training)
    run.meter(3)
    run.finish() if is_ended else run.kill()
    run.clock.advance(10 * NS_PER_S)
    run.precision, run.declared = bf16, evaluation
    run.start()
    run.meter(1)
    run.finish()
    found = verified(run.seal(tmp_path / "ledger.json"))
    stopped = "no daemon ran for 10 s between its starts: what the devices did"
    assert (f"STOPPED: {stopped}" in " ".join(verified_text(found).split())) is is_ended
    report = in_process("report", str(tmp_path / "ledger.json"), "--format", "html").stdout
    assert (stopped.replace("10 s", "10 s by the wall clock") in report) is is_ended
    totals = found.statement["predicate"]["totals"]
    in_training, in_between = (132 * 1980 * 8192 * seconds * 10**6 for seconds in (3, 10))
    at_most = int(totals["guidelines"]["high"])
    assert at_most < in_training if is_ended else at_most >= in_between
    assert is_ended or int(totals["executed"]["high"]) >= in_between


@pytest.mark.parametrize(
    ("step_s", "is_rebooted", "length", "by_wall_clock"),
    [
        (-90, False, "10 s", "a time that is not known"), (3 * 86_400, False, "10 s", "3 days by the wall clock"),
        (-90, True, "a time that is not known", "a time that is not known"),
        (0, True, "10 s by the wall clock", "10 s by the wall clock"),
    ],
)  # fmt: skip
def test_a_stop_is_as_long_as_the_clock_since_boot_says(
    tmp_path: Path, step_s: int, is_rebooted: bool, length: str, by_wall_clock: str
) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(3)
    run.finish()
    run.clock.step_wall(step_s * NS_PER_S)
    run.clock.advance(10 * NS_PER_S)
    if is_rebooted:
        run.context = replace(run.context, boot_id="boot-2")
    run.start()
    run.meter(1)
    run.finish()
    sealed = run.seal(ledger := tmp_path / "ledger.json")
    report = in_process("report", str(ledger), "--key", str(sealed.public_key), code=0).stdout
    for text in (verified_text(verified(sealed)), report):
        assert f"STOPPED: no daemon ran for {length} between its starts" in " ".join(text.split())
    for text in (sealed_text(sealed), in_process("report", str(ledger)).stdout):
        assert f"no daemon ran for {by_wall_clock} between its starts" in " ".join(text.split())


def test_a_stop_of_unknown_length_is_not_known_in_later_segments_either(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(3)
    run.restart(200, ends=True)
    run.meter(1)
    run.finish()
    run.clock = FakeClock(20 * NS_PER_S, run.clock.wall_ns() - 90 * NS_PER_S)
    run.context = replace(run.context, boot_id="boot-2")
    run.start()
    assert run.writer.rotate()
    run.restart()
    assert min(run.writer.snapshot.stops_ns) < 0
    run.kill()


def test_since_when_the_run_has_had_no_stop_is_that_of_its_operator_counts(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    began_ns = run.clock.boottime_ns()

    def since_ns() -> tuple[int, ...]:
        return tuple(-1 if one == 0 else (one - began_ns) // NS_PER_S for one in run.writer.sessions_since_ns)

    assert since_ns() == (0, 0)
    run.meter(3)
    run.restart(2)
    assert since_ns() == (0, 0), "the time after a kill is a gap"
    run.restart(2, ends=True)
    assert since_ns() == (7, 7), "the time after an end is in no figure"
    run.restart(2)
    assert since_ns() == (7, 7)
    assert run.writer.rotate()
    run.restart(2)
    assert since_ns() == (9, -1), "of the earlier segment it is not known"
    run.finish()
    run.context = replace(run.context, boot_id="boot-2")
    run.start()
    assert since_ns() == (11, 11)
    run.finish()


def test_the_starts_and_segments_of_a_run_have_one_key(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    keys = {run.writer.run_key}
    for is_rotated in (False, True, False, True, False):
        run.meter(1)
        assert not is_rotated or run.writer.rotate()
        run.restart(2)
        keys.add(run.writer.run_key)
    run.finish()
    assert len(keys) == 1
    other = Run(tmp_path / "other", devices=(H100,), clock=run.clock)
    assert other.writer.run_key not in keys, "of the same id, but not continued"
    other.finish()


M, N = (Base(name, "known", 10**26, None, False) for name in "mn")


@pytest.mark.parametrize(
    ("starts", "method", "base"),
    [
        ([(Method.PRETRAINING, None), (Method.LORA, M)], None, M),
        ([(Method.LORA, M), (Method.LORA, N)], Method.LORA, None),
        ([(None, None), (Method.LORA, M)], Method.LORA, M),
        ([(Method.LORA, M), (None, None)], None, M),
        ([(None, M), (Method.PRETRAINING, None)], Method.PRETRAINING, M),
        ([(None, M), (Method.PRETRAINING, N)], None, None),
    ],
)
@pytest.mark.parametrize("is_rotated", [False, True])
def test_starts_that_declare_different_models_leave_the_verdict_open(
    tmp_path: Path, starts: list[tuple[Method | None, Base | None]], method: Method | None, base: Base | None,
    is_rotated: bool,
) -> None:  # fmt: skip
    policies = tuple(load_policies())
    run = Run(tmp_path / "state", devices=(H100,), policies=policies)
    for one in starts:
        run.finish()
        run.declared = OperatorDeclarations(method=one[0], base=one[1])
        run.start()
        run.meter(2)
        if is_rotated:
            assert run.writer.rotate()
    live = run.writer.snapshot.view.declarations.settings
    run.finish()
    assert (live.method, live.base) == (method, base)
    whole = view_of(history_of(run.state.journal), table(), whole_run=True).declarations.settings
    assert (whole.method, whole.base) == (method, base)
    if not is_rotated:
        sealed = verified(run.seal(tmp_path / "ledger.json")).statement["predicate"]
        assert base_from(sealed["declared"]["base"]) == base
        assert sealed["declared"]["method"] == (method and method.value)
        pretrained = next(one for one in sealed["findings"] if one["rule"] == "gpai-indicative")
        assert pretrained["applies"] is (False if method is Method.LORA else None)


def test_a_device_that_returns_after_a_rotation_and_a_kill_is_not_counted_twice(tmp_path: Path) -> None:
    """It was not listed since the reboot: its account ended in the first segment, at a time that the second lacks."""
    idle = {LISTED: lambda _: None}
    story = Story(tmp_path, (LISTED, A100))
    story.during(1, idle)
    story.kill(100)
    story.reboot(replace(story.context, boot_id="later"))
    story.devices = (LISTED,)
    story.start()
    story.during(6, idle)
    assert story.writer.rotate()
    rotated_ns = story.clock.boottime_ns()
    story.during(2, idle)
    story.kill(3)
    story.devices = (LISTED, A100)
    story.start()
    story.finish()
    returned = history_of(story.state.journal).incarnations[-1].tallies[A100.uid]
    assert returned.begin_ns == rotated_ns
    assert GapReason.END_UNKNOWN in returned.gap_ns, "it may have worked since its account ended"
