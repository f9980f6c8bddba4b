"""Values at the boundary of what a text shows."""

import argparse
from dataclasses import replace
from fractions import Fraction

import pytest

from flopsd.cli.common import positive
from flopsd.cli.estimate_options import count, interval
from flopsd.core.figures import Figures
from flopsd.errors import LedgerError
from flopsd.report.contents.bases import _ratio
from flopsd.report.contents.charts import anchor_at
from flopsd.report.contents.coverage import MAX_ROWS, _some
from flopsd.report.contents.inventory import _observed
from flopsd.report.contents.model import ReportRule, ReportState
from flopsd.report.contents.verdicts import shown_of
from flopsd.report.html.answer import _grounds, _measured
from flopsd.report.html.answer import _rules as article
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.ledger_text import _attached
from flopsd.report.numbers import NO_MEASURED
from flopsd.report.numbers import interval as interval_of
from flopsd.report.report_text import _brief_rule, _more, _rules
from flopsd.report.terminal import sentence

RULE = ReportRule("a rule", "a", "a/1", ReportState.BELOW, True, "below", "", "why", "compute",
                  interval_of(Figures(0, None, None)), None, "", "Article 3", "a duty", "2025", "", "text", (), None, None,
                  None)  # fmt: skip


@pytest.mark.parametrize("citation", ["Article 3", ""])
def test_a_rule_without_a_citation_names_no_source(citation: str) -> None:
    page = "".join(str(one) for one in _grounds(replace(RULE, citation=citation)))
    assert ("Source" in page) == bool(citation)


def test_the_grounds_of_several_rules_have_titles() -> None:
    for titles in (("one",), ("one", "two")):
        page = str(article([replace(RULE, title=title) for title in titles], None, "name", ""))
        assert page.count("<h4>") == (0 if len(titles) == 1 else 2)


def test_a_rule_without_a_measured_value_says_so_and_no_evidence_has_no_heading() -> None:
    assert NO_MEASURED in str(_measured(RULE))
    assert _attached([]) == []
    brief = "\n".join(_brief_rule(RULE, ""))
    assert f"{NO_MEASURED}, at least 0 FLOP" in brief
    assert "threshold" not in brief


def test_few_points_are_all_shown_and_many_are_sampled_evenly() -> None:
    points = [(at, Figures(at, at, at)) for at in range(50)]
    assert _some(points[:MAX_ROWS]) == points[:MAX_ROWS]
    assert [at for at, _ in _some(points[:2])] == [0, 1]
    assert (len(_some(points)), _some(points)[-1]) == (MAX_ROWS, points[-1])


def test_zero_further_entries_print_no_line() -> None:
    assert list(_more(0)) == []
    assert list(_more(2)) == ["and 2 more, which the figures above include"]


def test_a_share_of_the_peak_is_at_most_one() -> None:
    assert [str(end) for end in interval("0.5..1")] == ["1/2", "1"]
    with pytest.raises(Exception, match="up to 1"):
        interval("0.5..1.5")


def test_open_rules_with_the_same_outcome_are_shown_together() -> None:
    open_ones = [replace(RULE, state=ReportState.INDETERMINATE, name=f"a/{at}", title=f"rule {at}") for at in (1, 2)]
    assert shown_of(open_ones[0]) == shown_of(open_ones[1])
    assert shown_of(open_ones[0]) != shown_of(replace(open_ones[1], why="another"))
    assert shown_of(RULE) != shown_of(replace(RULE, name="a/2"))
    lines = "\n".join(_rules(open_ones, ""))
    assert lines.count("BELOW") + lines.count("below: rule") == 2
    assert (lines.count("  why "), lines.count("Article 3")) == (1, 2)


def test_labels_at_the_ends_of_a_drawing_stay_within_it() -> None:
    assert [anchor_at(at) for at in (39.9, 40, 60, 60.1)] == ["start", "middle", "middle", "end"]


def test_counts_of_an_estimate_range_from_one_to_a_quintillion() -> None:
    assert [count(text) for text in ("1", "1e18")] == [1, 10**18]
    assert positive("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 999999999"):
        positive("0")
    for text in ("0", "1000000000000000001"):
        with pytest.raises(argparse.ArgumentTypeError, match="between 1 and 1e18"):
            count(text)


@pytest.mark.parametrize(("span", "text"), [("0.0", "not known"), ("1.0", "50 %")])
def test_the_observed_time_is_shown_as_a_share(span: str, text: str) -> None:
    entry: dict[str, object] = {"spanSeconds": span, "observedSeconds": "0.25", "recoveredSeconds": "0.25"}
    for high, before in (("1", ""), (None, "" if text == "not known" else "at most ")):
        executed = {"low": "0", "measured": None, "high": high}
        entry |= {"executed": executed, "peakRow": "h100"}
        assert _observed(LedgerObject(entry, "here")) == before + text


@pytest.mark.parametrize(
    ("low", "measured", "high", "text"),
    [
        (None, None, None, "not known"),
        (None, "1500000", None, "1.500"),
        ("1", None, "2000000", "0.000 to 2.000"),
        ("1000000", None, None, "at least 1.000; no upper bound is known"),
        ("0", "1000000", "1000001", "1.000 (0.000 to 1.001)"),
        (None, None, "1000000", "0.000 to 1.000"),
    ],
)
def test_a_ratio_states_which_of_its_ends_are_known(
    low: str | None, measured: str | None, high: str | None, text: str
) -> None:
    assert _ratio(LedgerObject({"low": low, "measured": measured, "high": high}, "here")) == text


@pytest.mark.parametrize(
    ("words", "text"), [("", ""), ("a word", "A word."), ("It ends.", "It ends."), ("does it?", "Does it?")]
)
def test_a_sentence_begins_with_a_capital_and_ends_once(words: str, text: str) -> None:
    assert sentence(words) == text


def test_only_times_of_gaps_can_be_negative() -> None:
    entry = LedgerObject({"beginSeconds": "-1.5"}, "gap")
    assert entry.decimal("beginSeconds", signed=True) == Fraction(-3, 2)
    with pytest.raises(LedgerError, match="beginSeconds: must be a number that is not negative, is '-1.5'"):
        entry.decimal("beginSeconds")
