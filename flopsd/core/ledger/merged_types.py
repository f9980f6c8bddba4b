"""Type checks of what a merged ledger copies from its children and its job. Pure.

Most of it is copied, not computed, so that recomputing the sums alone would accept any content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flopsd.core.declarations import Phase
from flopsd.core.field_reader import FieldReader, raising
from flopsd.core.figures import figures_from
from flopsd.core.ledger.merged_segments import IDENTITY
from flopsd.core.model import UNDECLARED_PHASE, Evidence, GapReason
from flopsd.core.notes import note_from
from flopsd.core.values import is_digest, whole_number

MAX_RANK = 2**31
MAX_SEGMENT = 10**9
_EVIDENCE = frozenset(one.value for one in Evidence)
_PHASES = frozenset([*(one.value for one in Phase), UNDECLARED_PHASE])
_REASONS = frozenset(one.value for one in GapReason)


def refuse_wrong_entry(raw: Mapping[str, Any], *, in_lineage: bool) -> None:
    """Raise ValueError for an entry whose fields have wrong types; its times are also checked elsewhere."""
    entry = FieldReader(raw, "", raising(ValueError))
    node = entry.one_of("kind", ("node", "job") if in_lineage else ("node",)) == "node"
    for name in ("name", "run"):
        entry.text(name)
    if not node and any(raw[name] is not None for name in ("node", "rank", "instanceType", "ended")):
        raise ValueError("a job must have null for node, rank, instanceType and ended")
    if node:
        entry.text("node")
    entry.maybe_text("instanceType")
    if raw["rank"] is not None:
        entry.whole("rank", 0, MAX_RANK - 1)
    for name in ("replay", "ended") if node else ("replay",):
        if not isinstance(raw[name], bool):
            entry.wrong(name, "true or false")
    if not node and raw["segment"] is not None:
        raise ValueError("a job must have null for segment")
    _segment(entry)
    versions, tables = entry.texts("flopsdVersions"), entry.texts("peakTableSha256")
    if not versions or not tables or (node and (len(versions), len(tables)) != (1, 1)):
        raise ValueError("a child needs a flopsd version and a peak table, a node exactly one of each")
    _times(entry, node=node)
    executed, gaps = raw["totals"]["executed"], raw["coverage"]["gapSecondsByReason"]
    if not (executed["byEvidence"].keys() <= _EVIDENCE and executed["byPhase"].keys() <= _PHASES):
        raise ValueError("a child has figures for an unknown kind of evidence or phase")
    if not gaps.keys() <= _REASONS:
        raise ValueError("a child has gaps with an unknown reason")
    for figures in map(figures_from, _intervals(raw["totals"])):
        if figures.high_flop is not None and figures.low_flop > figures.high_flop:
            raise ValueError("a child has a low figure above the high one")
    _declared(entry.object("declared"), conflict=not node)
    if in_lineage != ("completeness" in raw):
        raise ValueError("a child of a lineage must have completeness, a child of a job must not")
    if in_lineage:
        completeness = entry.object("completeness")
        _exactly(completeness, {"complete", "missing"})
        completeness.flag("complete")
        if not isinstance(completeness.raw("missing"), list):
            completeness.wrong("missing", "a list")
        for hole in completeness.objects("missing"):
            note_from(hole.mapping)


def _intervals(totals: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The figures of a child whose low and high are bounds of the same."""
    rules, integers = totals["guidelines"], totals["integerOperations"]
    yield from (totals["executed"], integers)
    for counted in (rules, integers["guidelines"], rules["asClaimed"]):
        if counted is not None:
            yield from (counted, counted["cumulative"])


def refuse_wrong_facts(raw: Mapping[str, Any], *, is_job: bool) -> None:
    """The same check for the predicate's own facts, which no child states."""
    predicate = FieldReader(raw, "", raising(ValueError))
    nodes = _texts(predicate, "jobNodes")
    predicate.object("method").text("flopsdVersion")
    if is_job:
        run = predicate.object("run")
        _exactly(run, {"id", "platform", "jobName", "jobArn"})
        for name in ("id", "platform"):
            run.text(name)
        for name in ("jobName", "jobArn"):
            run.maybe_text(name)
    else:
        predicate.object("lineage").text("name")
    if raw["lineage" if is_job else "run"] is not None or (nodes and not is_job):
        raise ValueError("a job must have null for lineage; a lineage must have null for run and no job nodes")


def _segment(entry: FieldReader) -> None:
    segment = entry.maybe_object("segment")
    if segment is None:
        return
    _exactly(segment, {"number", "continues", "isContinued", "journal"})
    number, before = segment.whole("number", 1, MAX_SEGMENT), segment.maybe_object("continues")
    if not isinstance(segment.raw("isContinued"), bool):
        segment.wrong("isContinued", "true or false")
    journal = segment.object("journal")
    _exactly(journal, {*IDENTITY})
    _journal(journal)
    if before is None:
        if number != 1 or not segment.raw("isContinued"):
            raise ValueError("a segment that continues no other must have number 1 and be continued by another")
        return
    _exactly(before, {"number", *IDENTITY})
    _journal(before)
    if before.whole("number", 1, MAX_SEGMENT) != number - 1:
        raise ValueError("a segment must continue the one with the number before its own")


def _journal(journal: FieldReader) -> None:
    if not is_digest(journal.raw("sha256")) or not is_digest(journal.raw("headSha256")):
        raise ValueError("the digests of a segment's journal are missing or malformed")
    if min(whole_number(journal.raw(name)) for name in ("bytes", "records")) < 1:
        raise ValueError("a segment's journal must have at least one byte and one record")


def _times(entry: FieldReader, *, node: bool) -> None:
    """Check periods and device times; a job has one period of time, without devices."""
    periods, times = list(entry.objects("periods")), list(entry.objects("deviceTimes"))
    if not isinstance(entry.raw("deviceTimes"), list) or not periods or (not node and (times or len(periods) > 1)):
        raise ValueError("a node needs periods and a list of device times; a job needs one period and no device times")
    for number, period in enumerate(periods, start=1):
        _exactly(period, {"incarnation", "attempt", "bootId", "beginNs", "endNs", "wallOffsetNs"})
        period.text("bootId")
        if node:
            period.text("attempt")
        if period.raw("incarnation") != (number if node else None) or isinstance(period.raw("incarnation"), bool):
            period.wrong("incarnation", str(number) if node else "null")
        if not node and (period.raw("attempt") is not None or period.raw("bootId")):
            raise ValueError("the period of a job must have no attempt and no boot id")
        _span(period, "beginNs", "endNs", "wallOffsetNs")
    for one in times:
        _exactly(one, {"incarnation", "beginNs", "endNs", "devices"})
        one.whole("incarnation", 1, len(periods))
        if not one.texts("devices"):
            one.wrong("devices", "a list of names")
        _span(one, "beginNs", "endNs")


def _span(times: FieldReader, *names: str) -> None:
    begin, end, *_ = (whole_number(times.raw(name), signed=True) for name in names)
    if begin > end:
        raise ValueError("a period or a device's time ends before it begins")


def _declared(declared: FieldReader, *, conflict: bool) -> None:
    _exactly(declared, {"method", "base", "contradictions", *(["conflict"] if conflict else [])})
    if not isinstance(declared.raw("contradictions"), list):
        declared.wrong("contradictions", "a list")
    for one in declared.objects("contradictions"):
        one.text("name"), note_from(one.mapping)
    declared.maybe_text("method")
    if conflict:
        _texts(declared, "conflict")
    if (base := declared.maybe_object("base")) is not None:
        reason = ["reason"] if "reason" in base else []
        _exactly(base, {"name", "kind", "flop", "method", "systemic", "declaredBy", *reason})
        base.text("declaredBy")


def _texts(fields: FieldReader, name: str) -> tuple[str, ...]:
    if not isinstance(fields.raw(name), list):
        fields.wrong(name, "a list of texts")
    return fields.texts(name)


def _exactly(fields: FieldReader, names: set[str]) -> None:
    if fields.mapping.keys() != names:
        raise ValueError(f"{fields.path} must have exactly the members {', '.join(sorted(names))}")
