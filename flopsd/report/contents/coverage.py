"""Coverage of the devices' time, and the growth of compute over it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any

from flopsd.core.figures import Figures
from flopsd.core.ledger.start_notes import ROTATED
from flopsd.core.model import ACCOUNTED_ELSEWHERE, Evidence
from flopsd.core.policy.finding import OPERATOR_COUNT
from flopsd.core.rounding import Towards
from flopsd.report.contents.charts import WIDTH, GrowthChart, Mark, Strip, bands, height_marks, height_of, path
from flopsd.report.contents.device_groups import ranges
from flopsd.report.contents.model import Coverage, Fact, GapTime, ReportGap
from flopsd.report.ledger_json import LedgerObject, is_complete, may_be_longer
from flopsd.report.numbers import Amount, duration, flop, interval, percent
from flopsd.report.terminal import counted
from flopsd.system.clock import NS_PER_S, rfc3339

MAX_GAPS = 20
MAX_STRIPS = 16
MAX_ROWS = 12
REASONS = {
    "starting": "the daemon was starting",
    "stopping": "the daemon was stopping",
    "daemon_down": "the daemon did not run",
    "source_down": "the source had failed",
    "source_silent": "the source sent no readings",
    "device_missing": "the device was missing",
    "device_lost": "the driver had lost the device",
    "other_job": "the device was another job's, as the daemon states: not counted",
    "metered_as_mig": "it was in MIG slices, which count in its place, as the daemon states: not counted",
    "replaced": "other devices count in its place, such as new slices of its GPU, as the daemon states: not counted",
    "driver_timeout": "the driver did not answer in time",
    "driver_error": "the driver answered with an error",
    "no_permission": "reading the counters was not permitted",
    "not_supported": "the device does not offer the counters",
    "not_a_number": "the driver returned no number",
    "out_of_range": "the driver returned an impossible number",
    "counter_reset": "a counter ran backwards, or may have begun anew while it was not read",
    "counter_stalled": "a counter stood still",
    "contradictory": "two counters disagreed, or counters and power",
    "counters_disabled": "another process had switched the counters off",
    "counters_in_use": "another profiler had the counters",
    "zero_at_full_load": "the counters read zero while kernels ran",
    "stale": "the reading was out of date",
    "uncounted_work": "the core was busy, but nothing was counted",
    "not_journalled": "the run went on after the last record that was sealed",
    "end_unknown": "it is not known for how long or which devices time was not metered, or how fast a device was",
    "journal_replaced": "the journal was replaced, altered or damaged: what was in it is not known",
    "unknown_device": "the peak table does not know the device",
    "overlap": "the time was accounted for already",
    "missed_reading": "no reading covers this time",
}
CEILINGS = "Where only utilization was read, how much was done is not known: such work counts in the upper bound only"
BUT_COUNTED = ", except for what training processes counted of it, which nobody checked"
_UTILIZATION = Evidence.UTILIZATION.value
ONLY_HERE = "This covers only the ledgers that are here: what others would add is missing."
_ELSEWHERE = {reason.value for reason in ACCOUNTED_ELSEWHERE}


def coverage_of(predicate: LedgerObject) -> Coverage:
    entry = predicate.object("coverage")
    share = entry.maybe_count("coveragePpm")
    gaps = list(entry.objects("gaps"))
    begins, limits = _begins(predicate), _limits(predicate)
    longest = sorted(gaps, key=lambda gap: -gap.decimal("seconds"))[:MAX_GAPS]
    recovered = entry.decimal("recoveredSeconds")
    is_open = may_be_longer(entry.object("gapSecondsByReason").mapping)
    least = "at least " if is_open else ""
    members = (("Device time", "spanSeconds", least), ("Read", "observedSeconds", ""), ("Gaps", "gapSeconds", least))
    facts = [timed(name, entry.decimal(member), before) for name, member, before in members]
    executed = predicate.object("totals").object("executed")
    evidence = executed.object("byEvidence")
    has_ceilings, but = _UTILIZATION in evidence, BUT_COUNTED if OPERATOR_COUNT in evidence else ""
    is_bounded = executed.maybe_count("high") is not None
    if ceiling_only := _ceiling_only(predicate):
        facts.append(timed("Read as utilization, which gives a ceiling only", ceiling_only))
    if elsewhere := _elsewhere(entry):
        facts.append(timed("Of the gaps, another job's or device's as the daemon states, and not counted", elsewhere))
    if recovered:
        facts.append(timed("Of the gaps, recovered from counters that kept running", recovered))
    return Coverage(
        observed="not known" if share is None else f"{'at most ' if is_open else ''}{percent(share, Towards.DOWN)}",
        text=_text(share, is_open, bool(elsewhere), is_bounded, but)
        + _ceilings(has_ceilings, but)
        + ("" if is_complete(predicate.mapping) else f" {ONLY_HERE}"),
        facts=tuple(facts),
        reasons=_reasons(entry),
        gaps=tuple(_gap(gap, begins) for gap in longest),
        gaps_left_out=len(gaps) - len(longest) + (entry.maybe_count("gapsNotListed") or 0),
        strips=_strips(predicate, gaps, begins, limits),
        span="" if limits is None else f"{moment(limits[0])} to {moment(limits[1])}",
    )


def _elsewhere(entry: LedgerObject) -> Fraction:
    """Device time in seconds that was not this job's."""
    times = entry.object("gapSecondsByReason")
    return sum((times.decimal(name) for name in _ELSEWHERE if name in times), Fraction(0))


def timed(name: str, seconds: Fraction, before: str = "") -> Fact:
    """A duration as a fact, with its exact value."""
    shown = duration(seconds)
    return Fact(name, before + shown.text, exact=shown.exact)


def _ceilings(has_ceilings: bool, but: str) -> str:
    return f" {CEILINGS}{but}." if has_ceilings else ""


def _text(share: int | None, is_open: bool, elsewhere: bool, is_bounded: bool, but: str) -> str:
    if share is None and elsewhere:
        return "No device time belonged to this job, as the daemon states, so there is nothing to cover."
    if share is None:
        return "No device time was metered."
    words = "Share of the job's device time that readings account for."
    if is_open:
        words += " Some gaps are of unknown length, so no upper bound is known."
    elif share == 1_000_000:
        words = "All device time of the job is accounted for by readings."
    elif not is_bounded:
        words += " What the devices can have done in the rest has no upper bound."
    else:
        words += f" The rest counts in the upper bound only, at the most that the devices can do{but}."
    return words


def _ceiling_only(predicate: LedgerObject) -> Fraction:
    """Device time in seconds for which only utilization was read, as far as the ledger lists devices."""
    rows = [row for device in predicate.objects("devices") for row in device.objects("work")]
    return sum((row.decimal("seconds") for row in rows if row.text("evidence") == _UTILIZATION), Fraction(0))


def _reasons(entry: LedgerObject) -> tuple[GapTime, ...]:
    times = entry.object("gapSecondsByReason")
    longest = sorted(times.mapping, key=lambda name: -times.decimal(name))
    return tuple(GapTime(name, REASONS.get(name, ""), _gap_time(name, times.decimal(name))) for name in longest)


def _gap_time(reason: str, seconds: Fraction) -> Amount:
    """The time of gaps of one reason; the least that it can be if their length is not known."""
    shown = duration(seconds)
    return replace(shown, text=f"at least {shown.text}") if may_be_longer({reason: seconds}) else shown


def _gap(gap: LedgerObject, begins: Mapping[int, int]) -> ReportGap:
    ceiling = gap.maybe_count("ceiling")
    reason = gap.text("reason")
    span = _span(gap, begins)
    return ReportGap(
        gap.text("device"),
        f"{reason}: {REASONS[reason]}" if reason in REASONS else reason,
        "not known" if span is None else moment(span[0]),
        _gap_time(reason, gap.decimal("seconds")),
        None if ceiling is None else flop(ceiling, Towards.UP),
    )


def _begins(predicate: LedgerObject) -> dict[int, int]:
    """The time of each daemon start in Unix nanoseconds, by number."""
    return {entry.count("number"): entry.moment_ns("startedAt") for entry in predicate.objects("incarnations")}


def _span(gap: LedgerObject, begins: Mapping[int, int]) -> tuple[int, int] | None:
    origin = begins.get(gap.count("incarnation"))
    if origin is None:
        return None
    begin_s, end_s = gap.decimal("beginSeconds", signed=True), gap.decimal("endSeconds", signed=True)
    return origin + int(begin_s * NS_PER_S), origin + int(end_s * NS_PER_S)


def _limits(predicate: LedgerObject) -> tuple[int, int] | None:
    """The start and the end of the run in Unix nanoseconds."""
    times = [
        (entry.moment_ns("startedAt"), entry.moment_ns("lastRecordAt")) for entry in predicate.objects("incarnations")
    ]
    if not times:
        return None
    return min(begin for begin, _ in times), max(end for _, end in times)


def _strips(
    predicate: LedgerObject, gaps: Sequence[LedgerObject], begins: Mapping[int, int], limits: tuple[int, int] | None
) -> tuple[Strip, ...]:
    """The gaps of each of the first MAX_STRIPS devices. Time accounted for elsewhere is not missing, and of the time
    between two daemon starts nothing is known."""
    if limits is None or limits[0] >= limits[1]:
        return ()
    missing: dict[str, list[tuple[int, int]]] = {}
    elsewhere: dict[str, list[tuple[int, int]]] = {}
    for gap in gaps:
        if (span := _span(gap, begins)) is not None:
            kind = elsewhere if gap.text("reason") in _ELSEWHERE else missing
            kind.setdefault(gap.text("device"), []).append(span)
    stops = tuple(_stops(predicate))
    strips = []
    for device in list(predicate.objects("devices"))[:MAX_STRIPS]:
        uuid = device.text("uuid")
        found, others = missing.get(uuid, []), elsewhere.get(uuid, [])
        says = f"{counted(len(found), 'gap')} listed" if found else "no gap listed"
        if others:
            says += f", {counted(len(others), 'stretch', 'stretches')} not this job's"
        if stops:
            says += f", {counted(len(stops), 'time')} without a daemon"
        spans = bands([*others, *stops], *limits)
        strips.append(Strip(f"{device.count('index')}", spans, bands(found, *limits), says))
    return tuple(_together(list(same)) for _, same in groupby(strips, key=lambda strip: replace(strip, name="")))


def _stops(predicate: LedgerObject) -> Iterator[tuple[int, int]]:
    """The times between the end of a daemon and its next start, which are in no gap: by the wall clock."""
    for before, after in pairwise(predicate.objects("incarnations")):
        last_ns, begin_ns = before.moment_ns("lastRecordAt"), after.moment_ns("startedAt")
        if before.raw("endReason") not in (None, ROTATED) and last_ns < begin_ns:
            yield last_ns, begin_ns


def _together(strips: Sequence[Strip]) -> Strip:
    """Neighbouring devices with equal strips, as one."""
    return replace(strips[0], name=ranges(int(strip.name) for strip in strips))


def growth_chart(predicate: LedgerObject, course: Sequence[Mapping[str, Any]]) -> GrowthChart | None:
    """Cumulative compute over time; None without points, which only a journal gives, or if nothing is known at any
    point."""
    entry = [LedgerObject(point, f"course[{at}]") for at, point in enumerate(course)]
    points = [(point.moment_ns("at"), point.figures("executed")) for point in entry]
    if all(figures == Figures(0, None, None) for _, figures in points):
        return None
    points.sort(key=lambda point: point[0])  # the wall clock may have stepped
    begins = _begins(predicate)
    points = [*_origin(begins, points[0]), *points]
    begin, end = points[0][0], points[-1][0]
    if begin >= end:
        return None
    spans = [
        span
        for gap in predicate.object("coverage").objects("gaps")
        if gap.text("reason") not in _ELSEWHERE and (span := _span(gap, begins)) is not None
    ]
    unbounded = any(figures.high_flop is None for _, figures in points)
    top = max(_top(figures) for _, figures in points)

    def place(at: int, value: int) -> tuple[float, float]:
        return round(WIDTH * (at - begin) / (end - begin), 1), height_of(value, top)

    upper = [place(at, top if figures.high_flop is None else figures.high_flop) for at, figures in points]
    lower = [place(at, figures.low_flop) for at, figures in points]
    measured = [place(at, f.measured_flop) for at, f in points if f.measured_flop is not None]
    shaded = bands(spans, begin, end)
    last = interval(points[-1][1])
    middle = "nothing measured" if last.measured is None else f"measured {last.measured.text}"
    return GrowthChart(
        band=path([*upper, *reversed(lower)]) + " Z",
        unbounded=unbounded,
        line=path(measured),
        gaps=shaded,
        ticks=height_marks(top),
        times=tuple(
            Mark(at, moment(begin + (end - begin) * at // 100), anchor)
            for at, anchor in ((0, "start"), (50, "middle"), (100, "end"))
        ),
        rows=tuple(_row(at, figures) for at, figures in _some(points)),
        description=f"From {moment(begin)} to {moment(end)}. At the end: {last.ends}, {middle}. "
        + (f"{counted(len(shaded), 'stretch', 'stretches')} with gaps shaded." if shaded else "No gap is shaded."),
    )


def _origin(begins: Mapping[int, int], first: tuple[int, Figures]) -> Iterator[tuple[int, Figures]]:
    """The start of the run, with nothing computed yet. A figure that is not known at the first checkpoint is not known
    before it either."""
    begun, figures = min(begins.values(), default=first[0]), first[1]
    if begun < first[0]:
        measured, high = (None if end is None else 0 for end in (figures.measured_flop, figures.high_flop))
        yield begun, Figures(0, measured, high)


def _top(figures: Figures) -> int:
    if figures.high_flop is not None:
        return figures.high_flop
    return 2 * max(figures.measured_flop or 0, figures.low_flop)


def _some(points: Sequence[tuple[int, Figures]]) -> Sequence[tuple[int, Figures]]:
    """At most MAX_ROWS points, evenly spaced, always with the last."""
    if len(points) <= MAX_ROWS:
        return points
    last = len(points) - 1
    return [points[last * at // (MAX_ROWS - 1)] for at in range(MAX_ROWS)]


def _row(at: int, figures: Figures) -> tuple[str, str, str, str]:
    shown = interval(figures)
    return (
        moment(at),
        shown.low.text,
        "nothing measured" if shown.measured is None else shown.measured.text,
        "not known" if shown.high is None else shown.high.text,
    )


def moment(at_ns: int) -> str:
    """A time without its zone, which the page names once: `2026-09-21 14:13:20`."""
    try:
        return rfc3339(at_ns)[:19].replace("T", " ")
    except (ValueError, OverflowError):  # of a stranger's ledger
        return "not known"
