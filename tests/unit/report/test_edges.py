"""Values at the edge of what a text shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flopsd.cli.estimate import _interval
from flopsd.core.model import Figures
from flopsd.report.charts import anchor_at
from flopsd.report.coverage import MAX_ROWS, _some
from flopsd.report.declarations import _base
from flopsd.report.html_answer import _grounds
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.model import ReportRule, ReportState
from flopsd.report.report_text import _more
from flopsd.report.threshold_text import threshold_facts

RULE = ReportRule("a rule", "a/1", ReportState.BELOW, True, "below", "", "why", "compute", None, None, "", "Article 3",
                  "a duty", "2025", "", False, None)  # fmt: skip
FINDING: dict[str, Any] = {"title": "a rule", "applies": None, "state": "indeterminate", "status": "law"}


def test_rules_that_hang_on_declarations_are_one_line() -> None:
    rows = threshold_facts([FINDING, FINDING])
    assert [text.partition(":")[0] for _, text in rows] == ["INDETERMINATE for 2 rules"]


@pytest.mark.parametrize("citation", ["Article 3", ""])
def test_a_rule_without_a_citation_names_no_source(citation: str) -> None:
    page = "".join(str(one) for one in _grounds(replace(RULE, citation=citation)))
    assert ("Source" in page) == bool(citation)


def test_a_few_points_are_all_shown_and_many_evenly() -> None:
    points = [(at, Figures(at, at, at)) for at in range(50)]
    assert _some(points[:MAX_ROWS]) == points[:MAX_ROWS]
    assert [at for at, _ in _some(points[:2])] == [0, 1]
    assert (len(_some(points)), _some(points)[-1]) == (MAX_ROWS, points[-1])


def test_nothing_more_is_no_line() -> None:
    assert list(_more(0)) == []
    assert list(_more(2)) == ["and 2 more, which the figures above include"]


def test_a_base_model_that_no_settings_declared_names_who_did() -> None:
    base = {"name": "b", "kind": "known", "flop": "5", "method": None, "systemic": None, "declaredBy": "process"}
    assert any("process" in str(fact) for fact in _base(LedgerObject({"base": base}, "here")))


def test_a_share_of_the_peak_is_one_at_most() -> None:
    assert [str(end) for end in _interval("0.5..1")] == ["1/2", "1"]
    with pytest.raises(Exception, match="up to 1"):
        _interval("0.5..1.5")


def test_labels_at_the_ends_of_a_drawing_stay_within_it() -> None:
    assert [anchor_at(at) for at in (39.9, 40, 60, 60.1)] == ["start", "middle", "middle", "end"]
