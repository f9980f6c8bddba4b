"""The growth of compute over time and the gaps in it, in HTML."""

from __future__ import annotations

from collections.abc import Iterator

from flopsd.report.contents.charts import GrowthChart, Strip
from flopsd.report.contents.device_groups import shortened
from flopsd.report.contents.model import Coverage, ReportGap
from flopsd.report.html.kit import Html, h, text
from flopsd.report.html.parts import amount, facts, legend, none, row, section, table

_GAP_HEADS = (("Begin, UTC", None), ("Length", "n"), ("Device", None), ("Reason", None), ("At most, FLOP", "n"))
_COURSE = "Executed compute added up, at each checkpoint of the journal. Times are UTC, by the machine's own clock."


def course_section(course: GrowthChart) -> Html:
    heads = (("UTC", None), ("At least", "n"), ("Measured", "n"), ("At most", "n"))
    rows = (row(heads, *cells, cls="when") for cells in course.rows)
    samples = [
        (34, h("line", cls="line", x1=0, x2=34, y1=8, y2=8), "measured"),
        (
            34,
            h("rect", cls="band", y=2, width=34, height=12),
            "at least, without an upper bound" if course.unbounded else "at least to at most",
        ),
        (34, h("rect", cls="gap", y=2, width=34, height=12), "a gap of one device or more"),
    ]
    return section(
        "course",
        "Compute over time",
        h("p", _COURSE, cls="intro"),
        _course(course),
        legend(*samples[0 if course.line else 1 : 3 if course.gaps else 2]),
        h(
            "details",
            h("summary", "The same as a table"),
            table("Executed compute over time", "Executed compute up to some moments, in FLOP", heads, rows),
            cls="screen",
        ),
    )


def _course(course: GrowthChart) -> Html:
    band = h("path", cls="band band-open" if course.unbounded else "band", d=course.band)
    line = h("path", cls="line", d=course.line) if course.line else None
    place = {"x": 0, "y": 8, "width": "100%", "height": 262}
    times = (
        h(
            "text",
            time.label,
            cls="tick tick-middle" if time.anchor == "middle" else "tick",
            x=f"{time.at}%",
            y=297,
            text_anchor=time.anchor,
        )
        for time in course.times
    )
    return h(
        "svg",
        h("title", "Executed compute over time, cumulative", id="course-t"),
        h("desc", course.description, id="course-d"),
        *(h("rect", cls="gap", x=f"{gap.at}%", width=f"{gap.width}%", y=0, height=270) for gap in course.gaps),
        h("svg", band, line, **place, viewBox="0 0 1000 300", preserveAspectRatio="none"),
        h("svg", *_ticks(course), **place),
        *times,
        cls="course",
        width="100%",
        height=300,
        role="img",
        aria_labelledby="course-t course-d",
    )


def _ticks(course: GrowthChart) -> Iterator[Html]:
    for tick in course.ticks:
        y = f"{tick.at}%"
        yield h("line", cls="grid", x1=0, x2="100%", y1=y, y2=y)
        if tick.at > 6:
            below = tick.at > 99  # the label of zero: no band is below the line
            yield h("text", tick.label, cls="tick tick-y", x=4, y=y, dy=13 if below else -4)


def coverage_section(coverage: Coverage) -> Html:
    heads = (("Reason", None), ("Device time", "n"), ("What it means", None))
    rows = (row(heads, one.reason, amount(one.time, ""), one.meaning, cls="mono") for one in coverage.reasons)
    by_reason = table("Gaps by reason", "Device time without a reading, by reason", heads, rows)
    return section(
        "coverage",
        "Coverage and gaps",
        h("p", h("span", coverage.observed, cls="big num"), " ", h("span", coverage.text), cls="figure"),
        facts(coverage.facts),
        _strips(coverage) if coverage.gaps and coverage.strips else None,
        by_reason if coverage.reasons else h("p", "No gap was recorded."),
        _longest(coverage) if coverage.gaps else None,
    )


def _strips(coverage: Coverage) -> Html:
    strips = (_strip(strip, at) for at, strip in enumerate(coverage.strips, 1))
    return text(
        h("p", f"Each device from {coverage.span} UTC. Hatched: no readings.", cls="span"),
        h("div", *strips, cls="strips", role="group", aria_label="Gaps of each device over the run"),
    )


def _strip(strip: Strip, at: int) -> Html:
    name = f"device {strip.name}" if strip.name.isdigit() else f"devices {strip.name}"
    spans = (h("rect", cls="elsewhere", x=f"{s.at}%", width=f"{s.width}%", y=3, height=12) for s in strip.spans)
    gaps = (h("rect", cls="gap gap-bold", x=f"{gap.at}%", width=f"{gap.width}%", y=0, height=18) for gap in strip.gaps)
    drawn = h(
        "svg",
        h("title", f"{name.capitalize()}: {strip.text}", id=f"strip-{at}"),
        h("rect", cls="seen", x=0, width="100%", y=3, height=12),
        *spans,
        *gaps,
        width="100%",
        height=18,
        role="img",
        aria_labelledby=f"strip-{at}",
    )
    label, says = h("span", name, cls="label"), h("span", strip.text, cls="says")
    return h("div", label, drawn, says, cls="device-strip")


def _longest(coverage: Coverage) -> Html:
    caption = "The longest gaps, and the most that each device can have done in them"
    return h(
        "details",
        h("summary", f"The longest gaps: {len(coverage.gaps)}"),
        table("The longest gaps", caption, _GAP_HEADS, map(_gap, coverage.gaps)),
        more(coverage.gaps_left_out),
    )


def _gap(gap: ReportGap) -> Html:
    device = h("span", shortened(gap.device), cls="mono num", title=gap.device)
    ceiling = amount(gap.ceiling, "") or none("not known")
    return row(_GAP_HEADS, gap.begin, amount(gap.length, ""), device, gap.reason, ceiling, cls="when")


def more(count: int) -> Html | None:
    if not count:
        return None
    return h("p", f"And {count} more, which the figures include: they are in the ledger.", cls="note")
