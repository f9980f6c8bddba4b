"""The status page: health, total, rate, thresholds, devices, gaps, sources. One file without external resources."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from flopsd.core.figures import figures_from
from flopsd.report.claims import AS_CLAIMED, claims_text, holds_counts
from flopsd.report.html.kit import Html, h
from flopsd.report.html.parts import entry, or_none, patterns, section, triple
from flopsd.report.numbers import NOTHING_MEASURED, beyond_margin, integer_facts, interval
from flopsd.report.terminal import sentence
from flopsd.telemetry.page.banner import REFRESH_SECONDS, banner, header
from flopsd.telemetry.page.devices import devices_part
from flopsd.telemetry.page.gaps import gaps_part, sources_part
from flopsd.telemetry.page.sparkline import sparkline
from flopsd.telemetry.page.thresholds import thresholds_part
from flopsd.telemetry.status_text import coverage_text, lone_node, rate_text

_REPORT_ALONE = "/* Only the report has what follows. */"
_ADVICE = "The thresholds are an indicative criterion, not legal advice. The ledger, not this page, is the record."


class Assets:
    """Style and script, read once, and the Content-Security-Policy that allows nothing but these."""

    def __init__(self) -> None:
        package = files("flopsd")
        report = (package / "report" / "report.css").read_text(encoding="utf-8")
        page = (package / "telemetry" / "page" / "status.css").read_text(encoding="utf-8")
        self.style = report[: report.index(_REPORT_ALONE)] + page
        self.script = (package / "telemetry" / "page" / "status.js").read_text(encoding="utf-8")
        self.policy = (
            f"default-src 'none'; style-src '{_digest(self.style)}'; script-src '{_digest(self.script)}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


def status_page(facts: Mapping[str, Any], assets: Assets) -> str:
    """The whole page. All its figures are in #live, which the script updates."""
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
    parts = (
        _total(facts),
        thresholds_part(facts["thresholds"], lone_node(facts)),
        devices_part(facts),
        gaps_part(facts),
        sources_part(facts),
    )
    return [
        banner(facts["health"]),
        header(facts),
        h("div", h("main", *parts, id="main", tabindex="-1"), cls="page"),
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


def _total(facts: Mapping[str, Any]) -> Html:
    wide = beyond_margin(figures_from(facts["guidelines"]))
    executed, counts = interval(figures_from(facts["executed"])), interval(figures_from(facts["guidelines"]))
    integers, *mixed = (
        words for _, words in integer_facts(facts["mayBeIntegerFlop"], figures_from(facts["integerOperations"]))
    )
    counted = holds_counts(*(device["evidence"] for device in facts["devices"]))
    claims = claims_text(facts["guidelines"])
    under = filter(None, (sentence(wide), f"{AS_CLAIMED}: {claims}." if claims else ""))
    return section(
        "total",
        "Compute so far",
        h(
            "div",
            _card(
                "Executed",
                triple(executed, NOTHING_MEASURED),
                " ".join(
                    filter(
                        None, (f"Integer operations, counted separately: {integers}.", *map(sentence, mixed), counted)
                    )
                ),
            ),
            _card(
                "Counts as training compute",
                triple(counts, "no single figure"),
                " ".join(under) or "Under the Commission's Guidelines.",
            ),
            _card(
                "Rate, measured",
                h(
                    "dl",
                    entry("Now", or_none(None if facts["measuredFlopPerSecond"] is None else rate_text(facts)), "main"),
                    entry("Observed", coverage_text(facts)),
                    cls="triple now",
                ),
                sparkline(facts["rateHistory"]),
            ),
            cls="cards",
        ),
    )


def _card(title: str, content: Html, more: Html | str | None) -> Html:
    below = h("p", more, cls="meaning") if more is not None and not isinstance(more, Html) else more
    return h("div", h("h3", title), content, below, cls="card")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
