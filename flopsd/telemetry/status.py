"""How a run stands, as facts: of a running daemon's snapshot, and of a journal. Counts are decimal strings.

What `/api/status` serves, the page at `/` shows and `flopsd status` prints. None is what is not known; what only a
running daemon knows (gauges, why a source is down) is absent from a journal's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flopsd import __version__
from flopsd.core.figures import by_phase, figures_json, rows, sum_figures, total, total_of
from flopsd.core.ledger.devices import energy_joules, energy_uncounted, rating_of, seconds
from flopsd.core.ledger.history import History
from flopsd.core.ledger.statement import figures_of, meaning_of
from flopsd.core.model import ESTIMATING, Device, DeviceUid, Evidence, Figures, GapReason, Tally
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import meaning
from flopsd.core.policy.evaluate import Case, Policy, findings
from flopsd.core.policy.forecast import NOTHING_BEFORE, NS_PER_S, mean_rates, outlook
from flopsd.core.policy.guidelines import Guidelines
from flopsd.system.clock import rfc3339
from flopsd.telemetry.snapshot import DeviceState, Snapshot, SourceState

Facts = dict[str, Any]
SCHEMA = "flopsd-status/1"


def facts_of(snapshot: Snapshot) -> Facts:
    """Of a running daemon."""
    rated = snapshot.rated()
    found = snapshot.meaning(rated)
    rate = snapshot.rate_flop_per_s()
    tallies = [t for state in snapshot.devices for t, _ in state.all_tallies()] + [t for t, _ in snapshot.earlier]
    rates = mean_rates(_before(snapshot), found.guidelines, _passed_ns([s.tally for s in snapshot.devices]))
    appended = snapshot.journal_last_append_wall_ns
    return {
        "schema": SCHEMA,
        "flopsdVersion": __version__,
        "run": snapshot.run,
        "node": snapshot.node,
        "daemonStarts": snapshot.incarnation,
        "daemon": "running",
        "endReason": None,
        "replay": snapshot.replay,
        "lastRecordAt": None if appended is None else rfc3339(appended),
        "executed": figures_json(snapshot.figures()),
        "guidelines": found.guidelines.for_ledger(),
        "thresholds": outlook(snapshot.findings(found), rates),
        "measuredFlopPerSecond": None if rate is None else str(rate),
        **_coverage(tallies),
        "sources": [_source(name, state) for name, state in sorted(snapshot.sources.items()) if not state.absent],
        "journal": {"records": str(snapshot.journal_records), "fault": snapshot.journal_fault},
        "devices": sorted((_device_now(state, snapshot.table) for state in snapshot.devices), key=_order),
    }


def facts_in(
    history: History, before: tuple[Figures, int], table: PeakTable, policies: Sequence[Policy], *, held: bool
) -> Facts:
    """Of a journal. `before`: figures and time of its last but one reading; `held`: a daemon writes to it."""
    last = history.incarnations[-1]
    figures, passed_ns = figures_of(history, table), last.last_ns - before[1]
    rate = None
    if figures.measured_flop is not None and passed_ns > 0:
        rate = (figures.measured_flop - (before[0].measured_flop or 0)) * NS_PER_S // passed_ns
    found = meaning_of(history, table)
    roster = last.begin["context"]["node"]["jobNodes"]
    case = Case(
        found.guidelines.updates, found.guidelines.cumulative, found.told.method, found.told.base, len(roster) <= 1
    )
    rates = None  # of a run that has ended nothing goes on
    if last.end is None:
        rates = mean_rates(_before_last(history, table), found.guidelines, _passed_ns(list(last.tallies.values())))
    return {
        "schema": SCHEMA,
        "flopsdVersion": __version__,
        "run": history.run,
        "node": history.node,
        "daemonStarts": last.number,
        "daemon": "running" if held else "not running",
        "endReason": None if last.end is None else last.end["reason"],
        "replay": history.replay is not None,
        "lastRecordAt": last.last_utc,
        "executed": figures_json(figures),
        "guidelines": found.guidelines.for_ledger(),
        "thresholds": outlook((one for policy in policies for one in findings(policy, case)), rates),
        "measuredFlopPerSecond": None if rate is None else str(rate),
        **_coverage([tally for i in history.incarnations for tally in i.tallies.values()]),
        "sources": [{"name": name, "up": None, "reason": ""} for name in sorted(last.sources)],
        "journal": None,
        "devices": sorted(_devices_in(history, table).values(), key=_order),
    }


def _coverage(tallies: Sequence[Tally]) -> Facts:
    """Device time that was this job's, and what of it is known."""
    return {
        "knownSeconds": seconds(sum(tally.job_ns - tally.unknown_ns for tally in tallies)),
        "jobSeconds": seconds(sum(tally.job_ns for tally in tallies)),
    }


def _source(name: str, state: SourceState) -> Facts:
    last = state.last_reading_wall_ns
    return {
        "name": name,
        "up": state.up,
        "reason": "" if state.up else state.reason,
        "lastReadingAt": None if last is None else rfc3339(last),
        "errors": {reason: str(count) for reason, count in sorted(state.errors.items())},
    }


def _device_now(state: DeviceState, table: PeakTable) -> Facts:
    rate, gauges = state.rate_flop_per_s(table), state.gauges
    return {
        **_device(state.device, state.figures(table), [tally for tally, _ in state.all_tallies()]),
        "source": state.source,
        "peakRow": state.part_id,
        "measuredFlopPerSecond": None if rate is None else str(rate),
        "pipeActivityRatio": {} if gauges is None else {p.value: r for p, r in gauges.pipe_activity_ratio.items()},
        "utilizationRatio": None if gauges is None else gauges.utilization_ratio,
        "smClockMhz": None if gauges is None else gauges.sm_clock_mhz,
    }


def _devices_in(history: History, table: PeakTable) -> dict[DeviceUid, Facts]:
    found: dict[DeviceUid, Facts] = {}
    for incarnation in history.incarnations:
        for entry in incarnation.devices.values():
            uid = entry.device.uid
            rated = [(i.tallies[uid], rating_of(i, uid, table)) for i in history.incarnations if uid in i.tallies]
            figures = sum_figures(total(t, r, table) for t, r in rated)
            found[uid] = _device(entry.device, figures, [tally for tally, _ in rated])
    return found


def _device(device: Device, figures: Figures, tallies: Sequence[Tally]) -> Facts:
    seen = {evidence for tally in tallies for evidence in tally.observed_ns}
    if figures.measured_flop is None and any(evidence in ESTIMATING for evidence in seen):
        figures = Figures(figures.low_flop, 0, figures.high_flop)  # every pipe was read and was idle
    gaps: dict[GapReason, int] = {}
    for tally in tallies:
        for reason, ns in tally.gap_ns.items():
            gaps[reason] = gaps.get(reason, 0) + ns
    return {
        "index": device.index,
        "uuid": device.uid,
        "model": device.model,
        "evidence": sorted(e.value for e in seen) or [Evidence.GAP.value],
        "evidenceReason": device.evidence_reason,
        "evidenceFix": device.evidence_fix,
        "sharedWith": device.shared,
        "executed": figures_json(figures),
        "observedSeconds": seconds(sum(t.total_observed_ns for t in tallies)),
        "gapSeconds": seconds(sum(t.total_gap_ns for t in tallies)),
        "gapSecondsByReason": {reason.value: seconds(ns) for reason, ns in gaps.items()},
        "recoveredSeconds": seconds(sum(t.recovered_ns for t in tallies)),
        "energyJoules": energy_joules(tallies),
        "energyUncountedSeconds": energy_uncounted(tallies),
    }


def _passed_ns(tallies: Sequence[Tally]) -> int:
    """The time that the tallies of one incarnation cover, with what it found unobserved before it."""
    begin, end = min((t.begin_ns for t in tallies), default=0), max((t.watermark_ns for t in tallies), default=0)
    return end - begin


def _before(snapshot: Snapshot) -> Guidelines:
    """What counted before this incarnation."""
    parts = [*snapshot.earlier, *(part for state in snapshot.devices for part in state.earlier)]
    if not parts:
        return NOTHING_BEFORE
    rated = [(tally, rows(tally, rating, snapshot.table)) for tally, rating in parts]
    executed = sum_figures(total_of(its, tally) for tally, its in rated)
    return meaning((by_phase(tally, its) for tally, its in rated), executed, snapshot.told).guidelines


def _before_last(history: History, table: PeakTable) -> Guidelines:
    if len(history.incarnations) < 2:
        return NOTHING_BEFORE
    return meaning_of(History(history.incarnations[:-1], sessions=history.sessions), table).guidelines


def _order(device: Mapping[str, Any]) -> tuple[int, str]:
    return int(device["index"]), str(device["uuid"])
