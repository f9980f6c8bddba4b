"""Parts that the report and the live page share: facts, figures, tables, icons, a rule's chart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flopsd.report.contents.charts import Axis, RuleChart
from flopsd.report.contents.model import Fact
from flopsd.report.html.kit import Html, h, text
from flopsd.report.numbers import IN_OTHER_ROWS, NO_UPPER_BOUND, Amount, Interval

Heads = Sequence[tuple[str, str | None]]  # title and class of each column
FIGURE_HEADS = (("Measured", "n"), ("At least", "n"), ("At most", "n"))
_CHECK, _CROSS, _DASH = "M5.6 10.4l3 3 5.8-6.4", "M10 7v5.2M10 14.6v.9", "M6 10h8"
_QUESTION = "M7.9 8.1c.2-2.7 4.3-2.5 4.2 0-.1 1.6-2.1 1.6-2.1 3.4M10 13.6v.7"
_LOOKS = {"up": "below", "down": "above"}


def section(name: str, title: object, *children: object, cls: str | None = None) -> Html:
    return h("section", h("h2", title, id=f"h-{name}", cls=cls), *children, id=name, aria_labelledby=f"h-{name}")


def entry(name: str, value: object, cls: str | None = None, exact: str | None = None) -> Html:
    return h("div", h("dt", name), h("dd", value, title=exact), cls=cls)


def facts(rows: Iterable[Fact], cls: str = "facts") -> Html:
    return h("dl", *(entry(fact.name, _fact(fact), exact=fact.exact or None) for fact in rows), cls=cls)


def _fact(fact: Fact) -> Html:
    return text(fact.value, *((" ", h("span", fact.by, cls="by")) if fact.by else ()))


def none(words: str) -> Html:
    return h("span", words, cls="none")


def or_none(value: str | None) -> object:
    return none("not known") if value is None else value


def amount(shown: Amount | None, unit: str = "FLOP") -> Html | None:
    if shown is None:
        return None
    return h("span", shown.text, h("span", f" {unit}", cls="unit") if unit else None, cls="num", title=shown.exact)


def triple(value: Interval, absent: str, middle: str = "measured") -> Html:
    """The three figures, always together."""
    return h(
        "dl",
        entry(middle.capitalize(), amount(value.measured) or none(absent), "main"),
        entry("At least", amount(value.low)),
        entry("At most", amount(value.high) or none(NO_UPPER_BOUND)),
        cls="triple",
    )


def figure_cells(value: Interval, absent: str) -> tuple[Html | None, ...]:
    """The three figures under FIGURE_HEADS, without a unit."""
    high = none(IN_OTHER_ROWS) if value.is_in_other_rows else amount(value.high, "") or none("not known")
    return amount(value.measured, "") or none(absent), amount(value.low, ""), high


def row(heads: Heads, name: object, *cells: object, cls: str | None = None) -> Html:
    """A row under `heads`: its name in a cell of class `cls`, then the cells with the classes of their columns."""
    columns = zip(cells, heads[1:], strict=True)
    return h("tr", h("th", name, scope="row", cls=cls), *(h("td", cell, cls=kind) for cell, (_, kind) in columns))


def table(label: str, caption: str | None, heads: Heads, rows: Iterable[Html], cls: str | None = None) -> Html:
    """A table in a box that scrolls."""
    head = h("thead", h("tr", *(h("th", title, scope="col", cls=kind) for title, kind in heads)))
    body = h("table", h("caption", caption) if caption else None, head, h("tbody", *rows), cls=cls)
    return h("div", body, cls="scroll", tabindex=0, role="region", aria_label=label)


def icon(state: str) -> Html:
    """An icon for a state. Icons differ in form, not only in colour."""
    if state in ("below", "up", "verified"):
        form, glyph = h("circle", cx=10, cy=10, r=9), _CHECK
    elif state in ("above", "down", "refused"):
        form, glyph = h("path", d="M10 1.2l9.2 16.6H.8z"), _CROSS
    elif state in ("indeterminate", "not verified", "grave"):
        form = h("rect", x=2.6, y=2.6, width=14.8, height=14.8, rx=2.4, transform="rotate(45 10 10)")
        glyph = _QUESTION
    else:
        form, glyph = h("circle", cx=10, cy=10, r=9), _DASH
    return h(
        "svg",
        form,
        h("path", cls="glyph", d=glyph),
        cls=f"icon icon-{_LOOKS.get(state, state).replace(' ', '-')}",
        viewBox="0 0 20 20",
        width=20,
        height=20,
        aria_hidden="true",
        focusable="false",
    )


def chip(state: str, word: str) -> Html:
    return h("span", icon(state), word, cls=f"chip chip-{state.replace(' ', '-')}")


def patterns() -> Html:
    """The fill patterns that the charts share."""
    hatch, open_end = _pattern("hatch", 7, 45), _pattern("open", 6, -45)
    return h("svg", h("defs", hatch, open_end), cls="defs", width=0, height=0, aria_hidden="true", focusable="false")


def _pattern(name: str, size: int, angle: int) -> Html:
    return h(
        "pattern",
        h("rect", cls=f"{name}-ground", width=size, height=size),
        h("line", cls=f"{name}-line", x1=0, y1=0, x2=0, y2=size),
        id=name,
        width=size,
        height=size,
        patternUnits="userSpaceOnUse",
        patternTransform=f"rotate({angle})",
    )


def rule_chart(chart: RuleChart, axis: Axis, name: str) -> Html:
    """A bar from low to high, a mark at measured and the threshold, on a scale of powers of ten."""
    parts = [h("title", chart.title, id=f"{name}-t"), h("desc", chart.description, id=f"{name}-d")]
    for tick in axis.ticks:
        x = f"{tick.at}%"
        parts += [_line("grid", x, 22, 62), h("text", tick.label, cls="tick", x=x, y=79, text_anchor="middle")]
    parts.append(h("line", cls="track", x1=0, x2="100%", y1=62.5, y2=62.5))
    first, last = f"{chart.threshold_from}%", f"{chart.threshold_to}%"
    if chart.threshold_to > chart.threshold_from:
        width = round(chart.threshold_to - chart.threshold_from, 2)
        parts += [_bar("limit-band", chart.threshold_from, width, 20, 42), _line("limit", last, 20, 62)]
    parts.append(_bar("bar", chart.bar_from, chart.bar_width, 33, 18, 2))
    if chart.from_zero:
        parts.append(_bar("open", 0, 3, 33, 18))
    if chart.open_from is not None:
        parts.append(_bar("open", chart.open_from, round(100 - chart.open_from, 2), 33, 18))
    if chart.measured is not None:
        x = f"{chart.measured}%"
        parts += [_line("mark-edge", x, 28, 56), _line("mark", x, 28, 56)]
    parts.append(_line("limit", first, 20, 62))
    label = h("text", chart.threshold_label, cls="limit-label", x=first, y=14, text_anchor=chart.threshold_anchor)
    return h(
        "svg", *parts, label, cls="strip", width="100%", height=84, role="img", aria_labelledby=f"{name}-t {name}-d"
    )


def rule_legend() -> Html:
    return legend(
        (34, h("rect", cls="bar", y=3, width=34, height=10, rx=2), "at least to at most"),
        (12, h("line", cls="mark", x1=6, x2=6, y1=0, y2=16), "measured"),
        (12, h("line", cls="limit", x1=6, x2=6, y1=0, y2=16), "threshold"),
        (34, h("rect", cls="open", y=3, width=34, height=10), "from zero, or without a bound, on this side"),
        more="scale: FLOP, each step ten times the one before",
    )


def legend(*items: tuple[int, Html, str], more: str = "") -> Html:
    """A legend. Each item: the width of its sample, the sample, its meaning."""
    lines = [
        h("li", h("svg", drawn, width=width, height=16, aria_hidden="true", focusable="false"), words)
        for width, drawn, words in items
    ]
    return h("ul", *lines, h("li", more) if more else None, cls="legend")


def share_bar(ratio: float) -> Html:
    """A bar for a share, hidden from screen readers since its figure stands next to it."""
    width = f"{max(0.0, min(1.0, ratio)) * 100:.1f}%"
    groove = h("rect", cls="groove", width="100%", height=8, rx=2)
    bar = h("rect", cls="bar", width=width, height=8, rx=2)
    return h("svg", groove, bar, cls="share", width="100%", height=8, aria_hidden="true", focusable="false")


def _line(kind: str, x: str, top: float, bottom: float) -> Html:
    return h("line", cls=kind, x1=x, x2=x, y1=top, y2=bottom)


def _bar(kind: str, at: float, width: float, top: float, height: float, rx: float | None = None) -> Html:
    return h("rect", cls=kind, x=f"{at}%", width=f"{width}%", y=top, height=height, rx=rx)
