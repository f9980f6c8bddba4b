"""A report as one self-contained HTML file, without network access or scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from importlib.resources import files

from flopsd.report.contents.model import REPLAY, Content, Report, VerificationResult, VerificationState
from flopsd.report.html.answer import answer_section, bases_section, reconciliation_section
from flopsd.report.html.coverage import course_section, coverage_section
from flopsd.report.html.kit import Html, h, text, verbatim
from flopsd.report.html.parts import facts, icon, patterns, section
from flopsd.report.html.tables import declared_section, devices_section, form_section, members_section, method_section

_DOT = h("span", " · ", aria_hidden="true")
_PARTS = {
    "answer": "Answer", "bases": "Three bases", "reconciliation": "Reconciliation", "course": "Over time",
    "coverage": "Coverage", "members": "Ledgers", "devices": "Devices", "energy": "Energy", "declared": "Declared",
    "form": "Form", "method": "Method", "proof": "Proof",
}  # fmt: skip
_KEY_ADVICE = (
    "A signature proves that the holder of a key signed, not who that is: get the key, or its SHA-256, by another way "
    "than the ledger."
)


def report_html(report: Report) -> str:
    sections = {} if report.content is None else dict(_sections(report.content, report.caveat))
    sections["proof"] = _proof(report)
    body = h(
        "body",
        h("a", "Skip to the answer", cls="skip", href="#main"),
        patterns(),
        _replay(report),
        _header(report),
        h(
            "div",
            _contents(sections) if report.content is not None else None,
            h("main", *sections.values(), id="main", tabindex=-1),
            cls="body" if report.content is not None else "body alone",
        ),
        h("footer", h("p", report.subject, _DOT, "payload SHA-256 ", _mono(report.digest)), cls="foot"),
    )
    return "<!doctype html>\n" + h("html", _head(report), body, lang="en") + "\n"


def _head(report: Report) -> Html:
    style = _style(report)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="referrer", content="no-referrer"),
        h("meta", name="color-scheme", content="light dark"),
        h("title", report.title),
        h("style", Html(style)),
    )


def _style(report: Report) -> str:
    """The style sheet, with the header of printed pages. The page's policy allows only this sheet, by its digest."""
    folder = files("flopsd") / "report"
    sheet = "".join((folder / name).read_text(encoding="utf-8") for name in ("report.css", "print.css"))
    return sheet.replace('"RUNNING-HEADER"', css_string(page_line(report)))


def page_line(report: Report) -> str:
    """The header of every printed page."""
    words = [flag.word for flag in report.flags if flag.word == REPLAY]
    words.append(
        {VerificationState.VERIFIED: "verified", VerificationState.REFUSED: "REFUSED"}.get(
            report.check.state, "NOT VERIFIED"
        )
    )
    return " · ".join([report.subject, f"payload sha256 {report.digest[:16]}…", *words])


def css_string(characters: str) -> str:
    """Any text as a CSS string: every character but ASCII letters and digits is written as its code point."""
    escaped = (char if char.isascii() and char.isalnum() else f"\\{ord(char):06x}" for char in characters)
    return '"' + "".join(escaped) + '"'


def _replay(report: Report) -> Html | None:
    for flag in report.flags:
        if flag.word == REPLAY:
            words = h("span", h("strong", flag.word), " ", flag.text)
            return h("aside", icon("grave"), words, cls="everywhere", aria_label="Recording")
    return None


def _header(report: Report) -> Html:
    flags = (
        h("div", icon("grave"), h("div", h("p", flag.word, cls="says"), h("p", flag.text)), cls="check check-flag")
        for flag in report.flags
        if flag.word != REPLAY
    )
    verified = report.check.state is VerificationState.VERIFIED
    words = h(
        "div",
        h("p", "Compute report", _DOT, f"ledger of a {report.kind}", cls="eyebrow"),
        h("h1", report.title),
        h("p", "Payload SHA-256 ", _mono(report.digest), h("br"), f"Report made {report.made}", cls="id"),
        _check(report.check) if verified else None,
        *flags,
        cls="head",
    )
    return h("header", None if verified else _check(report.check), words)


def _check(check: VerificationResult) -> Html:
    """The result of verification; unless the ledger was verified, a banner as wide as the window."""
    state, kind, says = check.state.value, "check", text(check.text)
    if check.state is not VerificationState.VERIFIED:
        kind, word = "banner", state.upper()
        says = text(h("strong", word), " ", check.text.removeprefix(word).lstrip(": "))
    hint = h("p", _command(check.hint), cls="mono") if check.hint else None
    words = h("div", h("p", says, cls="says"), *(h("p", line) for line in check.lines), hint)
    return h("div", icon(state), words, cls=f"{kind} {kind}-{state.replace(' ', '-')}")


def _contents(names: Iterable[str]) -> Html:
    links = (h("li", h("a", _PARTS[name], href=f"#{name}")) for name in names if name in _PARTS)
    return h("nav", h("ol", *links), cls="toc", aria_label="Parts of this report")


def _sections(content: Content, caveat: str) -> Iterator[tuple[str, Html]]:
    """The sections that the ledger has, in order."""
    yield "answer", answer_section(content, caveat)
    yield "bases", bases_section(content)
    if content.comparisons:
        yield "reconciliation", reconciliation_section(content.comparisons, caveat)
    if content.course is not None:
        yield "course", course_section(content.course)
    yield "coverage", coverage_section(content.coverage)
    yield "metered", section("metered", "What was metered", facts(content.facts))
    if content.completeness is not None:
        yield "members", members_section(content, content.completeness)
    if content.devices:
        yield "devices", devices_section(content)
    yield "energy", section("energy", "Energy", facts(content.energy))
    yield "declared", declared_section(content.declared)
    if content.form is not None:
        yield "form", form_section(content.form, caveat)
    yield "method", method_section(content.method)


def _proof(report: Report) -> Html:
    content = report.content
    claims = items = None
    if content is not None:
        claims = h(
            "div",
            h("div", h("h3", "What the signature states"), h("p", content.claims)),
            h("div", h("h3", "What it does not state"), h("p", content.does_not_claim)),
            h("div", h("h3", "What the job could have done"), h("p", content.isolation)) if content.isolation else None,
            cls="claims",
        )
    if content is not None and content.items:
        lines = (
            h(
                "li",
                h("h4", f"{item.name}: {item.state}"),
                h("p", item.text),
                h("p", f"Proves: {item.proves} Limits: {item.limits}", cls="note")
                if item.proves and item.state != "absent"
                else None,
            )
            for item in content.items
        )
        items = text(h("h3", "Attached evidence"), h("ul", *lines, cls="pairs"))
    *shown, (words, script) = report.proof.commands
    return section(
        "proof",
        "Proof",
        claims,
        h("h3", "Digests"),
        facts(report.proof.facts, "facts digests"),
        items,
        h("h3", "Verify it yourself"),
        h("p", _KEY_ADVICE),
        *(text(h("p", f"{what}:", cls="cmd"), _code(_command(command))) for what, command in shown),
        h("details", h("summary", words), _code(verbatim(script)), cls="screen"),
    )


def _code(shown: Html) -> Html:
    return h("pre", h("code", shown), tabindex=0)


def _command(command: str) -> Html:
    """A command to copy. Options do not break at their hyphens."""
    words = (h("span", verbatim(w), cls="num") if w.startswith("--") else verbatim(w) for w in command.split(" "))
    return Html(" ".join(words))


def _mono(characters: str) -> Html:
    return h("span", characters, cls="mono")
