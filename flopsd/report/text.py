"""A report for the terminal: 80 columns, no colour."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from flopsd.report.model import Basis, Content, Fact, Form, Member, Report, ReportRule, ReportState, Share
from flopsd.report.numbers import GROUP, NO_MEASURED, NO_UPPER_BOUND, NOTHING_MEASURED, Interval

COLUMNS = 80
MAX_SHOWN = 16  # rows of a table; the HTML report has more of them
_LABEL = 24
NO_FORM = "This ledger gives no figures for the Form."


def report_text(report: Report) -> str:
    """All that a reader needs; the HTML report has the same and more."""
    lines = list(_head(report))
    if report.content is not None:
        lines += _content(report.content)
    for words, command in report.proof.commands[: 1 if report.content is None else 2]:
        lines += ["", *_wrapped(f"{words}:"), f"  {command}"]
    return _joined(lines)


def _form(form: Form) -> Iterator[str]:
    for one in form.lines:
        yield from _wrapped(f"{one.field}:")
        yield from _fact("  to the AI Office", one.ai_office)
        if one.national:
            yield from _fact("  to national", one.national)
        if one.note:
            yield from _fact("  note", one.note)
    if form.notification:
        yield from ("", "Text for a notification:")
        for words in form.notification:
            yield from _wrapped(words, "  ")


def form_report(report: Report) -> str:
    """The Form's figures under the report's head."""
    lines = list(_head(report))
    if report.content is not None:
        form = report.content.form
        lines += ["", NO_FORM] if form is None else ["", *_form(form)]
    return _joined(lines)


def _joined(lines: Iterable[str]) -> str:
    """Lines are wrapped by now, so the spaces within numbers may be plain ones."""
    return "\n".join(lines).replace(GROUP, " ") + "\n"


def _head(report: Report) -> Iterator[str]:
    yield from _wrapped(report.title)
    yield "=" * COLUMNS
    yield from _wrapped(report.check.says)
    for line in report.check.lines:
        yield from _wrapped(line, "  ")
    if report.check.hint:
        yield from _wrapped(report.check.hint, "  ")
    for flag in report.flags:
        yield from _wrapped(f"{flag.word}: {flag.says}")
    yield from _wrapped(f"payload sha256 {report.digest}")
    yield f"report {report.made}"


def _content(content: Content) -> Iterator[str]:
    yield from _title("Answer")
    yield from _wrapped(content.answer.headline.upper())
    for words in content.answer.says:
        yield from _wrapped(words, "  ")
    for rule in content.rules:
        yield ""
        yield from _rule(rule)
    if content.other_rules:
        yield ""
        yield "Rules that do not apply:"
        for rule in content.other_rules:
            yield from _wrapped(f"{rule.title}: {rule.why}", "  ")
    if content.advice:
        yield ""
        yield from _wrapped(content.advice)
    if content.completeness is not None and content.completeness.missing:
        yield from _title("Missing")
        for words in content.completeness.missing:
            yield from _wrapped(words, "  ")
        if content.completeness.missing_left_out:
            yield f"  and {content.completeness.missing_left_out} more"
    yield from _title("Three bases of counting")
    for basis in content.bases:
        yield from _basis(basis)
    if content.comparisons:
        yield from _title("Reconciliation")
        for one in content.comparisons:
            yield from _fact(one.name, f"{one.ratio}, margin {one.margin or 'none'}: {one.word.lower()}")
            for words in (one.between, one.warning, one.says):
                yield from _wrapped(words, " " * _LABEL)
    yield from _title("How it is known")
    yield from _shares(content.evidence)
    if content.phases:
        yield from _title("By phase")
        yield from _shares(content.phases)
    yield from _title("Coverage and energy")
    yield from _fact("Coverage", content.coverage.observed)
    yield from _facts(content.coverage.facts)
    for share in content.coverage.reasons:
        time = "" if share.time is None else share.time.text
        yield from _fact(f"  {share.name}", f"{time}  {share.meaning}")
    yield from _facts(content.energy)
    yield from _title("What was metered")
    yield from _facts(content.facts)
    yield from _tables(content)
    yield from _title("Declared")
    yield from _declared(content)
    if content.form is not None:
        yield from _title("Model Documentation Form")
        yield from _form(content.form)
    yield from _title("Method")
    yield from _facts(content.method.facts)
    if content.items:
        yield from _title("Attached evidence")
        for item in content.items:
            yield from _fact(item.name, f"{item.state}: {item.says}")
    yield from _title("What it says, and what not")
    yield from _wrapped(content.claims)
    yield from _wrapped(content.does_not_claim)


def _rule(rule: ReportRule) -> Iterator[str]:
    yield from _wrapped(f"{rule.word.upper()}: {rule.title}")
    if rule.threshold is not None:
        yield from _fact("  threshold", f"{rule.threshold.text} FLOP")
    if rule.value is not None:
        yield from _interval("  ", rule.value, "measured", NO_MEASURED)
    if rule.share:
        yield from _fact("  share of it", rule.share)
    yield from _fact("  figures are of", rule.quantity)
    follows = "" if rule.state is ReportState.BELOW else rule.consequence
    named = (
        ("  why", rule.why),
        ("  assumes", rule.assumes),
        ("  what follows" if rule.state is ReportState.ABOVE else "  if it is above", follows),
        ("  source", rule.citation + (", as flopsd reads it" if rule.reading else "")),
    )
    for name, words in named:
        if words:
            yield from _fact(name, words)


def _basis(basis: Basis) -> Iterator[str]:
    yield from _wrapped(f"{basis.title}: {basis.meaning}")
    if basis.value is None:
        yield from _wrapped(basis.absent, "  ")
    else:
        yield from _interval("  ", basis.value, basis.middle, basis.no_middle)
        for name, value in basis.further:
            yield from _wrapped(f"{name}:", "  ")
            yield from _interval("    ", value, basis.middle, basis.no_middle)
    yield from _facts(basis.facts, "  ")


def _interval(indent: str, value: Interval, middle: str, absent: str) -> Iterator[str]:
    measured = absent if value.measured is None else f"{value.measured.text} FLOP"
    high = NO_UPPER_BOUND if value.high is None else f"{value.high.text} FLOP"
    yield from _fact(f"{indent}{middle}", measured)
    yield from _fact(f"{indent}at least", f"{value.low.text} FLOP")
    yield from _fact(f"{indent}at most", high)


def _shares(shares: Iterable[Share]) -> Iterator[str]:
    for share in shares:
        if share.value is not None:
            measured = "not measured" if share.value.measured is None else f"measured {share.value.measured.text}"
            yield from _fact(share.name, f"{measured}; {share.value.ends}")


def _tables(content: Content) -> Iterator[str]:
    if content.devices:
        yield from _title("Devices")
        for device in content.devices[:MAX_SHOWN]:
            yield from _fact(f"{device.index}  {device.uuid}"[:COLUMNS], "")
            yield from _fact("   model", f"{device.model}, serial {device.serial}")
            yield from _fact("   FLOP", _brief(device.value))
            yield from _fact("   observed, energy", f"{device.observed}, {device.energy}")
            yield from _fact("   known by", device.evidence + (f" ({device.note})" if device.note else ""))
        yield from _more(len(content.devices) - MAX_SHOWN + content.devices_left_out)
    yield from _members("Nodes", content.nodes, content.members_left_out)
    yield from _members("Ledgers", content.children, content.members_left_out)


def _members(title: str, members: Sequence[Member], left_out: int) -> Iterator[str]:
    if not members:
        return
    yield from _title(title)
    for member in members[:MAX_SHOWN]:
        yield from _wrapped(f"{member.name} ({member.where}){': ' + member.note if member.note else ''}")
        yield from _fact("   FLOP", _brief(member.value))
        yield from _fact("   observed, energy", f"{member.observed}, {member.energy}")
    yield from _more(max(0, len(members) - MAX_SHOWN) + left_out)


def _more(count: int) -> Iterator[str]:
    if count > 0:
        yield f"and {count} more, which the figures above hold too"


def _brief(value: Interval) -> str:
    return f"{NOTHING_MEASURED if value.measured is None else value.measured.text} ({value.ends})"


def _declared(content: Content) -> Iterator[str]:
    declared = content.declared
    if not declared.told:
        yield "Nothing was declared."
        return
    yield from _facts(declared.job)
    yield from _facts(declared.processes)
    yield from _facts(declared.work)
    if not declared.sessions:
        yield "No training process declared anything."


def _title(title: str) -> Iterator[str]:
    yield from ("", title, "-" * len(title))


def _facts(facts: Iterable[Fact], indent: str = "") -> Iterator[str]:
    for fact in facts:
        yield from _fact(indent + fact.name, fact.value + (f" ({fact.by})" if fact.by else ""))


def _fact(name: str, value: str) -> Iterator[str]:
    """Name and value side by side, or one below the other where the name is long."""
    if len(name) > _LABEL - 2:
        yield from _wrapped(name)
        yield from _wrapped(value, " " * _LABEL) if value else ()
        return
    first = f"{name:<{_LABEL}}"
    yield from textwrap.wrap(value, COLUMNS, initial_indent=first, subsequent_indent=" " * _LABEL) or [name]


def _wrapped(words: str, indent: str = "") -> list[str]:
    return textwrap.wrap(words, COLUMNS, initial_indent=indent, subsequent_indent=indent)
