"""Which run is metered: the one in the state folder, or a new one, with the old journal kept next to it."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.core.ledger.isolation import Isolation
from flopsd.core.model import Growth, Pipe, Reading, Sweep, Totals
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.recovery.local_journal import RecoveredRun, choose_run, on_own_boot, recover
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.journal.journal import Journal
from flopsd.journal.reading import read_journal
from flopsd.journal.segments import closed_segments
from flopsd.journal.state_dir import StateDir
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.runs import CONTEXT, H100, Run, history_of, verified
from tests.support.strategies import table
from tests.support.tamper import chained


@contextmanager
def recovering(run: Run) -> Iterator[tuple[Journal, RecoveredRun]]:
    """A daemon starts in the state folder of a run: its journal, and what was found in it."""
    run.state.acquire()
    journal = Journal(run.state)
    yield journal, recover(journal, run.clock, None)
    journal.close()
    run.state.release()


def killed_between_two_segments(folder: Path) -> tuple[Run, Path]:
    """The closed segment was moved, and the next one has not got its name yet."""
    run = Run(folder, devices=(H100,))
    run.meter(2)
    assert run.writer.rotate()
    run.kill()
    run.state.journal.unlink()
    (closed,) = closed_segments(run.state)
    return run, closed


@pytest.mark.parametrize(
    ("ended", "wanted", "other", "why"),
    [
        (False, None, "", None), (False, "run-1", "", None), (False, "run-2", "", "run run-2 was asked for"),
        (False, None, "node", "this node is elsewhere"), (False, "run-1", "table", "with another peak table"),
        (True, None, "", "that run has ended"), (True, "run-1", "", None), (True, "run-2", "", "that run has ended"),
        (True, "run-1", "node", "this node is elsewhere"), (True, "run-1", "later job", "of an earlier job"),
        (True, "run-1", "job", None), (None, "run-1", "", ""), (None, None, "", ""),
    ],
)  # fmt: skip
def test_a_run_continues_if_requested_or_not_ended_on_this_node(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    ended: bool | None,
    wanted: str | None,
    other: str,
    why: str | None,
) -> None:
    """`ended` is None where there was no run before. `why` is None where the run continues, else the reason in the
    log."""
    caplog.set_level(logging.INFO, "flopsd")
    run = Run(tmp_path / "state", devices=(H100,))
    if ended is None:
        run.kill()
        run.state.journal.unlink()
    else:
        run.meter(2)
        (run.finish if ended else run.kill)()
    by = replace(table(), sha256="1" * 64) if other == "table" else table()
    node, now_s = "elsewhere" if other == "node" else CONTEXT.node, run.clock.wall_ns() // NS_PER_S
    began_s = {"later job": now_s + 3601, "job": now_s + 3500}.get(other)
    with recovering(run) as (journal, found):
        name, chosen = choose_run(journal, found, wanted, node, by, run.clock, began_s)
    kept = [path.name for path in run.state.path.rglob("run-1-until-*.journal.jsonl")]
    if why is None:
        assert (name, chosen, kept) == ("run-1", found, [])
        assert run.state.journal.exists()
    else:
        assert name == wanted if wanted else name != "run-1"
        assert (chosen.history.incarnations, len(kept)) == ([], 0 if ended is None else 1)
        assert why in caplog.text
        assert ("WARNING" in caplog.text) == (ended is False or bool(other))


def test_a_new_journal_continues_no_start_and_the_next_start_states_its_grounds(tmp_path: Path) -> None:
    state, clock = StateDir(tmp_path / "state"), FakeClock()
    wanted = WriterSettings(
        NS_PER_S, NS_PER_S, "0" * 64, None, ("sim",), isolation=Isolation(0, continues="file_owner")
    )
    for _ in range(2):
        state.acquire()
        journal = Journal(state)
        found = recover(journal, clock, None)
        writer = Writer(journal, table(), wanted, CONTEXT, clock, lambda _: None)
        writer.begin("run-1", found)
        assert writer.close("sigterm")
        begins = [record["isolation"]["continues"] for record in journal.read() if record["kind"] == "begin"]
        journal.close()
        state.release()
    assert begins == [None, "file_owner"]


@pytest.mark.parametrize("wanted", [None, "run-2"])
def test_a_run_killed_between_two_segments_continues_with_the_next(tmp_path: Path, wanted: str | None) -> None:
    run, closed = killed_between_two_segments(tmp_path / "state")
    with recovering(run) as (journal, found):
        assert found.closed is not None
        assert (found.closed.is_moved, found.closed.facts.number) == (True, 1)
        assert found.closed.facts.size_bytes == closed.stat().st_size
        name, chosen = choose_run(journal, found, wanted, CONTEXT.node, table(), run.clock)
    assert (name, chosen.history.incarnations) == (("run-2", []) if wanted else ("run-1", found.history.incarnations))
    assert closed_segments(run.state) == [closed]


@pytest.mark.parametrize("is_torn", [True, False])
def test_a_closed_segment_that_is_torn_or_has_a_forged_time_is_not_continued(tmp_path: Path, is_torn: bool) -> None:
    run, closed = killed_between_two_segments(tmp_path / "state")
    *bodies, end = (line.body for line in read_journal(closed))
    forged = json.dumps({**json.loads(end), "utc": "yesterday"}).encode()
    closed.write_bytes(closed.read_bytes()[:-1] if is_torn else chained([*bodies, forged])[0])
    with recovering(run) as (_, found):
        assert (found.history.incarnations, found.closed, found.journal_lost) == ([], None, True)


def test_self_test_results_of_counters_hold_for_the_boot_of_the_last_start(tmp_path: Path) -> None:
    """On another boot the counters may come from another driver, so they are tested again."""
    run = Run(tmp_path / "state", devices=(H100,))
    run.clock.advance(NS_PER_S)
    now_ns, totals = run.clock.boottime_ns(), Totals("GPM pipes x132", 10**12, {Pipe.TENSOR: 10**9})
    reading = Reading(H100.uid, run.since_ns, now_ns, Growth(), {}, totals)
    run.writer.take(Message("sim", now_ns, run.devices, Sweep((reading,))))
    run.kill()
    with recovering(run) as (_, found):
        assert found.origins(CONTEXT.boot_id) == {H100.uid: totals.origin}
        assert found.origins("another boot") == {}
    run.devices = ()
    run.start()
    run.restart(ends=True)
    run.kill()
    with recovering(run) as (_, found):
        assert found.origins(CONTEXT.boot_id) == {}, "not of the last start"


@pytest.mark.parametrize("back_s", [50, 900])
def test_a_boottime_clock_that_went_back_is_replaced_by_the_wall_clock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, back_s: int
) -> None:
    """The daemon was away for ten seconds, by a clock that went back past the metered time, or further."""
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(100)
    run.kill()
    run.clock.advance(10 * NS_PER_S)
    history, now_ns = history_of(run.state.journal), run.clock.boottime_ns()
    assert on_own_boot(run.context, history, now_ns) is run.context
    run.clock.advance(-(back_s + 10) * NS_PER_S)
    run.clock.step_wall((back_s + 10) * NS_PER_S)
    run.context = on_own_boot(run.context, history, run.clock.boottime_ns())
    assert run.context.boot_id.startswith("boot-1+")
    assert "another time namespace" in caplog.text
    run.start()
    run.meter(20)
    run.finish()
    coverage = verified(run.seal(tmp_path / "out" / "ledger.json")).statement["predicate"]["coverage"]
    assert (coverage["spanSeconds"], coverage["gapSecondsByReason"]) == (
        "130.000000000",
        {"daemon_down": "10.000000000"},
    )
