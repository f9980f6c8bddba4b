"""Devices, gaps and sources on the page: what is there, what is missing, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from flopsd.core.rounding import format_duration, format_rate
from flopsd.report.coverage import REASONS
from flopsd.report.html_kit import Html, h
from flopsd.report.html_parts import amount, entry, icon, none, or_none, section, share_bar, table
from flopsd.report.numbers import figures_in, interval

_EVIDENCE = {
    "cycles": "counted cycles",
    "activity": "measured, from percentages",
    "count": "the vendor's own count",
    "utilization": "a ceiling only",
    "gap": "nothing was read",
}


def devices_part(devices: Sequence[Mapping[str, Any]]) -> Html:
    if not devices:
        return section("devices", "Devices", h("p", "No device yet.", cls="absent"))
    return section("devices", "Devices", h("div", *map(_device, devices), cls="cards devices"))


def _device(device: Mapping[str, Any]) -> Html:
    executed, rate = interval(figures_in(device["executed"])), device["measuredFlopPerSecond"]
    clock, busy = device["smClockMhz"], device["utilizationRatio"]
    evidence = ", ".join(f"{one} ({_EVIDENCE.get(one, one)})" for one in device["evidence"])
    why = [device["evidenceReason"], device["evidenceFix"], device["sharedWith"]]
    shares = [*sorted(device["pipeActivityRatio"].items()), *([] if busy is None else [("any kernel", busy)])]
    return h(
        "article",
        h("h3", f"GPU {device['index']}", h("span", device["model"], cls="sub"), id=f"device-{device['index']}"),
        h(
            "dl",
            entry("Measured", amount(executed.measured) or none("no measurement: only a ceiling is known"), "main"),
            entry("Rate", or_none(None if rate is None else format_rate(int(rate)))),
            entry("SM clock", or_none(None if clock is None else f"{clock} MHz")),
            cls="triple",
        ),
        h(
            "dl",
            *(h("div", h("dt", name), h("dd", f"{100 * ratio:.0f} %", share_bar(ratio))) for name, ratio in shares),
            cls="shares",
        )
        if shares
        else h("p", "Its current activity is not known.", cls="note"),
        h(
            "dl",
            entry("Evidence", evidence),
            *(
                entry("Why no better evidence" if at == 0 else "What to do" if at == 1 else "Shared", words)
                for at, words in enumerate(why)
                if words
            ),
            entry("Observed, gaps", f"{_time(device['observedSeconds'])}, {_time(device['gapSeconds'])}"),
            entry("UUID", h("span", device["uuid"], cls="mono")),
            cls="stack",
        ),
        cls="card",
        aria_labelledby=f"device-{device['index']}",
    )


def gaps_part(devices: Sequence[Mapping[str, Any]]) -> Html:
    found: dict[str, list[tuple[int, Fraction]]] = {}
    for device in devices:
        for reason, time in device["gapSecondsByReason"].items():
            found.setdefault(reason, []).append((device["index"], Fraction(time)))
    if not found:
        return section("gaps", "Gaps", h("p", "None: readings cover all device time so far.", cls="absent"))
    rows = [
        h(
            "tr",
            h("th", reason, h("span", REASONS.get(reason, ""), cls="sub"), scope="row"),
            h("td", format_duration(sum((one for _, one in parts), Fraction(0))), cls="n"),
            h("td", ", ".join(str(index) for index, _ in parts)),
        )
        for reason, parts in sorted(found.items(), key=lambda item: -sum(one for _, one in item[1]))
    ]
    heads = (("Reason", None), ("Device time", "n"), ("GPU", None))
    caption = "Device time without readings. It counts in the upper bound only."
    return section("gaps", "Gaps", table("Gaps by reason", caption, heads, rows))


def sources_part(facts: Mapping[str, Any]) -> Html:
    cards = [_source(one) for one in facts["sources"]]
    journal = facts["journal"]
    title = h("strong", "The journal cannot be written: ")
    fault = h("p", title, journal["fault"], ". Totals are in memory only.", cls="warning")
    words = h("p", f"{journal['records']} records in the journal.", cls="note")
    return section(
        "sources",
        "Sources",
        h("div", *cards, cls="checks") if cards else h("p", "No source.", cls="absent"),
        fault if journal["fault"] else words,
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


def _time(seconds: str) -> str:
    return format_duration(Fraction(seconds))
