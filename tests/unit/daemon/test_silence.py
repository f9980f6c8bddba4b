"""When a source that sends nothing counts as silent, and from when a device that was another job's is metered."""

from __future__ import annotations

from pathlib import Path

from flopsd.core.model import Active, DeviceUid, Evidence, GapReason, Pipe, Sweep, Tally
from flopsd.daemon.source_tracker import Message
from flopsd.system.clock import NS_PER_S
from tests.support.story import A100, H100, Second, Story

TOLERATED_NS = 2_500_000_000  # two and a half intervals of a second


def busy(_: Second) -> Active:
    return Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 1000})


def tallies(story: Story) -> dict[DeviceUid, Tally]:
    return {tracked.entry.device.uid: tracked.tally for tracked in story.writer._devices.tracked}


def test_two_and_a_half_intervals_are_no_silence_and_a_moment_more_is(tmp_path: Path) -> None:
    story = Story(tmp_path, (H100,))
    story.during(3, {H100: busy})
    story.clock.advance(TOLERATED_NS)
    story.writer.tick()
    assert tallies(story)[H100.uid].gap_ns == {}
    before = story.writer.snapshot
    story.clock.advance(1)
    story.writer.tick()
    assert tallies(story)[H100.uid].gap_ns == {GapReason.SOURCE_SILENT: TOLERATED_NS + 1}
    assert [snapshot.sources["told"].up for snapshot in (before, story.writer.snapshot)] == [True, False]
    story.kill()


def test_a_source_that_reports_late_is_given_that_time_too(tmp_path: Path) -> None:
    story = Story(tmp_path, (H100,))
    story.during(2, {H100: busy})
    story.writer.take(Message("told", story.clock.boottime_ns(), (H100,), Sweep((), patience_ns=5 * NS_PER_S)))
    story.clock.advance(TOLERATED_NS + 5 * NS_PER_S)
    story.writer.tick()
    assert tallies(story)[H100.uid].gap_ns == {}
    story.clock.advance(1)
    story.writer.tick()
    assert set(tallies(story)[H100.uid].gap_ns) == {GapReason.SOURCE_SILENT}
    story.kill()


def test_a_device_that_was_another_jobs_is_metered_from_when_it_is_this_ones(tmp_path: Path) -> None:
    story = Story(tmp_path, (H100,))
    for _ in range(4):
        story.clock.advance(NS_PER_S)
        now_ns = story.clock.boottime_ns()
        story.writer.take(Message("told", now_ns, (H100,), Sweep((), not_ours=frozenset({A100.uid}))))
    story.since_ns = story.clock.boottime_ns()
    story.devices = (H100, A100)
    story.during(3, {H100: busy, A100: busy})
    tally = tallies(story)[A100.uid]
    assert tally.observed_ns == {Evidence.ACTIVITY: 2 * NS_PER_S}, "the first reading ends when it became this job's"
    assert tally.span_ns == 2 * NS_PER_S
    story.kill()
