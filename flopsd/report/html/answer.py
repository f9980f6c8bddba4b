"""The answer of a report in HTML: each rule and its threshold, the bases of counting, and their reconciliation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from flopsd.report.contents.charts import Axis
from flopsd.report.contents.model import Basis, Comparison, Content, ReportRule, ReportState, Share
from flopsd.report.contents.verdicts import common_reasons, drawn_and_listed, shown_of
from flopsd.report.html.kit import Html, h, text
from flopsd.report.html.parts import (
    FIGURE_HEADS,
    amount,
    chip,
    entry,
    facts,
    figure_cells,
    icon,
    none,
    row,
    rule_chart,
    rule_legend,
    section,
    table,
    triple,
)
from flopsd.report.numbers import NO_MEASURED, Interval
from flopsd.report.rule_words import not_decided, source_note
from flopsd.report.terminal import sentence

_LOOKS = {"Agree": "below", "Do not agree": "above"}


def answer_section(content: Content, caveat: str) -> Html:
    """`caveat`: the label of every verdict on a recording or an unverified ledger; such verdicts have no colour."""
    answer, axis = content.answer, content.axis
    state = "none" if caveat else answer.state.value
    drawn, listed = drawn_and_listed(content.rules)
    parts = [
        *(h("p", words, cls="lead") for words in (*answer.only_if, *answer.sentences)),
        *(_rules(list(same), axis, f"rule-{at}", caveat) for at, (_, same) in enumerate(groupby(drawn, shown_of), 1)),
        rule_legend() if axis is not None and drawn else None,
        _listed(listed, caveat) if listed else None,
        _not_applicable(content.other_rules) if content.other_rules else None,
        h("p", content.advice, cls="note") if content.advice else None,
    ]
    label = h("span", f"Answer {caveat}", cls="caveat") if caveat else None
    title = text(icon(state), h("span", label, answer.headline))
    return h(
        "section",
        h("h2", title, id="h-answer", cls=f"headline state-{state.replace(' ', '-')}"),
        *parts,
        id="answer",
        cls="answer muted" if caveat else "answer",
        aria_labelledby="h-answer",
    )


def _rules(rules: Sequence[ReportRule], axis: Axis | None, name: str, caveat: str) -> Html:
    """One rule, or several with the same result."""
    rule = rules[0]
    grounds = _grounds(rule)
    if len(rules) > 1:
        grounds = h("div", *(h("div", h("h4", one.title), _grounds(one)) for one in rules), cls="grounds")
    return h(
        "article",
        h("h3", _labelled(rule.state.value, rule.word, caveat), " ", "; ".join(one.title for one in rules), id=name),
        h(
            "dl",
            entry("Measured", _measured(rule)),
            entry("Interval", _ends(rule)),
            entry("Threshold", amount(rule.threshold) or none("not known")),
            entry("Share of it", rule.share or "not known"),
            cls="quad",
        ),
        None if rule.chart is None or axis is None else rule_chart(rule.chart, axis, name),
        _reason(rule),
        h("details", h("summary", "Why, on what grounds, and what follows"), grounds),
        cls="rule",
        aria_labelledby=name,
    )


def _labelled(state: str, word: str, caveat: str) -> Html:
    label = h("span", caveat, cls="caveat") if caveat else None
    return text(chip("none" if caveat else state, word), label)


def _measured(rule: ReportRule) -> Html:
    return amount(rule.value.measured) or none(NO_MEASURED)


def _ends(rule: ReportRule) -> Html:
    return text(amount(rule.value.low, ""), " to ", amount(rule.value.high) or none("no upper bound"))


def _listed(rules: Sequence[ReportRule], caveat: str) -> Html:
    heads = (
        ("Rule", None),
        (f"Verdict {caveat}".rstrip(), None),
        ("Measured", "n"),
        ("Interval", "n"),
        ("Threshold", "n"),
        ("Share of it", None),
    )
    rows = (
        row(
            heads,
            rule.title,
            chip("none" if caveat else rule.state.value, rule.word),
            _measured(rule),
            _ends(rule),
            amount(rule.threshold) or none("not known"),
            rule.share or "not known",
        )
        for rule in rules
    )
    common = common_reasons(rules) if len(rules) > 1 else ()
    grounds = (h("div", h("h4", rule.title), _grounds(rule, common)) for rule in rules)
    of_all = h("p", f"Of each: {'; '.join(common)}.", cls="reason") if common else None
    return text(
        table("Further rules", "Further rules", heads, rows, cls="rules"),
        h("details", h("summary", "Why, and on what grounds, of each of these"), of_all, *grounds, cls="grounds"),
    )


def _reason(rule: ReportRule) -> Html | None:
    if rule.state is ReportState.ABOVE:
        follows = (h("strong", "What follows."), " ", rule.consequence) if rule.consequence else ()
        alone = f" {sentence(not_decided(rule.other_conditions))}" if rule.other_conditions else ""
        return h("p", *follows, alone, cls="reason") if follows or alone else None
    if rule.state is not ReportState.INDETERMINATE:
        return None
    return h("p", " ".join(filter(None, (rule.text, sentence(rule.why)))), cls="reason")


def _grounds(rule: ReportRule, said: Collection[str] = ()) -> Html:
    """The grounds of a rule. `said`: reasons that are shown elsewhere already."""
    why = "; ".join(part for part in rule.why.split("; ") if part not in said)
    beside = source_note(rule.status)
    source = text(rule.citation, *((" ", h("span", beside, cls="by")) if beside else ()))
    rows = (
        ("Why", "" if rule.state is ReportState.INDETERMINATE else why),  # `_reason` has it
        ("What is compared", rule.quantity),
        ("Assumes", rule.assumes),
        ("Not decided here", "; ".join(rule.other_conditions)),
        ("Source", source if rule.citation else ""),
        ("If it is above", rule.consequence if rule.state is ReportState.INDETERMINATE else ""),
        ("Applies from", rule.since),
    )
    entries = (entry(name, value) for name, value in rows if value)
    return h("dl", *entries, h("div", h("dt", "Rule"), h("dd", rule.name, cls="mono")), cls="facts run-in")


def _not_applicable(rules: Sequence[ReportRule]) -> Html:
    rows = (entry(rule.title, text(rule.why or rule.text, " ", h("span", rule.citation, cls="by"))) for rule in rules)
    return h("details", h("summary", f"Not applicable: {len(rules)}"), h("dl", *rows, cls="facts"), cls="others")


def bases_section(content: Content) -> Html:
    intro = "The same work counted in three ways. They answer different questions, so none replaces another."
    executed = content.bases[0].value
    return section(
        "bases",
        "Three bases of counting",
        h("p", intro, cls="intro"),
        h("div", *map(_basis, content.bases), cls="cards"),
        h("h3", "How the executed figure is known"),
        _breakdown("evidence", "Executed compute by evidence, strongest first, in FLOP", content.evidence, executed)
        or h("p", "Nothing was read."),
        _breakdown("phase", "Executed compute by declared phase, in FLOP", content.phases, executed),
    )


def _breakdown(by: str, caption: str, shares: Sequence[Share], whole: Interval | None) -> Html | None:
    """The parts of the executed compute as a table; a sentence if one part is all of it."""
    if not shares:
        return None
    first = shares[0]
    if len(shares) == 1 and first.value == whole:
        meaning = f" ({first.meaning})" if first.meaning else None
        return h("p", h("strong", f"All of it by {by}: {first.name}"), meaning)
    heads = ((by.capitalize(), None), *FIGURE_HEADS, ("What it is", None))
    rows = (row(heads, one.name, *figure_cells(one.value, "not measured"), one.meaning) for one in shares)
    return table(f"Executed compute by {by}", caption, heads, rows)


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


def reconciliation_section(comparisons: Iterable[Comparison], caveat: str) -> Html:
    intro = "Two counts of the same work, and energy and work of the same time, where both exist, are compared."
    return section(
        "reconciliation",
        "Reconciliation",
        h("p", intro, cls="intro"),
        h("ul", *(_comparison(one, caveat) for one in comparisons), cls="pairs muted" if caveat else "pairs"),
    )


def _comparison(one: Comparison, caveat: str) -> Html:
    warning = text(h("br"), h("strong", one.warning, cls="warning mono")) if one.warning else None
    return h(
        "li",
        h("h3", _labelled(_LOOKS.get(one.word, "indeterminate"), one.word, caveat), " ", one.name),
        h("p", h("strong", one.ratio, cls="num"), f", {one.margin}", warning),
        h("p", one.text) if one.text else None,
        h("p", one.between, cls="note") if one.between else None,
    )
