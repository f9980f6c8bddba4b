"""How a run's compute grew: points for a chart. They follow from the journal, not from the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flopsd.core.ledger.history import History, extend
from flopsd.core.ledger.run_view import view_of
from flopsd.core.peaks import PeakTable
from flopsd.core.values import seconds
from flopsd.journal.journal import read_journal
from flopsd.system.clock import rfc3339

MAX_POINTS = 200


def course(journal: Path, records: int, table: PeakTable) -> list[dict[str, Any]]:
    """Figures so far at some checkpoints of the first `records` records, the last one among them; times by the wall
    clock of each incarnation's beginning. Raises JournalError."""
    checkpoints = sum(line.record()["kind"] == "checkpoint" for line in read_journal(journal) if line.number <= records)
    every = max(1, -(-checkpoints // MAX_POINTS))
    history, seen, points = History(), 0, list[dict[str, Any]]()
    for line in read_journal(journal):
        if line.number > records:
            break
        record = line.record()
        extend(history, record)
        if record["kind"] != "checkpoint":
            continue
        seen += 1
        if seen % every == 0 or seen == checkpoints:
            points.append(_point(history, table))
    return points


def _point(history: History, table: PeakTable) -> dict[str, Any]:
    last, view = history.incarnations[-1], view_of(history, table)
    passed_ns, coverage_ppm = last.last_ns - int(last.begin["ns"]), view.coverage_ppm
    return {
        "at": rfc3339(int(last.begin["wall_ns"]) + passed_ns),
        "seconds": seconds(passed_ns),
        "executed": view.figures.for_ledger(),
        "phases": {phase: figures.for_ledger() for phase, figures in sorted(view.bases.by_phase.items())},
        "coveragePpm": None if coverage_ppm is None else str(coverage_ppm),
    }
