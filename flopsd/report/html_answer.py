"""The answer of a report in HTML: each rule against its threshold, the bases of counting, their reconciliation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flopsd.report.charts import Axis
from flopsd.report.html_kit import Html, h, text
from flopsd.report.html_parts import (
    FIGURE_HEADS,
    amount,
    chip,
    entry,
    facts,
    figure_cells,
    icon,
    none,
    rule_chart,
    rule_legend,
    section,
    table,
    triple,
)
from flopsd.report.model import Basis, Comparison, Content, ReportRule, ReportState, Share
from flopsd.report.numbers import NO_MEASURED
from flopsd.report.rule_words import beside_source, not_decided

_LOOKS = {"Agree": "below", "Do not agree": "above"}


def answer_section(content: Content) -> Html:
    answer, axis = content.answer, content.axis
    state = answer.state.value
    title = text(icon(state), h("span", answer.headline))
    parts = [
        *(h("p", words, cls="lead") for words in (*answer.only_if, *answer.sentences)),
        *(_rule(rule, axis, f"rule-{at}") for at, rule in enumerate(content.rules, 1)),
        rule_legend() if axis is not None and content.rules else None,
        _not_applicable(content.other_rules) if content.other_rules else None,
        h("p", content.advice, cls="note") if content.advice else None,
    ]
    return h(
        "section",
        h("h2", title, id="h-answer", cls=f"headline state-{state.replace(' ', '-')}"),
        *parts,
        id="answer",
        cls="answer",
        aria_labelledby="h-answer",
    )


def _rule(rule: ReportRule, axis: Axis | None, name: str) -> Html:
    value = rule.value
    measured = none(NO_MEASURED) if value is None else amount(value.measured) or none(NO_MEASURED)
    ends = none("not known")
    if value is not None:
        ends = text(amount(value.low, ""), " to ", amount(value.high) or none("no upper bound"))
    return h(
        "article",
        h("h3", chip(rule.state.value, rule.word), " ", rule.title, id=name),
        h(
            "dl",
            entry("Measured", measured),
            entry("Interval", ends),
            entry("Threshold", amount(rule.threshold) or none("not known")),
            entry("Share of it", rule.share or "not known"),
            cls="quad",
        ),
        None if rule.chart is None or axis is None else rule_chart(rule.chart, axis, name),
        _reason(rule),
        h("details", h("summary", "Why, on what grounds, and what follows"), h("dl", *_grounds(rule), cls="facts")),
        cls="rule",
        aria_labelledby=name,
    )


def _reason(rule: ReportRule) -> Html | None:
    if rule.state is ReportState.ABOVE:
        follows = (h("strong", "What follows."), " ", rule.consequence) if rule.consequence else ()
        alone = f" {sentence(not_decided(rule.other_conditions))}" if rule.other_conditions else ""
        return h("p", *follows, alone, cls="reason") if follows or alone else None
    if rule.state is not ReportState.INDETERMINATE:
        return None
    return h("p", " ".join(filter(None, (rule.text, sentence(rule.why)))), cls="reason")


def sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _grounds(rule: ReportRule) -> Iterable[Html]:
    beside = beside_source(rule.status)
    source = text(rule.citation, *((" ", h("span", beside, cls="by")) if beside else ()))
    rows = (
        ("Why", rule.why),
        ("What is compared", rule.quantity),
        ("Assumes", rule.assumes),
        ("Not decided here", "; ".join(rule.other_conditions)),
        ("Source", source if rule.citation else ""),
        ("If it is above", "" if rule.state is ReportState.ABOVE else rule.consequence),
        ("Applies since", rule.since),
    )
    yield from (entry(name, value) for name, value in rows if value)
    yield h("div", h("dt", "Rule"), h("dd", rule.name, cls="mono"))


def _not_applicable(rules: Sequence[ReportRule]) -> Html:
    rows = (entry(rule.title, text(rule.why or rule.text, " ", h("span", rule.citation, cls="by"))) for rule in rules)
    return h("details", h("summary", f"Not applicable: {len(rules)}"), h("dl", *rows, cls="facts"), cls="others")


def bases_section(content: Content) -> Html:
    intro = "The same work counted in three ways. They answer different questions, so none stands for another."
    evidence = list(_shares(content.evidence)) or [h("tr", h("td", "Nothing was read.", colspan=5))]
    phases = table(
        "Executed compute by phase",
        "Executed compute by declared phase, in FLOP",
        (("Phase", None), *FIGURE_HEADS, ("What was done", None)),
        _shares(content.phases),
    )
    return section(
        "bases",
        "Three bases of counting",
        h("p", intro, cls="intro"),
        h("div", *map(_basis, content.bases), cls="cards"),
        h("h3", "How the executed figure is known"),
        table(
            "Executed compute by evidence",
            "Executed compute by evidence, strongest first, in FLOP",
            (("Evidence", None), *FIGURE_HEADS, ("What it is", None)),
            evidence,
        ),
        phases if content.phases else None,
    )


def _shares(shares: Iterable[Share]) -> Iterable[Html]:
    for share in shares:
        if share.value is not None:
            cells = figure_cells(share.value, "not measured")
            yield h("tr", h("th", share.name, scope="row"), cells, h("td", share.meaning))


def _basis(basis: Basis) -> Html:
    value = basis.value
    figures = h("p", basis.absent, cls="absent") if value is None else triple(value, basis.no_middle, basis.middle)
    further = (text(h("h4", name), triple(value, basis.no_middle, basis.middle)) for name, value in basis.further)
    assumptions = h("ul", *(h("li", words) for words in basis.assumptions)) if basis.assumptions else None
    how = h("details", h("summary", "How it was counted"), facts(basis.facts, "stack"), assumptions)
    return h(
        "article",
        h("h3", basis.name.capitalize(), id=f"basis-{basis.name}"),
        figures,
        h("p", basis.meaning, cls="meaning"),
        *further,
        how if basis.facts or basis.assumptions else None,
        cls="card",
        aria_labelledby=f"basis-{basis.name}",
    )


def reconciliation_section(comparisons: Iterable[Comparison]) -> Html:
    intro = "Two counts of the same work, where both exist, are compared."
    return section(
        "reconciliation",
        "Reconciliation",
        h("p", intro, cls="intro"),
        h("ul", *map(_comparison, comparisons), cls="pairs"),
    )


def _comparison(one: Comparison) -> Html:
    warning = text(h("br"), h("strong", one.warning, cls="warning mono")) if one.warning else None
    margin = f", margin {one.margin}" if one.margin else None
    return h(
        "li",
        h("h3", chip(_LOOKS.get(one.word, "indeterminate"), one.word), " ", one.name),
        h("p", h("strong", one.ratio, cls="num"), margin, warning),
        h("p", one.text) if one.text else None,
        h("p", one.between, cls="note") if one.between else None,
    )
