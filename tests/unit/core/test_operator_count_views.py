"""FLOP counted by training processes, in everything derived from a journal: figures per record, course, merge,
metrics."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.figures import Figures
from flopsd.core.ledger.growing_run import GrowingRun
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import extend
from flopsd.core.ledger.run_view import view_of
from flopsd.core.model import Evidence, GapReason, Pipe
from flopsd.core.policy.reconcile import operators_ratio
from flopsd.core.session_protocol import FactsDeclared, SessionOpened, WorkCounted
from flopsd.journal.reading import read_journal
from flopsd.report.contents import build
from flopsd.report.contents.build import course_of
from flopsd.report.html.document import report_html
from flopsd.report.report_text import report_text
from flopsd.telemetry.prometheus import Exposition
from tests.make_vectors.merged import of_one_node
from tests.make_vectors.runs import BUSY
from tests.second_implementation.arithmetic import payload_of
from tests.support.enriched import report
from tests.support.story import A100, VECTORS, Story, active, gap, table

VECTOR = VECTORS / "valid" / "operator-count"
JOURNAL = VECTOR / "ledger.journal.jsonl"
PROCESS = "ab" * 16


def test_figures_after_each_record_match_a_view_of_the_records_so_far() -> None:
    growing, history, seen = GrowingRun(table()), History(), set()
    for line in read_journal(JOURNAL):
        extend(history, line.record())
        view = view_of(history, table())
        assert growing.figures(history) == view.figures
        assert growing.sums(history).figures == view.figures
        assert growing.sums(history).by_phase.get("evaluate") == view.bases.by_phase.get("evaluate")
        seen.add(sum(row.figures.low_flop for row in view.operator_rows))
    assert len(seen) > 2, "the vector's counts grow"


def test_a_course_of_few_points_includes_counts_of_omitted_points(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = payload_of(VECTOR / "ledger.json")["predicate"]["totals"]["executed"]
    every = course_of(JOURNAL, 10**6, table())
    assert every[-1]["executed"] == {name: whole[name] for name in ("low", "measured", "high")}
    for points in range(1, len(every)):
        monkeypatch.setattr(build, "MAX_POINTS", points)
        few = course_of(JOURNAL, 10**6, table())
        assert len(few) <= points + 1
        assert [one for one in few if one not in every] == []


def test_a_merged_ledger_states_which_figures_and_findings_rest_on_the_count() -> None:
    node, merged = payload_of(VECTOR / "ledger.json")["predicate"], of_one_node("operator-count")["predicate"]
    assert merged["totals"]["guidelines"]["operatorCount"] == node["totals"]["guidelines"]["operatorCount"]
    assert merged["totals"]["guidelines"]["operatorCount"]["low"] != "0"
    assert [one["restsOn"] for one in merged["findings"]] == [one["restsOn"] for one in node["findings"]]
    assert [one["restsOn"] for one in merged["findings"]].count("operator_count") == 1
    assert merged["declared"]["contradictions"] == sorted(
        node["declared"]["contradictions"], key=lambda one: json.dumps(one, sort_keys=True)
    )


def test_the_metric_does_not_fall_when_counters_take_over_from_the_count(tmp_path: Path) -> None:
    story, exposition = Story(tmp_path, (A100,)), Exposition()
    story.says(SessionOpened(PROCESS, 1, 1, "0"), FactsDeclared(PROCESS, {"device": A100.uid}))

    def value(evidence: str) -> float:
        page = exposition.render(story.writer.snapshot, "")[0].decode().splitlines()
        lines = [line for line in page if line.startswith("flopsd_flop_total{") and f'evidence="{evidence}"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def row() -> int:
        return sum(one.figures.measured_flop or 0 for one in story.writer.snapshot.view.operator_rows)

    counted, values, rows = 0, [], []
    story.devices = (replace(A100, evidence=Evidence.ACTIVITY),)
    for second in range(8):
        work: Any = BUSY if second < 4 else active(108, 1400, {Pipe.TENSOR_HMMA: 400_000})
        story.during(1, {A100: work})
        counted += 10**14
        story.says(WorkCounted(PROCESS, {"train": {"operator_flop": counted}}))
        story.writer.tick()
        values.append(value("operator_count"))
        rows.append(row())
    assert rows[3] == 4 * 10**14
    assert rows[-1] < rows[3], "counters measured more in the second half than was counted"
    assert values == sorted(values)
    assert values[-1] == float(max(rows))
    assert value("activity") > 0


def test_measured_and_counted_flop_are_compared_by_name() -> None:
    (pair,) = payload_of(VECTOR / "ledger.json")["predicate"]["reconciliation"]
    assert (pair["name"], pair["withinMargin"], pair["warning"]) == ("executed/operator_count", True, None)
    only_bounded = payload_of(VECTORS / "valid" / "operator-count-exceeding" / "ledger.json")["predicate"]
    assert only_bounded["reconciliation"] == []
    ratios = [operators_ratio(Figures(0, measured, 40), 20) for measured in (10, 14, 26, 27)]
    assert [ratio.warning for ratio in ratios] == [
        "LESS_MEASURED_THAN_THE_OPERATORS_COUNT", None, None, "MORE_MEASURED_THAN_THE_OPERATORS_COUNT",
    ]  # fmt: skip


def test_a_gpu_metered_as_mig_slices_has_no_count_of_its_own(tmp_path: Path) -> None:
    story = Story(tmp_path, (A100,))
    story.says(SessionOpened(PROCESS, 1, 1, "0"), FactsDeclared(PROCESS, {"device": A100.uid}))
    story.during(2, {A100: gap(GapReason.METERED_AS_MIG)})
    before = story.writer.snapshot.view.figures
    story.says(WorkCounted(PROCESS, {"train": {"operator_flop": 10**16}}))
    story.during(2, {A100: gap(GapReason.METERED_AS_MIG)})
    view = story.writer.snapshot.view
    assert view.figures == before
    assert [one.reason.value for one in view.unused] == ["count_exceeds_ceiling"]


def test_a_report_states_whose_claim_figures_and_findings_rest_on() -> None:
    shown = report(payload_of(VECTOR / "ledger.json"))
    for text in (" ".join(report_text(shown).split()), report_html(shown).replace("&#39;", "'").replace("&#x27;", "'")):
        assert "This rests on the count of operators by its training processes, which nobody checked." in text
        assert "the training processes' own count, which" in text
        assert "software's count by the training process" in text
        assert "COUNT_EXCEEDS_CEILING" in text
    lines = report_text(shown)
    for name, low in (("operator_count", "2.62x10^15"), ("evaluate", "4.00x10^12")):
        (line,) = re.findall(rf"^{name} .*(?:\n .*)*", lines, re.M)
        assert f"at least {low} FLOP, in the time of other rows" in " ".join(line.split())
    assert report_html(shown).count("in the time of other rows") == 2
    silent = " ".join(report_text(report(payload_of(VECTORS / "valid" / "activity-and-gaps" / "ledger.json"))).split())
    assert "training processes' own count, which" not in silent
