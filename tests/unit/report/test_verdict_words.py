"""A rule in words: its outcome, threshold and share, for each relation of figures and threshold."""

from fractions import Fraction
from typing import Any

import pytest

from flopsd.report.contents.model import ReportRule, ReportState
from flopsd.report.contents.verdicts import drawn_and_listed, rules_of
from flopsd.report.ledger_json import LedgerObject

NOT_KNOWN = "It is not known whether the rule applies. "
BETWEEN = "The threshold lies between the lower and the upper bound."
RANGE = "may be above or below the figures: only a range is known of it."


def finding(**changed: Any) -> dict[str, Any]:
    return {
        "policy": "p", "rule": "r", "title": "a rule", "applies": True, "state": "below", "quantities": ["updates"],
        "otherConditions": [], "value": {"low": "100", "measured": "200", "high": "400"},
        "threshold": threshold(1000, 1000), "reasons": [], "citation": "Article 3", "status": "text", **changed,
    }  # fmt: skip


def rule_of(**changed: Any) -> ReportRule:
    rules, others, _ = rules_of(LedgerObject({"findings": [finding(**changed)]}, "predicate"))
    return (*rules, *others)[0]


def value(low: int, measured: int | None, high: int | None) -> dict[str, str | None]:
    return {
        "low": str(low),
        **{name: None if of is None else str(of) for name, of in (("measured", measured), ("high", high))},
    }


def threshold(low: int, high: int | None, *, at_least: bool = False) -> dict[str, str]:
    ends = {"low": str(low), **({} if high is None else {"high": str(high)})}
    return {**ends, "comparison": "at_least" if at_least else "greater_than"}


@pytest.mark.parametrize(
    ("changed", "state", "text"),
    [
        ({}, "below", "Even the upper bound does not exceed the threshold."),
        (
            {"threshold": threshold(1000, 1000, at_least=True)}, "below",
            "Even the upper bound does not reach the threshold.",
        ),
        ({"state": "above"}, "above", "Even the lower bound is above the threshold."),
        (
            {"state": "above", "threshold": threshold(1000, 1000, at_least=True)}, "above",
            "Even the lower bound reaches the threshold.",
        ),
        ({"applies": False}, "not applicable", "The rule does not apply."),
        ({"applies": None}, "below", "Even the upper bound does not exceed the threshold."),
        ({"state": "indeterminate", "threshold": threshold(300, 300)}, "indeterminate", BETWEEN),
        ({"state": None, "threshold": threshold(300, 300)}, "indeterminate", BETWEEN),
        ({"state": "indeterminate", "threshold": None}, "indeterminate", "The threshold is not known."),
        (
            {"state": "indeterminate", "threshold": threshold(0, None)}, "indeterminate", "The threshold is not known.",
        ),
        (
            {"state": "indeterminate", "threshold": threshold(1000, None)}, "indeterminate",
            "The threshold is not known, and may be as low as the figures.",
        ),
        (
            {"state": "indeterminate", "value": value(1, None, None)}, "indeterminate",
            "No upper bound is known, and the lower bound does not exceed the threshold.",
        ),
        (
            {"state": "indeterminate", "value": value(1, None, None), "threshold": threshold(9, 9, at_least=True)},
            "indeterminate", "No upper bound is known, and the lower bound does not reach the threshold.",
        ),
        (
            {"applies": None, "state": "above", "threshold": None}, "indeterminate",
            f"{NOT_KNOWN}The threshold is not known either.",
        ),
        (
            {"applies": None, "state": "above", "value": value(1001, 1001, 1001)}, "indeterminate",
            f"{NOT_KNOWN}The figures exceed the threshold.",
        ),
        (
            {"applies": None, "state": "above", "value": value(1000, 1000, 1000),
             "threshold": threshold(1000, 1000, at_least=True)}, "indeterminate",
            f"{NOT_KNOWN}The figures reach the threshold.",
        ),
        (
            {"applies": None, "state": "indeterminate", "value": value(1000, 1000, None)}, "indeterminate",
            f"{NOT_KNOWN}The figures have no upper bound.",
        ),
        (
            {"applies": None, "state": "indeterminate", "value": value(999, 1000, 1000)}, "indeterminate",
            f"{NOT_KNOWN}The figures do not exceed the threshold.",
        ),
        (
            {"applies": None, "state": "indeterminate", "value": value(1, 1, 999),
             "threshold": threshold(1000, 1000, at_least=True)}, "indeterminate",
            f"{NOT_KNOWN}The figures do not reach the threshold.",
        ),
        (
            {"applies": None, "state": "indeterminate", "value": value(1000, 1000, 1001)}, "indeterminate",
            f"{NOT_KNOWN}{BETWEEN}",
        ),
        ({"state": "indeterminate", "threshold": threshold(100, 399)}, "indeterminate", BETWEEN),
        ({"state": "indeterminate", "threshold": threshold(99, 399)}, "indeterminate", f"The threshold {RANGE}"),
        ({"state": "indeterminate", "threshold": threshold(100, 400)}, "indeterminate", f"The threshold {RANGE}"),
        (
            {"state": "indeterminate", "value": value(100, None, None), "threshold": threshold(99, 200)},
            "indeterminate", f"No upper bound is known, and the threshold {RANGE}",
        ),
        (
            {"applies": None, "state": "indeterminate", "threshold": threshold(99, 500)}, "indeterminate",
            f"{NOT_KNOWN}The threshold {RANGE}",
        ),
        (
            {"applies": None, "state": "indeterminate", "threshold": threshold(99, None)}, "indeterminate",
            f"{NOT_KNOWN}The threshold is not known, and may be as low as the figures.",
        ),
    ],
)  # fmt: skip
def test_the_outcome_of_a_rule_in_words(changed: dict[str, Any], state: str, text: str) -> None:
    found = rule_of(**changed)
    assert (found.state, found.text) == (ReportState(state), text)


@pytest.mark.parametrize(
    ("figures", "limit", "share", "shown", "exact"),
    [
        (value(100, 200, 400), threshold(1000, 1000), "20 % (10 % to 40 %)", "10^3", "1000 FLOP"),
        (value(100, 200, 400), threshold(1000, 2000), "5 % to 40 %", "10^3 to 2.00x10^3", "1000 FLOP to 2000 FLOP"),
        (value(100, None, 400), threshold(1000, 1000), "10 % to 40 %", "10^3", "1000 FLOP"),
        (
            value(100, 200, None),
            threshold(1000, 1000),
            "20 % (at least 10 %; no upper bound is known)",
            "10^3",
            "1000 FLOP",
        ),
        (value(0, 200, None), threshold(1000, 1000), "20 % (no upper bound is known)", "10^3", "1000 FLOP"),
        (value(0, 0, 400), threshold(1000, 1000), "at most 40 %", "10^3", "1000 FLOP"),
        (value(100, 200, 400), threshold(1000, None), "at most 40 %", "at least 10^3", "at least 1000 FLOP"),
        (value(100, 200, 400), threshold(0, None), "", "at least 0", "at least 0 FLOP"),
    ],
)
def test_the_share_of_a_threshold_is_rounded_outward_and_unknown_ends_are_stated(
    figures: Any, limit: dict[str, str], share: str, shown: str, exact: str
) -> None:
    found = rule_of(state="indeterminate", value=figures, threshold=limit)
    assert found.share == share
    assert found.threshold is not None
    assert (found.threshold.text, found.threshold.exact) == (shown, exact)
    assert (found.chart is None) == (limit["low"] == "0")
    known = figures["high"] is not None and limit["low"] != "0"
    assert (found.distance is not None) == known
    if found.distance is not None:
        assert (found.distance.at_most * 1000, found.distance.lowest) == (Fraction(figures["high"]), Fraction(1000))


@pytest.mark.parametrize(
    ("least", "most", "systemic", "words"),
    [
        (1, 10**23, None, "the base model's training took at most 10^23 FLOP"),
        (2, 3, None, "the base model's training took between 2 and 3 FLOP"),
        (
            10**23 + 1,
            10**23 + 2 * 10**18,
            None,
            "the base model's training took between 1.00x10^23 and 1.01x10^23 FLOP",
        ),
        (10**23 - 10**16 + 1, 10**23, True, "the base model carries systemic risk and its training took at most 10^23 "
         "FLOP, and at most 10^16 FLOP less than that"),
        (5 * 10**22, 10**23, False, "the base model carries no systemic risk and its training took between "
         "5.00x10^22 and 10^23 FLOP"),
    ],
)  # fmt: skip
def test_a_rule_that_only_certain_base_models_meet_names_them(
    least: int, most: int, systemic: bool | None, words: str
) -> None:
    only = {"leastFlop": str(least), "mostFlop": str(most), "systemic": systemic}
    found = rule_of(state="indeterminate", aboveOnlyIfBase=only)
    assert found.only_if is not None
    assert (found.only_if.words, found.only_if.width) == (words, most - least + 1)
    assert found.text == f"Above only if {words}."


def test_the_most_severe_rules_come_first_and_applicable_open_ones_next() -> None:
    listed = [
        finding(rule="below"), finding(rule="open", applies=None, state="indeterminate"),
        finding(rule="none", applies=False),
        finding(rule="between", state="indeterminate"), finding(rule="above", state="above"),
    ]  # fmt: skip
    rules, others, axis = rules_of(LedgerObject({"findings": listed}, "predicate"))
    assert [rule.name for rule in (*rules, *others)] == ["p/above", "p/between", "p/open", "p/below", "p/none"]
    assert axis is not None
    drawn, table = drawn_and_listed(rules)
    assert ([rule.name for rule in drawn], [rule.name for rule in table]) == (
        ["p/above", "p/between", "p/open"],
        ["p/below"],
    )
    unknown = finding(state="indeterminate", value={"low": "0", "measured": None, "high": None})
    many = rules_of(LedgerObject({"findings": [unknown] * 3}, "predicate"))[0]
    assert [len(one) for one in drawn_and_listed(many)] == [2, 1]
