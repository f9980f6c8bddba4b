"""The single view of a run: each rule is applied in one place, and no tally is turned into rows twice."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.core import rows
from flopsd.core.declarations import Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.figures import Figures
from flopsd.core.ledger import rated_tally
from flopsd.core.ledger.history import History
from flopsd.core.ledger.run_view import view_of
from flopsd.core.ledger.start_notes import ROTATED
from flopsd.core.model import Growth
from flopsd.core.rows import Rating, Row
from flopsd.core.session_protocol import PhaseChanged, SessionOpened
from flopsd.core.tally import Tally
from flopsd.telemetry.prometheus import Exposition
from flopsd.telemetry.status import status_of_snapshot
from tests.support.runs import A100, CONTEXT, H100, Run, history_of, interrupted
from tests.support.story import CYCLES_H100, Story
from tests.support.strategies import table


@pytest.fixture
def rated(monkeypatch: pytest.MonkeyPatch) -> list[Tally]:
    found: list[Tally] = []

    def counted(tally: Tally, rating: Rating) -> Sequence[Row]:
        found.append(tally)
        return rows.rows(tally, rating)

    monkeypatch.setattr(rated_tally, "rows", counted)
    return found


def test_a_snapshot_turns_each_tally_into_rows_once(tmp_path: Path, rated: list[Tally]) -> None:
    run = Run(tmp_path)
    run.meter(3)
    run.restart()
    run.meter(3)
    exposition = Exposition()
    exposition.render(run.writer.snapshot, "")
    status_of_snapshot(run.writer.snapshot)
    for _ in range(3):
        rated.clear()
        run.meter(1)
        snapshot = run.writer.snapshot
        exposition.render(snapshot, "")
        status_of_snapshot(snapshot)
        assert snapshot.view.findings == ()
        assert sorted(map(id, rated)) == sorted(id(state.tally) for state in snapshot.devices)


def test_the_snapshot_and_the_journal_give_the_same_view(tmp_path: Path) -> None:
    run = interrupted(Run(tmp_path, declared=OperatorDeclarations(Phase.TRAIN)))
    run.writer.checkpoint()
    live = run.writer.snapshot.view
    read = view_of(history_of(run.state.journal), table())
    assert (live.run, live.node, live.start) == (read.run, read.node, read.start)
    assert [device.device.uid for device in live.devices] == [H100.uid, A100.uid]
    assert live.before(2).figures == read.before(2).figures
    assert live.bases.guidelines == read.bases.guidelines
    assert live.bases.guidelines.updates.low_flop > 0, "the settings' word"
    assert {one.start for one in live.before(2).rated} == {1}


def test_without_a_device_the_ceiling_is_unknown() -> None:
    view = view_of(History(), table())
    assert (view.figures, view.coverage_ppm, view.devices) == (Figures(0, None, None), None, ())
    assert view.bases.by_phase == {"undeclared": Figures(0, None, None)}


@pytest.mark.parametrize(("nodes", "rotated", "whole", "whole_run"), [
    ((), False, True, True), (("a",), False, True, True), (("a", "b"), False, False, False), (("a",), True, False, True),
    (("a", "b"), True, False, False),
])  # fmt: skip
def test_a_view_covers_a_run_only_with_its_single_node_and_all_segments(
    tmp_path: Path, nodes: tuple[str, ...], rotated: bool, whole: bool, whole_run: bool
) -> None:
    run = interrupted(Run(tmp_path))
    run.finish()
    history = history_of(run.state.journal)
    history.incarnations[0].begin["context"]["node"]["jobNodes"] = list(nodes)
    if rotated:
        history.incarnations[-1].end = {"reason": ROTATED}
    assert view_of(history, table()).is_whole is whole
    assert view_of(history, table(), whole_run=True).is_whole is whole_run


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1)])
def test_a_run_resumed_in_a_larger_job_is_not_a_whole_run(tmp_path: Path, sizes: tuple[int, int]) -> None:
    """A ledger of a run begun on one node and resumed with two was taken for the whole run, so "at most" lacked the
    work of the other node."""
    contexts = [replace(CONTEXT, job_nodes=("node-0", "node-1")[:size]) for size in sizes]
    run = Run(tmp_path, context=contexts[0])
    run.meter(3)
    run.kill()
    run.context = contexts[1]
    run.start()
    run.meter(3)
    run.writer.checkpoint()
    views = [run.writer.snapshot.view, view_of(history_of(run.state.journal), table())]
    assert [(view.is_whole, view.job_nodes) for view in views] == [(False, 2)] * 2


def test_a_daemon_start_that_metered_nothing_has_no_phase(tmp_path: Path) -> None:
    """Found by `make agreement`: training became a phase of the run although nothing was measured in it."""
    run, process = Story(tmp_path, (CYCLES_H100,), declared=OperatorDeclarations(Phase.TRAIN)), "22" * 16
    run.says(SessionOpened(process, 1, 1000, "0.1.0"), PhaseChanged(process, "generate"))
    run.during(3, {CYCLES_H100: lambda _: Growth()})
    run.kill()
    run.start()
    run.finish()
    view = view_of(history_of(run.state.journal), table())
    claimed = view.bases.claimed
    assert claimed is not None
    assert claimed.counted.cumulative.measured_flop == view.bases.by_phase["generate"].measured_flop


@pytest.mark.parametrize("first", [Recomputation.FULL, None])
def test_recomputation_that_two_starts_declare_differently_is_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first: Recomputation | None
) -> None:
    """Most of the work was recomputed. If the last start's declaration of none held, a quarter more would count."""
    none = OperatorDeclarations(Phase.TRAIN, Method.LORA, Recomputation.NONE)
    run = Run(tmp_path, devices=(H100,), declared=OperatorDeclarations(Phase.TRAIN, Method.FULL, first))
    run.meter(9)
    run.kill()
    run.declared = none
    run.start()
    said = [record.args for record in caplog.records if "have different" in record.msg]
    assert said == [("--recomputation",), ("--method",)]
    run.meter(1)
    live = run.writer.snapshot.view
    read = view_of(history_of(run.state.journal), table())
    for view in (live, read):
        assert view.declarations.settings == replace(none, method=None, recomputation=None)
        assert view.bases.guidelines.updates.low_flop <= view.figures.low_flop * 3 // 4
    assert run.writer.rotate()
    run.restart()
    run.meter(1)
    live = run.writer.snapshot.view
    assert live.bases.guidelines.updates.low_flop <= live.figures.low_flop * 3 // 4, "nor in the segments after"
    run.finish()
    assert history_of(run.state.journal).declared == none, "all work of this segment is of such starts"
