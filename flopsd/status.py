"""How a run stands: read from a state folder (exact, daemon running or not) or from a daemon's /metrics."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flopsd.context import default_state_dir
from flopsd.core.figures import figures_json, sum_figures, total
from flopsd.core.flop import format_flop
from flopsd.core.ledger import figures_of
from flopsd.core.model import DeviceUid, Evidence
from flopsd.core.peaks import PeakTable
from flopsd.core.rated import rating_of, seconds
from flopsd.core.records import History, extend
from flopsd.errors import FlopsdError, JournalError
from flopsd.framing import GENESIS
from flopsd.journal import StateDir, newest_pending, read_live
from flopsd.outlook import thresholds
from flopsd.report import share_text
from flopsd.tables import Tables

_TIMEOUT_SECONDS = 5


def from_state_dir(
    folder: str | None, environment: Mapping[str, str], peaks_file: str | None = None, policy_files: Sequence[str] = ()
) -> dict[str, Any]:
    """Facts of the run in a state folder. Raises JournalError where there is none."""
    state = StateDir(Path(folder) if folder else default_state_dir(environment))
    if not state.journal.is_file():
        raise JournalError(f"there is no journal in {state.path}", hint="give --state-dir the folder of `flopsd run`")
    history, head = History(), GENESIS
    for line in read_live(state.journal):
        extend(history, line.record())
        head = line.head
    if not history.incarnations:
        raise JournalError(f"the journal in {state.path} holds no whole record yet")
    tables = Tables(peaks_file, policy_files)
    table = tables.peaks(str(history.incarnations[-1].begin["peaks_sha256"]))
    before, before_ns = figures_of(history, table), history.incarnations[-1].last_ns
    pending = newest_pending(state.pending, head)
    if pending is not None:
        extend(history, pending)
    figures, passed_ns = figures_of(history, table), history.incarnations[-1].last_ns - before_ns
    rate = None
    if figures.measured_flop is not None and passed_ns > 0:
        rate = (figures.measured_flop - (before.measured_flop or 0)) * 1_000_000_000 // passed_ns
    last = history.incarnations[-1]
    devices = _devices(history, table)
    found, outlook = thresholds(history, table, tables.policies(history.policy_sha256))
    return {
        "run": history.run,
        "node": history.node,
        "incarnation": last.number,
        "daemon": "running" if state.is_held() else "not running",
        "ended": None if last.end is None else last.end["why"],
        "replay": history.replay is not None,
        "lastRecordAt": last.last_utc,
        "executed": figures_json(figures),
        "guidelines": found.guidelines.for_ledger(),
        "thresholds": outlook,
        "measuredFlopPerSecond": None if rate is None else str(rate),
        "knownSeconds": seconds(
            sum(t.span_ns - t.unknown_ns for i in history.incarnations for t in i.tallies.values())
        ),
        "spanSeconds": seconds(sum(t.span_ns for i in history.incarnations for t in i.tallies.values())),
        "sources": sorted(last.sources),
        "devices": devices,
    }


def _devices(history: History, table: PeakTable) -> list[dict[str, Any]]:
    found: dict[DeviceUid, dict[str, Any]] = {}
    for incarnation in history.incarnations:
        for entry in incarnation.devices.values():
            uid = entry.device.uid
            tallies = [(i.tallies[uid], rating_of(i, uid, table)) for i in history.incarnations if uid in i.tallies]
            seen = {e for tally, _ in tallies for e in tally.observed_ns}
            found[uid] = {
                "index": entry.device.index,
                "uuid": uid,
                "model": entry.device.model,
                "evidence": sorted(e.value for e in seen) or [Evidence.GAP.value],
                "evidenceReason": entry.device.evidence_reason,
                "executed": figures_json(sum_figures(total(t, r, table) for t, r in tallies)),
                "observedSeconds": seconds(sum(t.total_observed_ns for t, _ in tallies)),
                "gapSeconds": seconds(sum(t.total_gap_ns for t, _ in tallies)),
                "recoveredSeconds": seconds(sum(t.recovered_ns for t, _ in tallies)),
            }
    return sorted(found.values(), key=lambda device: (device["index"], device["uuid"]))


def from_url(url: str) -> dict[str, Any]:
    """The same facts from a daemon's /metrics; floats there, so only as exact as Prometheus has them."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urllib.request.urlopen(url.rstrip("/") + "/metrics", timeout=_TIMEOUT_SECONDS) as answer:
            text = answer.read().decode("utf-8")
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (OSError, ValueError, urllib.error.URLError) as fault:
        raise FlopsdError(
            f"cannot read {url}: {fault}", hint="is the daemon running, and is this its --listen address?"
        ) from fault

    def rows(name: str) -> list[tuple[Mapping[str, str], float]]:
        return [(sample.labels, sample.value) for sample in samples if sample.name == name]

    bounds = {(labels["basis"], labels["bound"]): value for labels, value in rows("flopsd_run_flop")}
    info = next((labels for labels, _ in rows("flopsd_run_info")), {})
    by_uuid = {labels["uuid"]: labels for labels, _ in rows("flopsd_device_info")}
    observed, gaps, recovered = (
        _by_uuid(rows(f"flopsd_{name}_seconds_total")) for name in ("observed", "gap", "recovered")
    )
    measured = _by_uuid(rows("flopsd_flop_total"))
    return {
        "run": info.get("run_id", ""),
        "node": info.get("node", ""),
        "incarnation": next((int(v) for _, v in rows("flopsd_incarnation_number")), 0),
        "daemon": "running",
        "ended": None,
        "replay": info.get("replay") == "true",
        "lastRecordAt": None,
        "executed": _bounds(bounds, "executed"),
        "guidelines": {**_bounds(bounds, "guidelines"), "cumulative": _bounds(bounds, "guidelines_cumulative")},
        "thresholds": _thresholds(rows("flopsd_verdict"), rows("flopsd_threshold_flop"), bounds),
        "measuredFlopPerSecond": None,
        "knownSeconds": f"{sum(observed.values()) + sum(recovered.values()):.3f}",
        "spanSeconds": f"{sum(observed.values()) + sum(gaps.values()):.3f}",
        "sources": sorted(labels["source"] for labels, value in rows("flopsd_source_up") if value),
        "devices": [
            {
                "index": int(labels["gpu"]),
                "uuid": uuid,
                "model": labels["model"],
                "evidence": [labels["evidence"]],
                "evidenceReason": "",
                "executed": {"low": None, "measured": _whole(measured.get(uuid)), "high": None},
                "observedSeconds": f"{observed.get(uuid, 0):.3f}",
                "gapSeconds": f"{gaps.get(uuid, 0):.3f}",
                "recoveredSeconds": f"{recovered.get(uuid, 0):.3f}",
            }
            for uuid, labels in sorted(by_uuid.items(), key=lambda item: int(item[1]["gpu"]))
        ],
    }


def _bounds(told: Mapping[tuple[str, str], float], basis: str) -> dict[str, str | None]:
    known = {bound: told.get((basis, bound), float("inf")) for bound in ("low", "measured", "high")}
    return {bound: None if value == float("inf") else str(int(value)) for bound, value in known.items()}


def _thresholds(
    verdicts: list[tuple[Mapping[str, str], float]],
    limits: list[tuple[Mapping[str, str], float]],
    bounds: Mapping[tuple[str, str], float],
) -> list[dict[str, Any]]:
    """State and share by rule; what the metrics do not carry, such as titles and forecasts, is left out."""
    flop = {(row["policy"], row["rule"], row["bound"]): value for row, value in limits}
    high = bounds.get(("guidelines_cumulative", "high"), float("inf"))
    found = []
    for row, value in verdicts:
        if value:
            limit = flop.get((row["policy"], row["rule"], "low"))
            most = None if not limit or high == float("inf") else str(math.ceil(high / limit * 1e6))
            found.append(
                {
                    "policy": row["policy"],
                    "rule": row["rule"],
                    "title": row["rule"],
                    "applies": None,
                    "state": row["state"],
                    "why": "",
                    "sharePpm": {"low": None, "measured": None, "high": most},
                    "crossing": None,
                }
            )
    return found


def _by_uuid(rows: list[tuple[Mapping[str, str], float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for labels, value in rows:
        found[labels["uuid"]] = found.get(labels["uuid"], 0.0) + value
    return found


def _whole(value: float | None) -> str | None:
    return None if value is None else str(int(value))


def status_text(told: Mapping[str, Any]) -> str:
    """The facts in a terminal of 80 columns."""
    executed, rate = told["executed"], told["measuredFlopPerSecond"]
    span = float(told["spanSeconds"])
    coverage = (
        "unknown" if not span else f"{100 * float(told['knownSeconds']) / span:.2f} % of {span:.1f} device seconds"
    )
    lines = [
        *(["REPLAY of a recording: no hardware is metered"] if told["replay"] else []),
        f"run        {told['run']} on {told['node']}, incarnation {told['incarnation']}, daemon {told['daemon']}"
        + (f", ended: {told['ended']}" if told["ended"] else ""),
        f"measured   {_shown(executed['measured'], 'nothing was measured')}",
        f"at least   {_shown(executed['low'], 'unknown')}",
        f"at most    {_shown(executed['high'], 'no upper bound is known')}",
        f"guidelines {_counted(told['guidelines'])}",
        *threshold_lines(told["thresholds"]),
        f"rate       {'unknown' if rate is None else format_flop(int(rate), 'FLOP/s')}",
        f"coverage   {coverage}",
        f"sources    {', '.join(told['sources']) or 'none'}",
        "",
        f"{'GPU':>3}  {'model':<28} {'evidence':<12} {'measured':>15} {'gap s':>10}",
    ]
    for device in told["devices"]:
        measured = device["executed"]["measured"]
        shown = "ceiling only" if measured is None else format_flop(int(measured))
        lines.append(
            f"{device['index']:>3}  {device['model'][:28]:<28} {','.join(device['evidence'])[:12]:<12} "
            f"{shown:>15} {float(device['gapSeconds']):>10.2f}"
        )
    return "\n".join(lines) + "\n"


def _counted(guidelines: Mapping[str, Any]) -> str:
    """What counts as training compute: an interval, and a point where declarations make one."""
    point = "" if guidelines["measured"] is None else f"{format_flop(int(guidelines['measured']))}, "
    high = _shown(guidelines["high"], "no known bound")
    return f"{point}{format_flop(int(guidelines['low'] or 0))} to {high}"


def threshold_lines(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a rule: its state, the most that the run can be of it, when it would be crossed at the mean rate."""
    lines = []
    for one in told:
        high, when = one["sharePpm"]["high"], one["crossing"]
        share = "no upper bound" if high is None else f"at most {share_text(int(high))}"
        crossing = "" if when is None or one["state"] == "above" else f", {_when(when)}"
        lines.append(f"threshold  {one['rule']}: {str(one['state']).upper()}, {share}{crossing}")
    return lines


def _when(crossing: Mapping[str, str | None]) -> str:
    earliest, latest = crossing["earliestSeconds"], crossing["latestSeconds"]
    if earliest is None:
        return "not crossed at this rate"
    until = "" if latest is None else f" to {_days(latest)}"
    return (
        f"crossed in {_days(earliest)}{until} at this rate"
        if latest
        else f"crossed in {_days(earliest)} at the earliest"
    )


def _days(seconds_text: str) -> str:
    days = int(seconds_text) // 86_400
    return f"{days} days" if days < 3650 else f"{days // 365} years" if days < 3_650_000 else "over 10 000 years"


def _shown(flop: str | None, otherwise: str) -> str:
    return otherwise if flop is None else format_flop(int(flop))
