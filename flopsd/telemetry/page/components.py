"""Pieces that the parts of the page are made of."""

from __future__ import annotations

from flopsd.report.html_kit import Html, h
from flopsd.report.numbers import NO_UPPER_BOUND, Amount, Interval


def section(name: str, title: object, *children: object, cls: str | None = None) -> Html:
    return h("section", h("h2", title, id=f"h-{name}", cls=cls), *children, id=name, aria_labelledby=f"h-{name}")


def card(title: str, meaning: str, content: Html) -> Html:
    return h("div", h("h3", title), content, h("p", meaning, cls="meaning") if meaning else None, cls="card")


def triple(value: Interval, absent: str) -> Html:
    return h(
        "dl",
        entry("Measured", amount(value.measured) or none(absent), "main"),
        entry("At least", amount(value.low)),
        entry("At most", amount(value.high) or none(NO_UPPER_BOUND)),
        cls="triple",
    )


def entry(name: str, value: object, cls: str | None = None) -> Html:
    return h("div", h("dt", name), h("dd", value), cls=cls)


def amount(shown: Amount | None) -> Html | None:
    if shown is None:
        return None
    return h("span", shown.text, h("span", " FLOP", cls="unit"), cls="num", title=shown.exact)


def or_none(value: str | None) -> object:
    return none("not known") if value is None else value


def none(words: str) -> Html:
    return h("span", words, cls="none")
