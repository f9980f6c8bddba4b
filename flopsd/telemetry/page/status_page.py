"""The status page: total, rate, distance to each threshold, devices, gaps, sources. One file, nothing from outside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from flopsd.core.rounding import format_rate
from flopsd.report.answer import answer_of
from flopsd.report.claims import AS_CLAIMED, claims_text
from flopsd.report.html_kit import Html, h, text
from flopsd.report.html_parts import chip, entry, icon, or_none, patterns, rule_chart, rule_legend, section, triple
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.model import ReportRule, ReportState
from flopsd.report.numbers import NOTHING_MEASURED, beyond_margin, figures_in, integers_text, interval
from flopsd.report.rule_words import beside_source
from flopsd.report.terminal import counted
from flopsd.report.threshold_text import crossing_text
from flopsd.report.verdicts import rules_of
from flopsd.telemetry.page.devices import devices_part, gaps_part, sources_part
from flopsd.telemetry.status_text import coverage_text

REFRESH_SECONDS = 10  # without a script; with it the page is asked for every two seconds
_ADVICE = (
    "The thresholds are an indicative criterion and this is no legal advice. The ledger, not this page, is the record."
)


class Assets:
    """Style and script, read once, and the policy that allows them and nothing else."""

    def __init__(self) -> None:
        package = files("flopsd")
        report = (package / "report" / "report.css").read_text(encoding="utf-8")
        page = (package / "telemetry" / "page" / "status.css").read_text(encoding="utf-8")
        self.style = report[: report.index("@page")] + page
        self.script = (package / "telemetry" / "page" / "status.js").read_text(encoding="utf-8")
        self.policy = (
            f"default-src 'none'; style-src '{_digest(self.style)}'; script-src '{_digest(self.script)}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


def status_page(facts: Mapping[str, Any], assets: Assets) -> str:
    """The whole page. All of its figures are in #live, which the script brings up to date."""
    run = str(facts["run"])
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("title", f"{run} · flopsd"),
        h("link", rel="icon", href="data:,"),
        h("noscript", h("meta", http_equiv="refresh", content=REFRESH_SECONDS)),
        h("style", Html(assets.style)),
    )
    body = h(
        "body",
        h("a", "Skip to the figures", cls="skip", href="#main"),
        patterns(),
        h("div", *_live(facts), id="live"),
        h("script", Html(assets.script)),
    )
    return "<!doctype html>\n" + h("html", head, body, lang="en") + "\n"


def _live(facts: Mapping[str, Any]) -> list[Html]:
    words = "of a recording: no hardware is metered, and nothing here is evidence."
    replay = h(
        "aside", icon("grave"), h("span", h("strong", "REPLAY"), " ", words), cls="everywhere", aria_label="Recording"
    )
    return [
        *([replay] if facts["replay"] else []),
        _header(facts),
        h(
            "div",
            h(
                "main",
                _total(facts),
                _thresholds(facts),
                devices_part(facts["devices"]),
                gaps_part(facts["devices"]),
                sources_part(facts),
                id="main",
                tabindex="-1",
            ),
            cls="page",
        ),
        h(
            "footer",
            h("p", _ADVICE),
            h(
                "p",
                h("a", "/metrics", href="metrics"),
                " for Prometheus, ",
                h("a", "/api/status", href="api/status"),
                f" as JSON. flopsd {facts['flopsdVersion']}",
            ),
            cls="foot",
        ),
    ]


def _header(facts: Mapping[str, Any]) -> Html:
    at = facts["lastRecordAt"]
    return h(
        "header",
        h("p", "Training compute, live", cls="eyebrow"),
        h("h1", facts["run"]),
        h(
            "p",
            "on ",
            h("span", facts["node"], cls="mono"),
            f", daemon start {facts['daemonStarts']}. Last record ",
            "not yet" if at is None else h("time", f"{at[:10]} {at[11:19]} UTC", datetime=at),
            ".",
            cls="id",
        ),
        h(
            "p",
            h("button", "Pause", type="button", id="pause", hidden=True),
            " ",
            h("span", f"Refreshes every {REFRESH_SECONDS} s.", id="freshness", role="status"),
            cls="freshness",
        ),
        cls="head",
    )


def _total(facts: Mapping[str, Any]) -> Html:
    wide = beyond_margin(figures_in(facts["guidelines"]))
    executed, counted = interval(figures_in(facts["executed"])), interval(figures_in(facts["guidelines"]))
    rate = facts["measuredFlopPerSecond"]
    integers = integers_text(figures_in(facts["integerOperations"]))
    return section(
        "total",
        "Compute so far",
        h(
            "div",
            _card(
                "Executed",
                f"Everything that the hardware did in floating point. Integer operations, beside it: {integers}.",
                triple(executed, NOTHING_MEASURED),
            ),
            _card(
                "Counts as training compute",
                "Under the Commission's Guidelines; an interval where not all is declared."
                + (f" {wide[:1].upper()}{wide[1:]}." if wide else "")
                + (f" {AS_CLAIMED}: {claims}." if (claims := claims_text(facts["guidelines"])) else ""),
                triple(counted, "no single figure: not all is declared"),
            ),
            _card(
                "Now",
                "",
                h(
                    "dl",
                    entry("Rate, measured", or_none(None if rate is None else format_rate(int(rate))), "main"),
                    entry("Observed", coverage_text(facts)),
                    cls="triple now",
                ),
            ),
            cls="cards",
        ),
    )


def _card(title: str, meaning: str, content: Html) -> Html:
    return h("div", h("h3", title), content, h("p", meaning, cls="meaning") if meaning else None, cls="card")


def _thresholds(facts: Mapping[str, Any]) -> Html:
    findings = facts["thresholds"]
    rules, others, axis = rules_of(LedgerObject({"findings": list(findings)}, "status"))
    answer = answer_of(rules, others)
    when = {f"{one['policy']}/{one['rule']}": one["crossing"] for one in findings}
    parts = []
    for at, rule in enumerate(rules):
        chart = None if axis is None or rule.chart is None else rule_chart(rule.chart, axis, f"rule-{at}")
        parts.append(_rule(rule, f"rule-{at}", when.get(rule.name), chart))
    state = answer.state.value
    title = text(icon(state), h("span", answer.headline))
    leads = [h("p", words, cls="lead") for words in (*answer.only_if, *answer.sentences)]
    drawn = None if axis is None or not rules else rule_legend()
    certain = [part for part, rule in zip(parts, rules, strict=True) if rule.applies] or parts[:1]
    folded, rest = [part for part in parts if part not in certain], None
    if folded:
        words = f"{counted(len(folded), 'further rule')} that may not apply"
        rest = h("details", h("summary", words), *folded, id="unsure")
    return section("thresholds", title, *leads, *certain, drawn, rest, cls=f"headline state-{state}")


def _rule(rule: ReportRule, name: str, crossing: Mapping[str, str | None] | None, drawn: Html | None) -> Html:
    value = None if rule.value is None else rule.value.ends
    entries = [
        entry("Interval", or_none(value)),
        entry("Threshold", or_none(None if rule.threshold is None else f"{rule.threshold.text} FLOP")),
        entry("Share of it", or_none(rule.share or None)),
    ]
    if crossing is not None and rule.state is not ReportState.ABOVE:
        words = crossing_text(crossing)
        entries.append(entry("At the mean rate", words[:1].upper() + words[1:]))
    why = f"{rule.text} {rule.why[:1].upper()}{rule.why[1:]}.".strip() if rule.why else rule.text
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
        h("p", ", ".join(filter(None, (rule.citation, beside_source(rule.status)))), cls="note"),
        cls="rule",
        aria_labelledby=name,
    )


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
