"""When a rotation is due."""

from pathlib import Path

import pytest

from flopsd.core.ledger.history import History
from flopsd.core.model import Gap, GapReason, Growth
from flopsd.core.session_protocol import FactsDeclared, SessionOpened
from flopsd.daemon.ledgers.rolling_seal import RollingSeals
from flopsd.daemon.ledgers.rotation import PATIENCE_SECONDS, Rotation
from flopsd.daemon.recovery.local_journal import RecoveredRun
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.journal.head import Head
from flopsd.journal.journal import Journal
from flopsd.journal.segments import closed_segments
from flopsd.journal.state_dir import StateDir
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.runs import CONTEXT, H100, Run, verified
from tests.support.story import CYCLES_H100, Story
from tests.support.strategies import table

DAY = 86_400


@pytest.mark.parametrize("wrong_by_days", [400, -400, 0])
def test_rotation_by_age_ignores_wrong_wall_clocks_at_boot(
    tmp_path: Path, wrong_by_days: int, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.clock.step_wall(wrong_by_days * DAY * NS_PER_S)
    run.meter(2)
    assert run.writer.rotate()
    rotation = Rotation("1d", run.writer, None, run.clock)
    rotation.each_tick()
    run.clock.step_wall(-wrong_by_days * DAY * NS_PER_S)  # NTP sets it
    rotation.each_tick()
    assert len(closed_segments(run.state)) == 1
    run.clock.advance(DAY * NS_PER_S - 1)
    rotation.each_tick()
    assert len(closed_segments(run.state)) == 1
    run.clock.advance(1)
    rotation.each_tick()
    assert len(closed_segments(run.state)) == 2
    assert caplog.text.count("the wall clock stepped by") == (2 if wrong_by_days else 0)  # once for each step


def test_rotation_waits_briefly_for_a_gap_that_counters_may_fill(tmp_path: Path) -> None:
    story = Story(tmp_path, (CYCLES_H100,))
    story.during(3, {CYCLES_H100: lambda _: Growth()})
    story.during(2, {CYCLES_H100: lambda _: Gap(GapReason.DRIVER_TIMEOUT)})
    rotation = Rotation("1h", story.writer, None, story.clock)
    story.clock.advance(3600 * NS_PER_S)
    rotation.each_tick()
    story.clock.advance(PATIENCE_SECONDS * NS_PER_S - 1)
    rotation.each_tick()
    assert closed_segments(story.state) == []
    story.clock.advance(1)
    rotation.each_tick()
    assert len(closed_segments(story.state)) == 1
    story.finish()


def test_a_closed_segment_is_sealed_next(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(2)
    seals = RollingSeals(["seal"], None, 1.0, run.clock, overdue=False, head=str)
    rotation = Rotation("1h", run.writer, seals, run.clock)
    due = []
    for seconds in (3590, 10):
        run.clock.advance(seconds * NS_PER_S)
        rotation.each_tick()
        due.append(seals.is_due)
    assert (due, len(closed_segments(run.state))) == ([False, True], 1)


def test_a_continued_segment_is_as_old_as_its_journal_says(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(12)
    assert run.writer.rotate()
    shown = run.writer.snapshot
    journals = (*closed_segments(run.state), run.state.journal)
    assert shown.journal_records == sum(path.read_bytes().count(b"\n") for path in journals)
    assert shown.view.figures.measured_flop
    run.clock.advance(DAY * NS_PER_S)
    Rotation("1d", run.writer, None, run.clock).each_tick()
    assert len(closed_segments(run.state)) == 2


def test_the_keeper_of_the_journals_head_gets_each_record_after_a_rotation_too(tmp_path: Path) -> None:
    """A launcher keeps the head, and lets no later daemon start continue with records that it was not given."""
    clock, state, told = FakeClock(), StateDir(tmp_path), list[Head]()
    state.acquire()
    journal = Journal(state)
    journal.recover("aside")
    wanted = WriterSettings(NS_PER_S, 10 * NS_PER_S, "0" * 64, None, ("sim",), is_rotated=True)
    writer = Writer(journal, table(), wanted, CONTEXT, clock, lambda _: None, lambda: told.append(journal.head))
    writer.begin("run-1", RecoveredRun(History()))
    for _ in range(3):
        clock.advance(NS_PER_S)
        assert writer.checkpoint()
        assert told[-1] == journal.head
        assert writer.rotate()
        assert told[-1] == journal.head
    assert writer.close("end")
    assert told[-1] == journal.head
    assert journal.put_back == 0, "what it wrote itself is no other's"
    assert [path.name for path in tmp_path.glob("*.journal.jsonl")] == []
    journal.close()


def test_a_journal_with_more_accounts_than_the_next_can_repeat_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path / "state")
    run.meter(3)
    with monkeypatch.context() as few:
        few.setattr("flopsd.journal.framing.MAX_LINE_BYTES", 900)  # less than all accounts of two devices
        assert not run.writer.rotate()
    assert "the journal cannot be rotated and is continued instead: a record of kind" in caplog.text
    run.meter(2)
    assert closed_segments(run.state) == []
    assert verified(run.seal(tmp_path / "ledger.json")).statement["predicate"]["segment"] is None


def test_closed_segments_are_ordered_by_number(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.segments.mkdir()
    for number in (10_000, 9_999, 1):
        (state.segments / f"{number:04d}-{'0' * 16}.journal.jsonl").touch()
    assert [int(path.name.partition("-")[0]) for path in closed_segments(state)] == [1, 9_999, 10_000]


def test_rotation_by_size_does_not_repeat_at_once_when_process_records_fill_a_segment(tmp_path: Path) -> None:
    """A job that declared more than fits a segment could cause a rotation each second, each with a ledger."""
    run = Run(tmp_path / "state", devices=(H100,))
    run.writer.take_event(SessionOpened("a" * 32, 1, 0, "0.1.0"))
    run.writer.take_event(FactsDeclared("a" * 32, {"model_config": {"text": "x" * 15_000}}))
    rotation = Rotation("10kB", run.writer, None, run.clock)
    for _ in range(20):
        run.meter(1)
        rotation.each_tick()
    assert len(closed_segments(run.state)) == 1
    run.writer.take_event(FactsDeclared("a" * 32, {"model_config": {"text": "y" * 20_000}}))
    run.meter(1)
    rotation.each_tick()
    assert len(closed_segments(run.state)) == 2
