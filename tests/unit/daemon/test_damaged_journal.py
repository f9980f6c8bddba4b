"""A journal of which nothing can be read any more may be of the run that goes on, whatever its last line says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flopsd.core.ledger.run_view import view_of
from flopsd.journal.state_dir import StateDir
from tests.support.runs import H100, Run, history_of, verified
from tests.support.strategies import table


def first_line_altered(run: Run) -> None:
    journal = run.state.journal
    journal.write_bytes(b"{" + bytes([journal.read_bytes()[1] ^ 1]) + journal.read_bytes()[2:])


def first_line_torn(run: Run) -> None:
    run.state.journal.write_bytes(run.state.journal.read_bytes()[:100])


def removed(run: Run) -> None:
    run.state.journal.unlink()
    run.state.pending.unlink()


def emptied(run: Run) -> None:
    for path in (run.state.journal, run.state.pending):
        path.write_bytes(b"")


def forged_end(run: Run) -> None:
    """As a stranger would hide what was metered: nothing can be read, and the last line says that all was over."""
    first_line_altered(run)
    with run.state.journal.open("ab") as file:
        file.write(b'{"h":"' + b"0" * 64 + b'","r":{"incarnation":1,"kind":"end","reason":"sigterm"}}\n')


def test_a_run_whose_folder_another_daemon_took_meters_on_and_ends_without_a_seal(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("damage", [first_line_altered, first_line_torn, forged_end, removed, emptied])
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
    # A torn first line and nothing beside it is what a daemon leaves that was killed before it metered anything. Of a
    # run that ended nothing was metered after its ledger.
    is_nothing = has_ended and damage in (first_line_torn, removed, emptied)
    recovered = history.incarnations[0].begin["recovered"]
    is_missing = recovered is not None and {"code": "journal_missing"} in recovered["reasons"]
    assert is_missing is (not has_ended and damage in (first_line_torn, removed, emptied))
    assert (view_of(history, table()).figures.high_flop is None) is not is_nothing
