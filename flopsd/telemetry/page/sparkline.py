"""A small chart of the measured rate of the run so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flopsd.core.rounding import format_rate
from flopsd.core.values import utc_ns
from flopsd.report.contents.charts import path
from flopsd.report.html.kit import Html, h
from flopsd.report.terminal import capital
from flopsd.telemetry.health import minute

_WIDTH, _HEIGHT = 200, 32


def sparkline(history: Sequence[Mapping[str, Any]]) -> Html | None:
    """Steps on a scale from zero to the highest mean, with a break where nothing was measured. None if nothing was."""
    rates = [int(one["measuredFlopPerSecond"]) for one in history if one["measuredFlopPerSecond"] is not None]
    if not rates:
        return None
    begin_ns, end_ns, highest = utc_ns(history[0]["startedAt"]), utc_ns(history[-1]["endedAt"]), max(rates) or 1
    lines: list[list[tuple[float, float]]] = [[]]
    for one in history:
        if one["measuredFlopPerSecond"] is None:
            lines.append([])
            continue
        y = round(_HEIGHT - 1 - (_HEIGHT - 2) * int(one["measuredFlopPerSecond"]) / highest, 1)
        times = (utc_ns(one[end]) - begin_ns for end in ("startedAt", "endedAt"))
        lines[-1] += [(round(_WIDTH * ns / (end_ns - begin_ns), 1), y) for ns in times]
    since = f"since {minute(history[0]['startedAt'], history[-1]['endedAt'])}"
    ends = dict.fromkeys(format_rate(end) for end in (min(rates), max(rates)))
    words = f"means {since}, gaps included: {' to '.join(ends)}"
    broken = ", with breaks where nothing was measured" if len(rates) < len(history) else ""
    drawn = h(
        "svg",
        h("title", f"Measured rate, {words}{broken}", id="spark-t"),
        *(h("path", cls="line", d=path(line)) for line in lines if line),
        cls="spark",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby="spark-t",
    )
    return h("div", drawn, h("p", capital(words), cls="sub"))
