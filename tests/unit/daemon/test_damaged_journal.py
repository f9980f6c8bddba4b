"""A journal that cannot be read at all may belong to the run that continues, whatever its last line says."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flopsd.core.ledger.run_view import view_of
from flopsd.core.session_protocol import FactsDeclared, SessionOpened, WorkCounted
from flopsd.daemon.ledgers.sealing import seal_ended
from flopsd.journal.reading import read_journal
from flopsd.journal.state_dir import OPEN_RUN_NAME, StateDir
from flopsd.settings.platform import find_context
from flopsd.settings.schema import Settings
from tests.support.runs import H100, Run, history_of, verified
from tests.support.strategies import table
from tests.support.tamper import chained


def first_line_altered(run: Run) -> None:
    journal = run.state.journal
    journal.write_bytes(b"{" + bytes([journal.read_bytes()[1] ^ 1]) + journal.read_bytes()[2:])


def first_line_torn(run: Run) -> None:
    run.state.journal.write_bytes(run.state.journal.read_bytes()[:100])


def removed(run: Run) -> None:
    run.state.journal.unlink()
    run.state.pending.unlink()


def removed_but_for_pending_totals(run: Run) -> None:
    run.state.journal.unlink()
    (run.state.path / OPEN_RUN_NAME).unlink(missing_ok=True)


def emptied(run: Run) -> None:
    for path in (run.state.journal, run.state.pending):
        path.write_bytes(b"")


def forged_end(run: Run) -> None:
    """A stranger hiding metered work: nothing can be read, and the last line says that the run ended."""
    first_line_altered(run)
    with run.state.journal.open("ab") as file:
        file.write(b'{"h":"' + b"0" * 64 + b'","r":{"incarnation":1,"kind":"end","reason":"sigterm"}}\n')


def forged_time(run: Run) -> None:
    """In a valid chain: no ledger of it could ever be sealed, and a rotation by age would end the daemon."""
    first, *others = (line.body for line in read_journal(run.state.journal))
    first = json.dumps({**json.loads(first), "utc": "yesterday"}).encode()
    run.state.journal.write_bytes(chained([first, *others])[0])
    run.state.pending.unlink()


def forged_record(run: Run) -> None:
    """In a valid chain, and last: no record has a fraction."""
    bodies = [line.body for line in read_journal(run.state.journal)]
    run.state.journal.write_bytes(chained([*bodies, b'{"kind":1.5}'])[0])


MISSED = (first_line_torn, removed, removed_but_for_pending_totals, emptied)
LOSSES = (first_line_altered, forged_end, forged_time, forged_record, *MISSED)


def test_a_run_whose_folder_was_taken_over_keeps_metering_and_ends_unsealed(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(12)
    (run.state.path / "lock").unlink()
    other = StateDir(run.state.path)
    other.acquire()
    before = run.state.journal.read_bytes()
    run.meter(12)
    assert "is in use by a running flopsd" in run.writer.snapshot.journal_fault
    assert run.writer.close("sigterm") is False
    assert run.state.journal.read_bytes() == before
    run.kill()
    other.release()


@pytest.mark.parametrize("damage", LOSSES)
@pytest.mark.parametrize("has_ended", [False, True])
def test_a_run_whose_journal_is_lost_has_no_upper_bound(
    tmp_path: Path, damage: Callable[[Run], None], has_ended: bool
) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(12)
    if has_ended:
        run.finish()
    else:
        run.kill()
    damage(run)
    run.start()
    run.meter(3)
    run.finish()
    verified(run.seal(tmp_path / "out" / "ledger.json"))
    history = history_of(run.state.journal)
    assert len(history.incarnations) == 1
    # A torn first line and no other file is left by a daemon killed before it metered anything. After the ledger of a
    # run that ended, nothing was metered.
    is_nothing = has_ended and damage in MISSED
    recovered = history.incarnations[0].begin["recovered"]
    is_missing = recovered is not None and {"code": "journal_missing"} in recovered["reasons"]
    assert is_missing is (not has_ended and damage in MISSED)
    assert (view_of(history, table()).figures.high_flop is None) is not is_nothing


@pytest.mark.parametrize("is_restarted", [False, True])
def test_flop_by_model_has_no_upper_bound_in_a_run_whose_journal_was_lost(tmp_path: Path, is_restarted: bool) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(12)
    run.kill()
    first_line_altered(run)
    run.start()
    run.meter(3)
    if is_restarted:
        run.restart()
    run.writer.take_event(SessionOpened("s", 100, 0, "0.1.0"))
    run.writer.take_event(FactsDeclared("s", {"parameters_total": 1000, "parameters_trainable": 1000}))
    run.writer.take_event(WorkCounted("s", {"train": {"steps": 1, "tokens": 10}}))
    run.finish()
    architecture = verified(run.seal(tmp_path / "ledger.json")).statement["predicate"]["totals"]["architecture"]
    assert (int(architecture["low"]) > 0, architecture["high"]) == (True, None)


@pytest.mark.parametrize(("is_altered", "given"), [(False, None), (True, None), (True, "run-2")])
def test_a_journal_with_altered_codes_is_kept_aside_and_leaves_no_upper_bound(
    tmp_path: Path, is_altered: bool, given: str | None
) -> None:
    secret = bytes(range(32))
    run = Run(tmp_path / "state", devices=(H100,), secret=secret)
    run.meter(20)
    known = run.journal.as_known_journal(run.run_id)
    run.kill()
    *before, last = run.state.journal.read_bytes().splitlines(keepends=True)
    if is_altered:
        run.state.journal.write_bytes(
            b"".join(before) + re.sub(rb'"m":"[0-9a-f]{32}"', b'"m":"%s"' % (b"0" * 32), last)
        )
    settings = Settings(state_dir=str(run.state.path), run_id=given)
    known = known if given is None else known._replace(run="")
    sealed = seal_ended(settings, {}, run.clock, known=known, code_secrets=[secret])
    assert sealed is not None
    found, history = verified(sealed).statement["predicate"], history_of(sealed.journal)
    assert (found["totals"]["executed"]["high"] is None) == is_altered
    assert found["run"]["id"] == (given or run.run_id)
    end = history.incarnations[-1].end
    assert (None if end is None else end["reason"]) == ("journal_replaced" if is_altered else None)
    assert [path.name for path in run.state.path.glob("not-ours*")] == (
        ["not-ours.journal.jsonl"] if is_altered else []
    )


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_run_whose_journal_was_lost_at_its_end_has_no_upper_bound_when_resumed(
    tmp_path: Path, is_killed: bool
) -> None:
    """The journal that is begun at the end lists no device that could stand for the loss."""
    run = Run(tmp_path / "state", devices=(H100,), context=find_context({}))
    run.meter(12)
    known = run.journal.as_known_journal(run.run_id)
    run.state.journal.write_bytes(run.state.journal.read_bytes().replace(b"H100", b"A100"))
    if is_killed:
        run.kill()
        seal_ended(Settings(state_dir=str(run.state.path)), {}, run.clock, known=known)
    else:
        run.finish()
    (begun,) = history_of(run.state.journal).incarnations
    assert begun.devices == {}
    assert begun.end is not None
    assert begun.end["reason"] == ("journal_replaced" if is_killed else "sigterm")
    for _ in range(2):
        run.start()
        run.meter(12)
        run.finish()
        figures = view_of(history_of(run.state.journal), table()).figures
        assert (figures.measured_flop is not None, figures.high_flop) == (True, None)
    verified(run.seal(tmp_path / "out" / "ledger.json"))


def test_each_loss_names_the_journal_that_was_lost(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    for _ in range(2):
        run.meter(12)
        lost = run.journal.head
        run.state.journal.write_bytes(b"{}\n")
        run.meter(12)
        (start,) = history_of(run.state.journal).incarnations
        (reason,) = start.begin["recovered"]["reasons"]
        assert (reason["records"], reason["head"]) == (str(lost.records), lost.sha256)
    run.kill()


def test_a_loss_before_any_device_is_listed_leaves_later_starts_unbounded(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=())
    run.meter(12)
    run.state.journal.write_bytes(b"{}\n")
    run.meter(12)
    run.restart(devices=(H100,))
    run.meter(12)
    assert run.writer.snapshot.view.figures.high_flop is None
    run.finish()


def test_a_loss_before_any_device_is_listed_leaves_later_segments_unbounded(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=())
    run.meter(12)
    run.state.journal.write_bytes(b"{}\n")
    run.meter(12)
    assert run.writer.rotate()
    run.devices = (H100,)
    run.meter(12)
    assert run.writer.snapshot.view.figures.high_flop is None
    run.restart()
    run.meter(3)
    assert run.writer.rotate()
    run.meter(3)
    assert run.writer.snapshot.view.figures.high_flop is None
    run.finish()
