"""A report for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from flopsd.report.contents.device_groups import DeviceGroup, alike, equal
from flopsd.report.contents.model import (
    NO_FIELD,
    Basis,
    Content,
    Fact,
    Form,
    Member,
    Report,
    ReportRule,
    ReportState,
    Share,
)
from flopsd.report.contents.verdicts import drawn_and_listed, shown_of, words_of
from flopsd.report.numbers import NO_MEASURED, NOTHING_MEASURED, Interval
from flopsd.report.rule_words import source_of
from flopsd.report.terminal import COLUMNS, fact, folded, shown, stated, table, title, wrapped

MAX_SHOWN = 16  # rows of a table; the HTML report has more
_LABEL = 24
NO_FORM = "This ledger has no figures for the Form."


def report_text(report: Report) -> str:
    """The report for a terminal; the HTML report has the same and more."""
    lines = list(_head(report))
    if report.content is not None:
        lines += _content(report.content, report.caveat)
    for words, command in report.proof.commands[: 1 if report.content is None else 2]:
        lines += ["", *wrapped(f"{words}:"), *folded(command)]
    return shown(lines)


def _form(form: Form) -> Iterator[str]:
    for one in form.lines:
        yield from wrapped(f"{one.field}:")
        national = one.national or NO_FIELD
        rows = (("  AI Office", one.ai_office), ("  national authorities", national), ("  note", one.note))
        yield from _named(rows)
    if form.notification:
        yield from ("", "Text for a notification:")
        for words in form.notification:
            yield from wrapped(words, "  ")


def form_report(report: Report) -> str:
    """The Form's figures under the report's head."""
    lines = list(_head(report))
    if report.content is not None:
        form, label = report.content.form, f"Figures {report.caveat}: not fit for filing." if report.caveat else ""
        lines += ["", NO_FORM] if form is None else ["", *wrapped(label), *_form(form)]
    return shown(lines)


def _head(report: Report) -> Iterator[str]:
    yield from wrapped(report.title)
    yield "=" * COLUMNS
    yield from wrapped(report.check.text)
    for line in report.check.lines:
        yield from wrapped(line, "  ")
    if report.check.hint:
        yield from wrapped(report.check.hint, "  ")
    for flag in report.flags:
        yield from wrapped(f"{flag.word}: {flag.text}")
    yield from wrapped(f"payload sha256 {report.digest}")
    yield f"report {report.made}"


def _content(content: Content, caveat: str) -> Iterator[str]:
    yield from title(f"Answer {caveat}".rstrip())
    yield from wrapped(content.answer.headline)
    for words in (*content.answer.only_if, *content.answer.sentences):
        yield from wrapped(words, "  ")
    drawn, listed = drawn_and_listed(content.rules)
    for _, same in groupby(drawn, shown_of):
        yield ""
        yield from _rules(list(same), caveat)
    for rule in listed:
        yield ""
        yield from _brief_rule(rule, caveat)
    if content.other_rules:
        yield ""
        yield "Not applicable:"
        for rule in content.other_rules:
            yield from wrapped(f"{rule.title}: {rule.why}", "  ")
    if content.advice:
        yield ""
        yield from wrapped(content.advice)
    if content.completeness is not None and content.completeness.missing:
        yield from title("Missing")
        for words in content.completeness.missing:
            yield from wrapped(words, "  ")
        if content.completeness.missing_left_out:
            yield f"  and {content.completeness.missing_left_out} more"
    yield from title("Three bases of counting")
    for basis in content.bases:
        yield from _basis(basis)
    if content.comparisons:
        yield from title("Reconciliation")
        for one in content.comparisons:
            yield from fact(one.name, f"{one.ratio}, {one.margin}: {one.word.lower()}", _LABEL)
            for words in (one.between, one.warning, one.text):
                yield from wrapped(words, " " * _LABEL)
    yield from title("How it is known")
    yield from _shares(content.evidence)
    if content.phases:
        yield from title("By phase")
        yield from _shares(content.phases)
    yield from title("Coverage and energy")
    yield from fact("Coverage", content.coverage.observed, _LABEL)
    yield from _facts(content.coverage.facts)
    for lost in content.coverage.reasons:
        yield from fact(f"  {lost.reason}", f"{lost.time.text}  {lost.meaning}", _LABEL)
    yield from _facts(content.energy)
    yield from title("What was metered")
    yield from _facts(content.facts)
    yield from _tables(content)
    yield from title("Declared")
    yield from _declared(content)
    if content.form is not None:
        yield from title("Model Documentation Form")
        yield from _form(content.form)
    yield from title("Method")
    yield from _facts(content.method.facts)
    if content.items:
        yield from title("Attached evidence")
        for item in content.items:
            yield from fact(item.name, f"{item.state}: {item.text}", _LABEL)
    yield from title("What it states, and what it does not")
    yield from wrapped(content.claims)
    yield from wrapped(content.does_not_claim)
    yield from wrapped(content.isolation) if content.isolation else ()


def _verdict(rule: ReportRule, caveat: str) -> list[str]:
    return wrapped(f"{rule.word.upper()}{f' ({caveat})' if caveat else ''}: {rule.title}")


def _brief_rule(rule: ReportRule, caveat: str) -> Iterator[str]:
    """A rule in short: graver or nearer rules decide."""
    yield from _verdict(rule, caveat)
    limit = "" if rule.threshold is None else f"{rule.threshold.text} FLOP"
    rows = (
        ("  figures", words_of(rule.value, NO_MEASURED)),
        ("  threshold", "; ".join(filter(None, (limit, rule.share and f"share of it {rule.share}")))),
        ("  why", rule.why if rule.state is ReportState.INDETERMINATE else ""),
        ("  assumes", rule.assumes),
        ("  not decided", "; ".join(rule.other_conditions)),
        ("  source", source_of(rule.citation, rule.status)),
    )
    yield from _named(rows)


def _rules(rules: Sequence[ReportRule], caveat: str) -> Iterator[str]:
    """One rule, or several with the same result."""
    for rule in rules:
        yield from _verdict(rule, caveat)
    rule = rules[0]
    if rule.threshold is not None:
        yield from fact("  threshold", f"{rule.threshold.text} FLOP", _LABEL)
    yield from _interval("  ", rule.value, "measured", NO_MEASURED)
    yield from _named((("  share of it", rule.share), ("  why", rule.why)))
    for rule in rules:
        if len(rules) > 1:
            yield from wrapped(f"{rule.title}:", "  ")
        follows = "" if rule.state is ReportState.BELOW else rule.consequence
        rows = (
            ("  figures are of", rule.quantity),
            ("  assumes", rule.assumes),
            ("  what follows" if rule.state is ReportState.ABOVE else "  if it is above", follows),
            ("  not decided", "; ".join(rule.other_conditions)),
            ("  source", source_of(rule.citation, rule.status)),
        )
        yield from _named(rows)


def _named(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, words in stated(rows):
        yield from fact(name, words, _LABEL)


def _basis(basis: Basis) -> Iterator[str]:
    yield from wrapped(f"{basis.name.capitalize()}: {basis.meaning}")
    if basis.value is None:
        yield from wrapped(basis.absent, "  ")
    else:
        yield from _interval("  ", basis.value, basis.middle, basis.no_middle)
        for name, value in basis.further:
            yield from wrapped(f"{name}:", "  ")
            yield from _interval("    ", value, basis.middle, basis.no_middle)
    yield from _facts(basis.facts, "  ")


def _interval(indent: str, value: Interval, middle: str, absent: str) -> Iterator[str]:
    for name, text in value.facts(absent, middle):
        yield from fact(indent + name, text, _LABEL)


def _shares(shares: Iterable[Share]) -> Iterator[str]:
    for share in shares:
        measured = "not measured" if share.value.measured is None else f"measured {share.value.measured.text}"
        yield from fact(share.name, f"{measured}; {share.value.ends}", _LABEL)


def _tables(content: Content) -> Iterator[str]:
    if content.devices:
        yield from title("Devices")
        for group in alike(content.devices[:MAX_SHOWN]):
            one = group.first
            yield from wrapped(f"{group.indices}: {one.model}")
            yield from fact("   known by", one.evidence + (f" ({one.note})" if one.note else ""), _LABEL)
            for same in equal(group.devices):
                yield from _devices(same)
        yield from _more(len(content.devices) - MAX_SHOWN + content.devices_left_out)
    yield from _members("Nodes", content.nodes, content.members_left_out)
    yield from _members("Ledgers", content.children, content.members_left_out)


def _devices(same: DeviceGroup) -> Iterator[str]:
    each = " each" if len(same.devices) > 1 else ""
    for one in same.devices:
        yield f"   {one.index:<3}{one.uuid}  serial {one.serial}"[:COLUMNS]
    yield from fact(f"      FLOP{each}", _brief(same.first.value), _LABEL)
    yield from fact("      observed, energy", f"{same.first.observed}, {same.first.energy}", _LABEL)


def _members(heading: str, members: Sequence[Member], left_out: int) -> Iterator[str]:
    if not members:
        return
    yield from title(heading)
    for member in members[:MAX_SHOWN]:
        yield from wrapped(f"{member.name} ({member.where}){': ' + member.note if member.note else ''}")
        yield from fact("   FLOP", _brief(member.value), _LABEL)
        yield from fact("   observed, energy", f"{member.observed}, {member.energy}", _LABEL)
    yield from _more(max(0, len(members) - MAX_SHOWN) + left_out)


def _more(count: int) -> Iterator[str]:
    if count > 0:
        yield f"and {count} more, which the figures above include"


def _brief(value: Interval) -> str:
    return f"{NOTHING_MEASURED if value.measured is None else value.measured.text} ({value.ends})"


def _declared(content: Content) -> Iterator[str]:
    declared = content.declared
    yield from _facts(declared.job)
    yield from _facts(declared.processes)
    yield from _facts(declared.work)
    if (seen := declared.kernels) is not None:
        yield from fact("Kernels", f"{seen.sampled} {seen.whose}", _LABEL)
        yield from table([(f"   {one.name}", one.share, one.time, one.launches) for one in seen.classes], (1, 2, 3))
    if declared.no_process:
        yield declared.no_process


def _facts(facts: Iterable[Fact], indent: str = "") -> Iterator[str]:
    for one in facts:
        yield from fact(indent + one.name, one.value + (f" ({one.by})" if one.by else ""), _LABEL)
