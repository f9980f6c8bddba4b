"""What is drawn on the page: icons of the states, a rule's interval against its threshold, bars of activity."""

from __future__ import annotations

from flopsd.report.charts import Axis, RuleChart
from flopsd.report.html_kit import Html, h, text

_CHECK, _CROSS = "M5.6 10.4l3 3 5.8-6.4", "M10 7v5.2M10 14.6v.9"
_QUESTION = "M7.9 8.1c.2-2.7 4.3-2.5 4.2 0-.1 1.6-2.1 1.6-2.1 3.4M10 13.6v.7"


def icon(state: str) -> Html:
    """A mark that differs in form too, not in colour alone. For `below` and `up`, `above`, and what is open."""
    if state in ("below", "up"):
        form, glyph = h("circle", cx=10, cy=10, r=9), _CHECK
    elif state in ("above", "down"):
        form, glyph = h("path", d="M10 1.2l9.2 16.6H.8z"), _CROSS
    elif state in ("indeterminate", "grave"):
        form = h("rect", x=2.6, y=2.6, width=14.8, height=14.8, rx=2.4, transform="rotate(45 10 10)")
        glyph = _QUESTION
    else:
        form, glyph = h("circle", cx=10, cy=10, r=9), "M6 10h8"
    looks = {"up": "below", "down": "above"}.get(state, state)
    return h(
        "svg",
        form,
        h("path", cls="glyph", d=glyph),
        cls=f"icon icon-{looks.replace(' ', '-')}",
        viewBox="0 0 20 20",
        width=20,
        height=20,
        aria_hidden="true",
        focusable="false",
    )


def patterns() -> Html:
    """Fillings that the drawings share."""
    open_end = h(
        "pattern",
        h("rect", cls="open-ground", width=6, height=6),
        h("line", cls="open-line", x1=0, y1=0, x2=0, y2=6),
        id="open",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(-45)",
    )
    return h("svg", h("defs", open_end), cls="defs", width=0, height=0, aria_hidden="true", focusable="false")


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


def legend(axis: Axis) -> Html:
    def item(width: int, drawn: Html, words: str) -> Html:
        return h("li", h("svg", drawn, width=width, height=16, aria_hidden="true", focusable="false"), words)

    return h(
        "ul",
        item(34, h("rect", cls="bar", y=3, width=34, height=10, rx=2), "at least to at most"),
        item(12, h("line", cls="mark", x1=6, x2=6, y1=0, y2=16), "measured"),
        item(12, h("line", cls="limit", x1=6, x2=6, y1=0, y2=16), "threshold"),
        item(34, h("rect", cls="open", y=3, width=34, height=10), "from zero, or without a bound, on this side"),
        h("li", f"scale: {axis.label}"),
        cls="legend",
    )


def share_bar(ratio: float) -> Html:
    """A share beside its figure, which says the same."""
    width = f"{max(0.0, min(1.0, ratio)) * 100:.1f}%"
    inner = text(
        h("rect", cls="groove", width="100%", height=8, rx=2), h("rect", cls="bar", width=width, height=8, rx=2)
    )
    return h("svg", inner, cls="share", width="100%", height=8, aria_hidden="true", focusable="false")


def _line(kind: str, x: str, top: float, bottom: float) -> Html:
    return h("line", cls=kind, x1=x, x2=x, y1=top, y2=bottom)


def _bar(kind: str, at: float, width: float, top: float, height: float, rx: float | None = None) -> Html:
    return h("rect", cls=kind, x=f"{at}%", width=f"{width}%", y=top, height=height, rx=rx)
