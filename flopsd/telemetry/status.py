"""The status of a run, from a running daemon's snapshot or from a journal. Counts are decimal strings.

`/api/status` serves it, the page at `/` shows it and `flopsd status` prints it. None: not known. A status from a
journal lacks what only a running daemon has, such as gauges, or why a source is down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flopsd import __version__
from flopsd.core.ledger.history import History
from flopsd.core.ledger.run_view import DeviceView, RunView
from flopsd.core.model import ESTIMATING, Device, Evidence
from flopsd.core.policy.forecast import Rates, mean_rates, outlook
from flopsd.core.policy.guidelines import NOTHING_COUNTED
from flopsd.core.tally import Tally
from flopsd.core.values import NS_PER_S, joules, seconds, text_or_none, utc_ns
from flopsd.settings.data_files import is_packaged
from flopsd.system.clock import rfc3339
from flopsd.telemetry.health import DeviceHealth, Health, health_of
from flopsd.telemetry.last_gap import LastGap, last_gap, not_read_yet, open_gap
from flopsd.telemetry.rate_history import rates
from flopsd.telemetry.snapshot import DeviceState, Snapshot, SourceState

Facts = dict[str, Any]
SCHEMA = "flopsd-status/1"
_STARTING = SourceState().reason


def status_of_snapshot(snapshot: Snapshot) -> Facts:
    """The status from a running daemon's snapshot."""
    view, appended = snapshot.view, snapshot.wall_ns(snapshot.journal_last_append_ns)
    now = {state.device.uid: state for state in snapshot.devices}
    return {
        **_run(view, goes_on=not snapshot.ended),
        "health": _health_of_snapshot(snapshot).facts(),
        "daemon": "running",
        "endReason": None,
        "replay": snapshot.replay,
        "ownPeakTableSha256": _own_table(snapshot.table.sha256),
        **_stopped(snapshot.stops_ns, snapshot.stops_by_wall_clock),
        "lastRecordAt": None if appended is None else rfc3339(appended),
        "measuredFlopPerSecond": None if snapshot.ended else text_or_none(snapshot.rate_flop_per_s),
        "rateHistory": _rate_history(snapshot),
        "sources": [
            _source(name, state, snapshot) for name, state in sorted(snapshot.sources.items()) if not state.absent
        ],
        "journal": {"records": str(snapshot.journal_records), "fault": snapshot.journal_fault},
        "signingKey": _signing_key(snapshot),
        "rollingSealFault": None if (state := snapshot.journal_state) is None else state.seal_fault or None,
        "undeliveredLedgers": None if state is None else state.undelivered_ledgers,
        "devices": [
            {**_device(device), **_device_now(now.get(device.device.uid), device, snapshot)} for device in view.devices
        ],
    }


def status_of_journal(
    history: History, view: RunView, before: tuple[RunView, int], *, held: bool, undelivered: int | None
) -> Facts:
    """The status from a journal and its view. `before`: view and boot time of its last but one reading; `held`: a
    daemon writes it; `undelivered`: how many sealed ledgers a destination still lacks."""
    last = history.incarnations[-1]
    measured, passed_ns, goes_on = view.figures.measured_flop, last.last_ns - before[1], held and last.end is None
    rate = None  # also if the run has ended or no daemon runs: the rate would be a past one
    if goes_on and measured is not None and passed_ns > 0:
        flop = measured - (before[0].figures.measured_flop or 0)
        rate = flop * NS_PER_S // passed_ns if flop or _measuring_ns(view) > _measuring_ns(before[0]) else None
    return {
        **_run(view, goes_on=goes_on),
        "health": _health_of_journal(history, view, held=held).facts(),
        "daemon": "running" if held else "not running",
        "endReason": None if last.end is None else last.end["reason"],
        "replay": history.replay is not None,
        "ownPeakTableSha256": _own_table(str(last.begin["peak_table_sha256"])),
        **_stopped(history.stops_ns(), history.stops_by_wall_clock()),
        "lastRecordAt": last.last_utc,
        "measuredFlopPerSecond": text_or_none(rate),
        "rateHistory": [],
        "sources": [{"name": name, "up": None, "reason": ""} for name in sorted(last.sources)],
        "journal": None,
        "signingKey": None,
        "rollingSealFault": None,
        "undeliveredLedgers": undelivered,
        "devices": [_device(device) for device in view.devices],
    }


def _measuring_ns(view: RunView) -> int:
    return sum(view.observed_ns_by_evidence.get(evidence, 0) for evidence in ESTIMATING)


def _health_of_snapshot(snapshot: Snapshot) -> Health:
    return health_of(
        [_device_health(state.device, state.tally, state.gap) for state in snapshot.devices],
        wall_offset_ns=snapshot.wall_offset_ns,
        last_record_ns=snapshot.wall_ns(snapshot.journal_last_append_ns),
        fault=snapshot.journal_fault,
        down=[
            name
            for name, state in sorted(snapshot.sources.items())
            if not (state.up or state.absent or state.reason == _STARTING)
        ],
        starting=any(state.reason == _STARTING for state in snapshot.sources.values()),
        has_upper_bound=snapshot.view.figures.high_flop is not None,
        replay=snapshot.replay,
        ended=snapshot.ended,
    )


def _health_of_journal(history: History, view: RunView, *, held: bool) -> Health:
    last = history.incarnations[-1]
    newest = {uid: not_read_yet(tally) for uid, tally in last.tallies.items()}
    for gap in history.gaps:
        if gap.incarnation == last.number:
            newest[gap.device] = last_gap(newest.get(gap.device), gap.begin_ns, gap.end_ns, gap.reason)
    last_record_ns = utc_ns(last.last_utc)
    # A gap at the start of a segment may have begun in the segment before.
    goes_on = history.is_segment and last.number == 1
    is_since_known = not (goes_on and any(newest[uid].since_ns == one.begin_ns for uid, one in last.tallies.items()))
    return health_of(
        [
            _device_health(entry.device, last.tallies[entry.device.uid], newest[entry.device.uid])
            for entry in last.devices.values()
        ],
        wall_offset_ns=last_record_ns - last.last_ns if is_since_known else None,
        last_record_ns=last_record_ns,
        starting=not last.sources,
        has_upper_bound=view.figures.high_flop is not None,
        replay=history.replay is not None,
        ended=last.end is not None,
        running=held,
        is_live=False,
    )


def _device_health(device: Device, tally: Tally, gap: LastGap | None) -> DeviceHealth:
    is_bounded = device.evidence is Evidence.UTILIZATION
    return DeviceHealth(
        tally.watermark_ns, gap, is_bounded=is_bounded, is_gpu=device.vendor == "nvidia" and not device.parent
    )


def _run(view: RunView, *, goes_on: bool) -> Facts:
    """The facts that follow from the view alone."""
    mean, with_integers = _rates(view) if goes_on else (None, None)
    return {
        "schema": SCHEMA,
        "flopsdVersion": __version__,
        "run": view.run,
        "node": view.node,
        "nodeRank": view.rank,
        "jobNodes": view.job_nodes or None,
        "daemonStarts": view.start,
        "phase": None if (phase := view.declarations.settings.phase) is None else phase.value,
        "executed": view.figures.for_ledger(),
        "mayBeIntegerFlop": str(view.may_be_integer_flop),
        "integerOperations": view.integers.for_ledger(),
        "guidelines": view.bases.guidelines.for_ledger(view.bases.claimed),
        "thresholds": outlook(view.findings, mean, with_integers),
        "knownSeconds": seconds(view.job_ns - view.unknown_ns),
        "jobSeconds": seconds(view.job_ns),
    }


def _own_table(sha256: str) -> str | None:
    """The SHA-256 of a peak table that flopsd does not ship; None: it is one that it ships."""
    return None if is_packaged(sha256) else sha256


def _stopped(stops_ns: Sequence[int], by_wall_clock: bool | None) -> Facts:
    """How long the daemon was stopped between its starts; None: not known, since the clock was set back. And whether
    that is by the wall clock, in part at least, as after a reboot; None: not known."""
    stopped = seconds(sum(stops_ns)) if min(stops_ns, default=0) >= 0 else None
    return {"stoppedSeconds": stopped, "stoppedByWallClock": by_wall_clock}


def _source(name: str, state: SourceState, snapshot: Snapshot) -> Facts:
    last = snapshot.wall_ns(state.last_reading_ns)
    return {
        "name": name,
        "up": state.up,
        "reason": "" if state.up else state.reason,
        "lastReadingAt": None if last is None else rfc3339(last),
        "errors": {reason: str(count) for reason, count in sorted(state.errors.items())},
    }


def _rate_history(snapshot: Snapshot) -> list[Facts]:
    offset_ns = snapshot.wall_offset_ns
    return [
        {
            "startedAt": rfc3339(int(begin_s * NS_PER_S) + offset_ns),
            "endedAt": rfc3339(int(end_s * NS_PER_S) + offset_ns),
            "measuredFlopPerSecond": None if rate is None else str(int(rate)),
        }
        for begin_s, end_s, rate in rates(snapshot.rates)
    ]


def _signing_key(snapshot: Snapshot) -> Facts | None:
    """The state of the signing key; None if it was not tried yet."""
    key = None if snapshot.journal_state is None else snapshot.journal_state.key
    if key is None or key.usable is None:
        return None
    return {"usable": key.usable, "reason": key.reason, "problem": key.problem}


def _device_now(state: DeviceState | None, view: DeviceView, snapshot: Snapshot) -> Facts:
    """The facts of a device that only a running daemon has. `state`: None if only earlier daemon starts metered it."""
    gauges, rate = (None, None) if snapshot.ended or state is None else (state.gauges, state.rate_flop_per_s)
    gap = None if state is None else open_gap(state.gap, state.tally.watermark_ns)
    since = None if gap is None else rfc3339(gap.since_ns + snapshot.wall_offset_ns)
    return {
        "metered": state is not None,
        "gap": None if gap is None else {"reason": gap.reason.value, "since": since},
        "source": view.entry.source,
        "peakRow": view.entry.part_id,
        "measuredFlopPerSecond": text_or_none(rate),
        "pipeActivityRatio": {} if gauges is None else {p.value: r for p, r in gauges.pipe_activity_ratio.items()},
        "utilizationRatio": None if gauges is None else gauges.utilization_ratio,
        "smClockMhz": None if gauges is None else gauges.sm_clock_mhz,
    }


def _device(view: DeviceView) -> Facts:
    device = view.device
    return {
        "index": device.index,
        "uuid": device.uid,
        "model": device.model,
        "evidence": sorted(
            one.value for one in {*view.observed_ns_by_evidence, *(row.evidence for row in view.operator_rows)}
        )
        or [Evidence.GAP.value],
        "evidenceReason": device.evidence_reason,
        "evidenceFix": device.evidence_fix,
        "sharedWith": device.shared,
        "precision": None if (precision := view.entry.precision) is None else precision.label,
        "executed": view.figures.for_ledger(),
        "integerOperations": view.integers.for_ledger(),
        "observedSeconds": seconds(view.observed_ns),
        "gapSeconds": seconds(view.gap_ns),
        "gapSecondsByReason": {reason.value: seconds(ns) for reason, ns in view.gap_ns_by_reason.items()},
        "recoveredSeconds": seconds(view.recovered_ns),
        "energyJoules": joules(view.energy_mj),
        "energyUncountedSeconds": seconds(view.energy_unknown_ns),
    }


def _rates(view: RunView) -> tuple[Rates | None, Rates | None]:
    """The mean rates of FLOP, and of FLOP and integer operations together, of this daemon start, over the time that its
    tallies cover, which includes the gap before it."""
    earlier, now = view.before(view.start), [one.tally for one in view.rated if one.start == view.start]
    flop, integers = (
        (earlier.bases.guidelines, earlier.bases.integers) if earlier.rated else (NOTHING_COUNTED, NOTHING_COUNTED)
    )
    bases = view.bases
    begin_ns = min((tally.begin_ns for tally in now), default=0)
    end_ns = max((tally.watermark_ns for tally in now), default=0)
    return (
        mean_rates(flop, bases.guidelines, end_ns - begin_ns),
        mean_rates(flop + integers, bases.guidelines + bases.integers, end_ns - begin_ns),
    )
