"""Gaps and sources on the page: which device time is missing, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

from flopsd.core.policy.finding import OPERATOR_COUNT
from flopsd.report.contents.coverage import BUT_COUNTED, REASONS
from flopsd.report.html.kit import Html, h, text
from flopsd.report.html.parts import icon, row, section, table
from flopsd.report.ledger_json import may_be_longer
from flopsd.report.terminal import counted, sentence
from flopsd.telemetry.status_text import ELSEWHERE, gap_time, ledger_facts, stopped_text


def gaps_part(facts: Mapping[str, Any]) -> Html:
    found: dict[str, list[tuple[int, Fraction]]] = {}
    stopped = stopped_text(facts)
    warning = [h("p", sentence(stopped), cls="warning")] if stopped else []
    for device in facts["devices"]:
        for reason, time in device["gapSecondsByReason"].items():
            found.setdefault(reason, []).append((device["index"], Fraction(time)))
    if not found:
        none = "None while a daemon ran." if stopped else "None: readings cover all device time so far."
        if not facts["devices"]:
            none = "Not known: no device is metered."
        elif not Fraction(facts["jobSeconds"]):
            none = "Not known: no device was read yet."
        return section("gaps", "Gaps", h("p", none, cls="absent"), *warning)
    heads = (("Reason", None), ("Device time", "n"), ("Device", None))
    rows = [
        row(
            heads,
            text(reason, h("span", REASONS.get(reason, ""), cls="sub")),
            gap_time({reason: sum(one for _, one in parts)}),
            ", ".join(str(index) for index, _ in parts),
        )
        for reason, parts in sorted(found.items(), key=lambda item: -sum(one for _, one in item[1]))
    ]
    caption = f"Device time without readings. {_counts(facts, found)}"
    return section("gaps", "Gaps", table("Gaps by reason", caption, heads, rows), *warning)


def _counts(facts: Mapping[str, Any], reasons: Collection[str]) -> str:
    """What the time of these gaps adds to the figures."""
    if may_be_longer(dict.fromkeys(reasons)):
        return "Some gaps are of unknown length, so no upper bound is known."
    if ELSEWHERE.issuperset(reasons):
        return "It is in no figure here."
    if facts["executed"]["high"] is None:
        return "It may hold any amount of work, so no upper bound is known."
    apart = "" if ELSEWHERE.isdisjoint(reasons) else ", but time that is not counted is in no figure here"
    but = BUT_COUNTED if any(OPERATOR_COUNT in one["evidence"] for one in facts["devices"]) else ""
    return f"It counts in the upper bound only{but}{apart}."


def sources_part(facts: Mapping[str, Any]) -> Html:
    cards = [_source(one) for one in facts["sources"]]
    journal = facts["journal"]
    title = h("strong", "The journal cannot be written: ")
    fault = h("p", title, journal["fault"], ". Totals are in memory only.", cls="warning")
    words = h("p", f"{counted(journal['records'], 'record')} in the journal.", cls="note")
    troubles = [
        h("p", h("strong", f"{label.capitalize()}: "), words, ".", cls="warning")
        for label, words in ledger_facts(facts)
    ]
    return section(
        "sources",
        "Sources",
        h("div", *cards, cls="checks") if cards else h("p", "No source.", cls="absent"),
        fault if journal["fault"] else words,
        *troubles,
    )


def _source(source: Mapping[str, Any]) -> Html:
    state = "up" if source["up"] else "down"
    errors = ", ".join(f"{count} {reason}" for reason, count in source["errors"].items())
    at = source["lastReadingAt"]
    last = "No reading yet."
    if at is not None:
        gaps = f" Readings that became gaps: {errors}." if errors else ""
        last = f"Last reading {at[:10]} {at[11:19]} UTC.{gaps}"
    says = f"{source['name']} is {state}" + (f": {source['reason']}" if source["reason"] else "")
    lines = h("div", h("p", says, cls="says"), h("p", last))
    return h("div", icon(state), lines, cls=f"check check-{'verified' if source['up'] else 'refused'}")
