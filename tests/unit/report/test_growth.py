"""The course of a run is read from its journal: it ends where the ledger does, and never falls."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from flopsd.report import growth as module
from flopsd.report.growth import course
from tests.support.independent import payload_of
from tests.support.story import VECTORS, table

CASES = ["activity-and-gaps", "cycles-recovered", "declared-phases", "journal-goes-on", "rebooted"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("most", [1, 2, 200])
def test_it_ends_at_the_ledgers_totals_and_never_falls(case: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POINTS", most)
    folder: Path = VECTORS / "valid" / case
    predicate = payload_of(folder / "ledger.json")["predicate"]
    executed = predicate["totals"]["executed"]
    points = course(folder / "ledger.journal.jsonl", int(predicate["method"]["journal"]["records"]), table())
    assert 1 <= len(points) <= most + 1
    assert points[-1]["executed"] == {name: executed[name] for name in ("low", "measured", "high")}
    assert points[-1]["phases"] == executed["byPhase"]
    for before, after in pairwise(points):
        assert before["at"] <= after["at"]
        for name in ("low", "measured"):  # high falls where counters tell afterwards what a gap held
            if before["executed"][name] is not None:
                assert int(before["executed"][name]) <= int(after["executed"][name])
