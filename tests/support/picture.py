"""A picture of a dashboard without Grafana: its panels at their places, drawn from what their queries give.

`python -m tests.support.picture` makes docs/images/*.png of the recorded hour.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tests.support import hour
from tests.support.chromium import chromium

ROOT = Path(__file__).resolve().parents[2]
J = dict[str, Any]
Series = list[tuple[str, list[tuple[float, float]]]]
Ask = Callable[[str], list[J]]
COLUMN, ROW, HEAD = 58, 30, 30
COLOURS = ("#2f6fbd", "#c8601f", "#3a8a4d", "#8b4fa8", "#b3343b", "#5f7a12", "#1d8a99", "#7a5b3a", "#555e6b", "#c2388b")
NOTE = "Drawn by flopsd's tests from the answers of a real Prometheus to this dashboard's queries; Grafana draws it more finely."
STYLE = (
    "body{margin:0;background:#eef0f3;font:12px system-ui,sans-serif;color:#1c2733}h1{font-size:18px;margin:12px 12px 0}"
    "p{margin:4px 12px}section{position:absolute;background:#fff;border:1px solid #d4d9df;border-radius:3px;overflow:hidden}"
    "h2{font-size:12px;margin:6px 8px 0}b{display:block;font-size:20px;text-align:center;margin-top:22px}"
    "small{position:absolute;bottom:3px;left:8px;right:8px;line-height:14px}svg{position:absolute;left:0}i{font-style:normal;"
    "padding-right:8px;white-space:nowrap}"
)


def shown(value: float, unit: str) -> str:
    """The value in the unit, as Grafana would write it."""
    if not math.isfinite(value):
        return "no bound known"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "sci":
        return f"{value:.3g}"
    name = {"watt": "W", "joule": "J"}.get(unit, unit.removeprefix("si:").removeprefix("none"))
    power = 0 if value == 0 or unit == "s" else max(0, min(10, int(math.log10(abs(value)) // 3)))
    return f"{value / 1000.0**power:.4g} {('', 'k', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y', 'R', 'Q')[power]}{name}".strip()


def named(panel: Mapping[str, Any], ask: Ask) -> Series:
    found: Series = []
    for target in panel["targets"]:
        for one in ask(target["expr"]):
            legend = re.sub(r"\{\{(\w+)\}\}", lambda m, one=one: one["metric"].get(m[1], ""), target["legendFormat"])  # type: ignore[misc]
            found.append((legend, [(float(t), float(v)) for t, v in one["values"]]))
    return sorted(found)


def panel(spec: Mapping[str, Any], ask: Ask, span: tuple[int, int]) -> str:
    place, unit = spec["gridPos"], spec["fieldConfig"]["defaults"]["unit"]
    width, height = place["w"] * COLUMN - 8, place["h"] * ROW - 8
    series = named(spec, ask)
    kind = spec["type"]
    if kind == "stat":
        value = series[0][1][-1][1]
        text = shown(value, unit)
        for mapping in spec["fieldConfig"]["defaults"].get("mappings", ()):
            text = mapping["options"].get(f"{value:g}", {"text": text})["text"]
        body = f"<b{' style=font-size:15px' if len(text) > 14 else ''}>{escape(text)}</b>"
    elif kind == "bargauge":
        body = bars(series, unit, width, height)
    elif kind == "status-history":
        body = cells(series, width, height)
    else:
        custom = spec["fieldConfig"]["defaults"].get("custom", {})
        body = chart(series, unit, span, width, height, custom)
    at = f"left:{place['x'] * COLUMN + 8}px;top:{place['y'] * ROW + 68}px;width:{width}px;height:{height}px"
    return f'<section style="{at}"><h2>{escape(spec["title"])}</h2>{body}</section>'


def chart(series: Series, unit: str, span: tuple[int, int], width: int, height: int, custom: Mapping[str, Any]) -> str:
    log = custom.get("scaleDistribution", {}).get("type") == "log"
    if custom.get("stacking", {}).get("mode") == "normal":
        series = stacked(series)
    scale = (lambda v: math.log10(v) if v > 0 else math.nan) if log else float
    points = [(t, scale(v)) for _, values in series for t, v in values if math.isfinite(v)]
    ys = [y for _, y in points if math.isfinite(y)]
    left, right = span
    bottom, top = (min(ys) if log else 0.0), max(ys) * (1 if log else 1.05) or 1.0
    plot_width, plot_height = width - 96, height - HEAD - 46

    def x(t: float) -> float:
        return 84 + (t - left) / (right - left) * plot_width

    def y(v: float) -> float:
        return 8 + (top - v) / ((top - bottom) or 1) * plot_height

    lines = []
    for step in range(5):
        value = bottom + (top - bottom) * step / 4
        text = shown(10**value if log else value, unit)
        lines.append(f'<path d="M84 {y(value):.0f}H{width - 12}" stroke="#e3e6ea"/>'
                     f'<text x=80 y={y(value) + 4:.0f} text-anchor=end font-size=10>{text}</text>')  # fmt: skip
    lines += [
        f"<text x={x(left + (right - left) * minute / 60):.0f} y={plot_height + 22} text-anchor=middle font-size=10>{minute} min</text>"
        for minute in range(0, 60, 15)
    ]
    for number, (_, values) in enumerate(series):
        path, before = "", 0.0
        for t, v in values:
            if math.isfinite(v) and math.isfinite(scale(v)):
                path += f"{'M' if not path or t - before > 90 else 'L'}{x(t):.1f} {y(scale(v)):.1f}"
                before = t
        lines.append(f'<path d="{path}" fill=none stroke="{COLOURS[number % 10]}" stroke-width=1.6 />')
    return f'<svg width={width} height={height - HEAD} style="top:{HEAD - 4}px">{"".join(lines)}</svg>{legend(series)}'


def stacked(series: Series) -> Series:
    sums: dict[float, float] = {}
    found: Series = []
    for name, values in series:
        lifted = []
        for t, v in values:
            sums[t] = sums.get(t, 0.0) + v
            lifted.append((t, sums[t]))
        found.append((name, lifted))
    return found


def legend(series: Series) -> str:
    entries = (f'<i style="color:{COLOURS[n % 10]}">&#9644; {escape(name)}</i>' for n, (name, _) in enumerate(series))
    return f"<small>{' '.join(entries)}</small>"


def bars(series: Series, unit: str, width: int, height: int) -> str:
    lines, each = [], (height - HEAD - 10) / len(series)
    for number, (name, values) in enumerate(series):
        value, at = values[-1][1], number * each + 4
        long = max(1.0, min(1.0, value) * (width - 390))
        lines.append(f'<text x=8 y={at + each / 2 + 4:.0f} font-size=11>{escape(name)}</text>'
                     f'<rect x=300 y={at:.0f} width={long:.0f} height={each * 0.7:.0f} fill="{COLOURS[0]}" />'
                     f'<text x={306 + long:.0f} y={at + each / 2 + 4:.0f} font-size=11>{shown(value, unit)}</text>')  # fmt: skip
    return f'<svg width={width} height={height - HEAD} style="top:{HEAD}px">{"".join(lines)}</svg>'


def cells(series: Series, width: int, height: int) -> str:
    times = sorted({t for _, values in series for t, _ in values})
    step, each = (width - 120) / len(times), (height - HEAD - 10) / len(series)
    lines = []
    for number, (name, values) in enumerate(series):
        lines.append(f"<text x=8 y={(number + 0.5) * each + 4:.0f} font-size=11>{escape(name)}</text>")
        for t, v in values:
            hue, light = 225 - 190 * min(1.0, v), 90 - 38 * min(1.0, v)
            lines.append(f'<rect x={110 + times.index(t) * step:.1f} y={number * each + 2:.0f} width={step + 0.3:.1f} '
                         f'height={each - 4:.0f} fill="hsl({hue:.0f},70%,{light:.0f}%)" />')  # fmt: skip
    return f'<svg width={width} height={height - HEAD} style="top:{HEAD}px">{"".join(lines)}</svg>'


def page(dashboard: Mapping[str, Any], ask: Ask, span: tuple[int, int]) -> str:
    panels: Sequence[Mapping[str, Any]] = dashboard["panels"]
    deep = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels) * ROW + 76
    body = "".join(panel(p, ask, span) for p in panels)
    return (f"<!DOCTYPE html><meta charset=utf-8><title>x</title><style>{STYLE}</style><body style='height:{deep}px'>"
            f"<h1>{escape(dashboard['title'])}: an hour that flopsd's tests make</h1><p>{NOTE}</p>{body}")  # fmt: skip


def main() -> None:
    from tests.e2e.test_dashboards import NAMES, asked

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blocks, first, last = hour.record(folder)
        with hour.served(blocks) as url, chromium() as browser:
            for board in NAMES:
                answer = json.loads((ROOT / "config" / "grafana" / f"{board}.json").read_text())
                file = folder / f"{board}.html"
                file.write_text(
                    page(answer, lambda expression: asked(url, expression, first + 60, last), (first, last))
                )
                browser.load(file)
                browser.look(24 * COLUMN + 16)
                (ROOT / "docs" / "images" / f"{board}.png").write_bytes(browser.picture())


if __name__ == "__main__":
    main()
