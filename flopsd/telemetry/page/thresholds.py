"""Thresholds on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flopsd.report.answer import answer_of
from flopsd.report.contents.model import ReportRule, ReportState
from flopsd.report.contents.verdicts import rules_of
from flopsd.report.html.kit import Html, h, text
from flopsd.report.html.parts import chip, entry, icon, or_none, rule_chart, rule_legend, section
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.rule_words import source_of
from flopsd.report.terminal import capital, counted, sentence
from flopsd.report.threshold_text import crossing_text

_SHOWN = 2  # consequences shown outside the details


def thresholds_part(findings: Sequence[Mapping[str, Any]], of_node: str = "") -> Html:
    """The answer, the conditions that it depends on, its consequences, and the rules on demand. `of_node`: a warning
    about the node, shown first."""
    rules, others, axis = rules_of(LedgerObject({"findings": list(findings)}, "status"))
    answer = answer_of(rules, others)
    when = {f"{one['policy']}/{one['rule']}": one["crossing"] for one in findings}
    parts = []
    for at, rule in enumerate(rules):
        chart = None if axis is None or rule.chart is None else rule_chart(rule.chart, axis, f"rule-{at}")
        parts.append(_rule(rule, f"rule-{at}", when.get(rule.name), chart))
    state = answer.state.value
    title = text(icon(state), h("span", answer.headline))
    first = (sentence(of_node),) if of_node else ()
    leads = [h("p", words, cls="lead") for words in (*first, *answer.only_if, *answer.sentences)]
    drawn = None if axis is None or not rules else rule_legend()
    applying = sum(rule.applies is True for rule in rules)
    certain = f", {applying} for certain" if 0 < applying < len(rules) else ""
    summary = h("summary", f"{counted(len(rules), 'rule')} in detail{certain}")
    details = h("details", summary, *parts, drawn, id="rules") if parts else None
    above = [rule for rule in rules if rule.state is ReportState.ABOVE and rule.consequence]
    follows = [h("p", h("strong", "What follows. "), rule.consequence, cls="lead") for rule in above[:_SHOWN]]
    return section("thresholds", title, *leads, *follows, _soonest(rules, when), details, cls=f"headline state-{state}")


def _soonest(rules: Sequence[ReportRule], when: Mapping[str, Mapping[str, Any] | None]) -> Html | None:
    """The forecast of the applicable rule whose threshold can be crossed first."""
    known = [
        (int(crossing["earliestSeconds"]), rule, crossing)
        for rule in rules
        if rule.applies and rule.state is not ReportState.ABOVE
        if (crossing := when.get(rule.name)) is not None and crossing["earliestSeconds"] is not None
    ]
    if not known:
        return None
    _, rule, crossing = min(known, key=lambda one: one[0])
    return h("p", h("strong", "First crossing. "), f"{rule.title}: {crossing_text(crossing)}.", cls="lead")


def _rule(rule: ReportRule, name: str, crossing: Mapping[str, str | None] | None, drawn: Html | None) -> Html:
    entries = [
        entry("Interval", rule.value.ends),
        entry("Threshold", or_none(None if rule.threshold is None else f"{rule.threshold.text} FLOP")),
        entry("Share of it", or_none(rule.share or None)),
    ]
    if crossing is not None and rule.state is not ReportState.ABOVE:
        entries.append(
            entry("Forecast", capital(f"{'' if rule.applies else 'if it applies: '}{crossing_text(crossing)}"))
        )
    why = f"{rule.text} {sentence(rule.why)}".strip() if rule.why else rule.text
    consequence = None
    if rule.state is ReportState.ABOVE and rule.consequence:
        consequence = h("p", h("strong", "What follows. "), rule.consequence, cls="reason")
    return h(
        "article",
        h("h3", chip(rule.state.value, rule.word), " ", rule.title, id=name),
        h("dl", *entries, cls="quad"),
        drawn,
        consequence,
        h("p", why, cls="note"),
        h("p", source_of(rule.citation, rule.status), cls="note"),
        cls="rule",
        aria_labelledby=name,
    )
