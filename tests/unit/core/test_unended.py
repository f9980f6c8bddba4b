"""A ledger of a run without an end record: work after the last record is in "at most", or nothing bounds it."""

from pathlib import Path

import pytest

from flopsd.core.ledger.unended import as_of
from flopsd.system.clock import NS_PER_S, rfc3339
from tests.support.runs import Run, history_of, verified

CHECKPOINT_NS = 10 * NS_PER_S  # of these runs


def killed(folder: Path, after_ns: int) -> Run:
    """A killed run whose journal is sealed `after_ns` later."""
    run = Run(folder / "state")
    run.meter(15)
    assert run.writer.checkpoint()
    run.kill()
    run.clock.advance(after_ns)
    return run


@pytest.mark.parametrize("after_ns", [0, NS_PER_S, 2 * CHECKPOINT_NS])
def test_a_short_unended_time_is_a_gap_with_a_ceiling(tmp_path: Path, after_ns: int) -> None:
    run = killed(tmp_path, after_ns)
    before = run.writer.snapshot.view.figures
    predicate = verified(run.seal(tmp_path / "ledger.json")).statement["predicate"]
    executed, coverage = predicate["totals"]["executed"], predicate["coverage"]
    assert before.high_flop is not None
    assert int(executed["high"]) > before.high_flop
    assert executed["measured"] == str(before.measured_flop)
    seconds = max(after_ns, 1000) * 2 / NS_PER_S  # of two devices
    assert float(coverage["gapSecondsByReason"]["not_journalled"]) == pytest.approx(seconds)
    assert [gap["reason"] for gap in coverage["gaps"][-2:]] == ["not_journalled"] * 2
    assert all(gap["ceiling"] is not None for gap in coverage["gaps"][-2:])


@pytest.mark.parametrize("after_ns", [2 * CHECKPOINT_NS + 1000, 3600 * NS_PER_S])
def test_nothing_bounds_work_long_after_the_last_record(tmp_path: Path, after_ns: int) -> None:
    """Like a daemon that a flood kept from writing its journal, sealed at the end of the job."""
    predicate = verified(killed(tmp_path, after_ns).seal(tmp_path / "ledger.json")).statement["predicate"]
    executed = predicate["totals"]["executed"]
    assert (executed["high"], predicate["totals"]["integerOperations"]["high"]) == (None, None)
    assert executed["measured"] is not None
    assert [device["executed"]["high"] for device in predicate["devices"]] == [None, None]
    assert {finding["state"] for finding in predicate["findings"] if finding["applies"]} <= {"above", "indeterminate"}
    assert "end_unknown" in predicate["coverage"]["gapSecondsByReason"]


def test_a_seal_dated_before_the_last_record_leaves_no_upper_bound(tmp_path: Path) -> None:
    run = killed(tmp_path, 0)
    run.clock.step_wall(-NS_PER_S)
    predicate = verified(run.seal(tmp_path / "ledger.json")).statement["predicate"]
    assert predicate["totals"]["executed"]["high"] is None


def test_a_run_that_ended_has_an_upper_bound_whenever_it_is_sealed(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    run.meter(15)
    run.finish()
    history = history_of(run.state.journal)
    assert as_of(history, rfc3339(10**18)) is history


@pytest.mark.parametrize("utc", ["", "2026-13-01T00:00:00.000000Z", "yesterday"])
def test_a_record_without_a_valid_time_is_refused(tmp_path: Path, utc: str) -> None:
    history = history_of(killed(tmp_path, 0).state.journal)
    history.incarnations[-1].last_utc = utc
    with pytest.raises(ValueError, match="is not a time"):
        as_of(history, "2026-11-26T00:00:00.000000Z")


def test_a_device_absent_from_the_next_start_is_a_gap_up_to_the_seal(tmp_path: Path) -> None:
    """The second daemon start was killed before it named its devices."""
    run = killed(tmp_path, 3600 * NS_PER_S)
    run.start()
    run.kill()
    lines = run.state.journal.read_bytes().splitlines(keepends=True)
    begins = [at for at, line in enumerate(lines) if b'"kind":"begin"' in line]
    run.state.journal.write_bytes(b"".join(lines[: begins[1] + 1]))
    predicate = verified(run.seal(tmp_path / "ledger.json")).statement["predicate"]
    assert predicate["totals"]["executed"]["high"] is None
    assert float(predicate["coverage"]["gapSecondsByReason"]["end_unknown"]) == pytest.approx(2 * 3600)
