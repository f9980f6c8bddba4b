"""Devices on the page: one line per device, details on demand, and advice for better figures, each piece once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from flopsd.core.figures import figures_from
from flopsd.core.model import GapReason
from flopsd.core.rounding import format_duration, format_rate
from flopsd.report.contents.device_groups import ranges
from flopsd.report.html.kit import Html, h, text
from flopsd.report.html.parts import amount, icon, none, row, section, share_bar, table
from flopsd.report.numbers import interval
from flopsd.report.terminal import counted
from flopsd.telemetry.health import minute
from flopsd.telemetry.last_gap import GapKind, kind_of
from flopsd.telemetry.status_text import gap_time

_EVIDENCE = {
    "cycles": "counted cycles",
    "activity": "measured, from percentages",
    "count": "the vendor's own count",
    "operator_count": "the training process's own count",
    "utilization": "only an upper bound",
    "gap": "nothing was read",
}
_HEADS = (
    ("Device", None), ("State", None), ("Measured", "n"), ("Rate", "n"), ("Busy", None), ("Active", None),
    ("SM clock", "n"), ("Gaps", "n"),
)  # fmt: skip
_DETAIL_HEADS = (("Device", None), ("Model", None), ("Evidence", None), ("Observed", "n"), ("UUID", None))
_MEASURING = {"cycles", "activity", "count"}  # this evidence does not distinguish the number formats of tensor work
_NO_FORMAT = "the number format of tensor work is not declared"
_NO_BOUND = "not in the peak table, so no total has an upper bound"
_NO_PHASE = ": what the job does is not declared; if all of it is training, give --phase train."
Facts = Mapping[str, Any]


def devices_part(facts: Facts) -> Html:
    devices = facts["devices"]
    if not devices:
        return section("devices", "Devices", h("p", "No device yet.", cls="absent"))
    models = dict.fromkeys(device["model"] for device in devices)
    gone = sum(not device["metered"] for device in devices)
    earlier = f", and {gone} of earlier starts" if gone else ""
    title = f"{counted(len(devices) - gone, 'device')}{earlier}: {', '.join(models)}"
    details = h(
        "details",
        h("summary", "Details of each device"),
        table("Details of each device", "What each was read by.", _DETAIL_HEADS, map(_detail, devices)),
        id="details",
    )
    lines = (_line(device, facts["lastRecordAt"]) for device in devices)
    return section("devices", title, table("Devices", None, _HEADS, lines, "lines"), *_advice(facts), details)


def _line(device: Facts, now: str | None) -> Html:
    executed, rate = interval(figures_from(device["executed"])), device["measuredFlopPerSecond"]
    clock, busy = device["smClockMhz"], device["utilizationRatio"]
    pipes = sorted(device["pipeActivityRatio"].items(), key=lambda item: -item[1])
    active = ", ".join(f"{pipe} {100 * ratio:.0f} %" for pipe, ratio in pipes if ratio >= 0.005)
    high = amount(executed.high)
    measured = amount(executed.measured) or (h("span", "at most ", high) if high else none("no upper bound"))
    return row(
        _HEADS,
        device["index"],
        text(*_state(device, now)),
        measured,
        _or_dash(None if rate is None else format_rate(int(rate))),
        _or_dash(None if busy is None else h("span", f"{100 * busy:.0f} %", share_bar(busy), cls="busy")),
        _or_dash(active or None),
        _or_dash(None if clock is None else f"{clock} MHz"),
        gap_time(device["gapSecondsByReason"]),
    )


def _state(device: Facts, now: str | None) -> tuple[object, ...]:
    gap = device["gap"]
    if not device["metered"]:
        return ("of an earlier start",)
    if gap is None:
        if device["executed"]["measured"] is None:
            return ("upper bound only",)
        return ("metered" if _MEASURING.intersection(device["evidence"]) else "counted by its process",)
    since = "" if gap["since"] is None else f" since {minute(gap['since'], now)}"
    words = f" {gap['reason']}{since}"
    kind = _gap_kind(device)
    if kind in (GapKind.LOST, GapKind.UNKNOWN):
        return icon("down" if kind is GapKind.LOST else "grave"), words
    return (words.strip(),)


def _gap_kind(device: Facts) -> GapKind | None:
    return None if device["gap"] is None else kind_of(GapReason(device["gap"]["reason"]))


def _detail(device: Facts) -> Html:
    evidence = ", ".join(f"{one} ({_EVIDENCE.get(one, one)})" for one in device["evidence"])
    uuid = h("span", device["uuid"], cls="mono")
    return row(
        _DETAIL_HEADS,
        device["index"],
        device["model"],
        evidence,
        format_duration(Fraction(device["observedSeconds"])),
        uuid,
    )


def _advice(facts: Facts) -> Iterable[Html]:
    """The advice, each item once with the numbers of all devices that it applies to."""
    found: dict[tuple[str, str], list[int]] = {}
    for device in (one for one in facts["devices"] if one["metered"]):
        said = [(device["evidenceReason"], device["evidenceFix"]), (device["sharedWith"] or "", "")]
        if device["precision"] is None and _MEASURING.intersection(device["evidence"]):
            said.append((_NO_FORMAT, "if it is known, declare it: --precision, such as bf16"))
        kind = _gap_kind(device)
        if kind is GapKind.LOST:
            reason = device["gap"]["reason"]
            said.append((f"no reading: {reason}", "for what helps see FlopsdDevicesBlind in docs/runbook.md"))
        if kind is GapKind.UNKNOWN:
            said.append((_NO_BOUND, "to add a row see docs/own-tables.md"))
        for one in said:
            if any(one):
                found.setdefault(one, []).append(device["index"])
    items = [
        h("li", h("strong", _numbers(indices)), f": {why}{'; ' if why and fix else ''}{fix}.")
        for (why, fix), indices in found.items()
    ]
    if facts["phase"] is None:
        items.append(h("li", h("strong", "The run"), _NO_PHASE))
    if items:
        yield h("h3", "What widens the figures, and what to do")
        yield h("ul", *items, cls="advice")


def _numbers(indices: Sequence[int]) -> str:
    """`Device 3`, `Devices 0 to 2, 5`."""
    return f"Device{'s' * (len(indices) > 1)} {ranges(indices)}"


def _or_dash(value: object) -> object:
    return h("span", "-", cls="none", title="not known") if value is None else value
