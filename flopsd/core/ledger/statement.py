"""The ledger: a history and a peak table as an in-toto Statement, deterministically.

`predicate` is a pure function of the journal, the table and the few facts of sealing, so a verifier
runs it again on the journal and compares every field. Counts are decimal strings; there are no floats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopsd.core.figures import by_phase, figures_json, gap_ceiling_flop, rows, sum_figures, total, total_of
from flopsd.core.ledger.devices import (
    RatedTally,
    devices_for_ledger,
    energy_joules,
    energy_uncounted,
    rating_of,
    seconds,
)
from flopsd.core.ledger.history import GapInterval, History, Incarnation
from flopsd.core.ledger.sections import (
    architecture_for_ledger,
    by_phase_for_ledger,
    declared_for_ledger,
    findings_for_ledger,
    guidelines_for_ledger,
    policies_for_ledger,
)
from flopsd.core.meter import COUNTER_REFRESH_NS, max_counted_flop, max_plausible_sm_cycles
from flopsd.core.model import (
    ACCOUNTED_ELSEWHERE,
    ESTIMATING,
    PPM,
    DeviceUid,
    Evidence,
    Figures,
    GapReason,
    Limits,
    Tally,
)
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import Bases, meaning, told
from flopsd.core.policy.evaluate import Policy
from flopsd.core.policy.reconcile import reconcile
from flopsd.errors import JournalDamagedError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://flopsd.dev/attestations/compute-ledger/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_LISTED_GAPS = 1000
NOTHING_ESTIMATES = "no counter that estimates was read: high is a ceiling, not an estimate"

CLAIM = (
    "This is what the daemon of the named key's holder read from the accelerators' driver, complete since its "
    "first record, unaltered since the checkpoints that left the host, with the gaps listed here."
)
CLAIM_LIMIT = (
    "It does not prove that the compute took place: whoever controls the host can present a false driver. "
    "totals.executed is what the hardware executed, not what a regulation counts; what a regulation counts rests on "
    "declarations, which nobody measured. Findings are no legal advice."
)
ASSUMPTIONS = (
    "One fused multiply-add is 2 FLOP. Rates are dense: structured sparsity is not doubled.",
    "measured = SM-cycles of an active pipe x dense FLOP per cycle of the pipe. It says nothing of gaps.",
    "No counter separates FP16, BF16, TF32, FP8 and FP4. Where no format is declared, measured takes dense BF16, "
    "low the slowest and high the fastest format of the pipe on that part.",
    "A reading belongs to a declared phase only where that phase was in force for all of the reading's time; a change "
    "takes effect when the daemon hears of it.",
    "low leaves out the FP32 pipe, which counts integer multiply-adds too, INT8 tensor work, and what is only bounded.",
    "high adds the margins, and the most that the device can do for every interval only bounded or not observed.",
    "A pipe whose rate the table does not state is not in measured; high holds a bound for it.",
    "Energy is what the devices' counters counted; device seconds of which none told it are named beside it.",
    "utilization is the share of time in which any kernel ran: a ceiling, never an estimate.",
    "cycles are differences of counters that run on while nobody looks: recoveredSeconds of the gaps are counted by "
    "them. Their origin says their scale as the self-test found it: SM-cycles = counter x N.",
    "The SM clock of activity is integrated from samples; clockUncertaintyFlop is how far off it may be in between.",
    "count is what the vendor's software counted (executions x compiled operations), not a hardware counter.",
)


@dataclass(frozen=True, slots=True)
class JournalFacts:
    """What identifies a journal file."""

    sha256: str
    size_bytes: int
    records: int
    head_sha256: str  # chain hash of its last record


@dataclass(frozen=True, slots=True)
class SealFacts:
    """What the journal cannot say: by whom and when the ledger was made."""

    flopsd_version: str
    sealed_at: str
    evidence: tuple[Mapping[str, Any], ...] = ()  # collected at the seal; a verifier takes the signed one
    policies: tuple[Policy, ...] = ()  # those that the journal names, by their SHA-256


def figures_of(history: History, table: PeakTable) -> Figures:
    """The run's executed FLOP: low, measured, high."""
    return _whole(
        total(tally, rating_of(incarnation, uid, table), table)
        for incarnation in history.incarnations
        for uid, tally in incarnation.tallies.items()
    )


def meaning_of(history: History, table: PeakTable) -> Bases:
    """What the run's figures mean so far."""
    return _meaning(history, list(_rated(history, table)))


def _meaning(history: History, everything: Sequence[RatedTally]) -> Bases:
    return meaning(
        (by_phase(one.tally, one.rows) for one in everything),
        _whole(one.figures for one in everything),
        told(history.declared, list(history.sessions.values())),
    )


def _rated(history: History, table: PeakTable) -> Iterator[RatedTally]:
    for incarnation in history.incarnations:
        for uid, tally in incarnation.tallies.items():
            rating = rating_of(incarnation, uid, table)
            its_rows = rows(tally, rating, table)
            yield RatedTally(uid, tally, rating, its_rows, total_of(its_rows, tally))


def _whole(parts: Iterable[Figures]) -> Figures:
    known = list(parts)
    return sum_figures(known) if known else Figures(0, None, None)  # nobody knows what accelerators there were


def statement(history: History, table: PeakTable, journal: JournalFacts, seal: SealFacts) -> dict[str, Any]:
    """The in-toto Statement v1 whose subject is the journal. Raises LedgerError, JournalDamagedError."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "journal.jsonl", "digest": {"sha256": journal.sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate(history, table, journal, seal),
    }


def encode(document: Mapping[str, Any]) -> bytes:
    """The bytes that are signed: readable JSON, ASCII, no floats."""
    return json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def predicate(history: History, table: PeakTable, journal: JournalFacts, seal: SealFacts) -> dict[str, Any]:
    """The predicate of design 5a, kind `node`."""
    history.account()  # refuses a device that is counted twice at once
    _refuse_impossible(history, table)
    first, last = history.incarnations[0], history.incarnations[-1]
    everything, rated = list(_rated(history, table)), dict[DeviceUid, list[RatedTally]]()
    for one in everything:
        rated.setdefault(one.uid, []).append(one)
    tallies = [one.tally for one in everything]
    found = _meaning(history, everything)
    roster = first.begin["context"]["node"]["jobNodes"]
    return {
        "kind": "node",
        "replay": history.replay,
        "run": {"id": history.run, **first.begin["context"]["run"]},
        "node": {"name": history.node, **first.begin["context"]["node"]},
        "attempts": sorted({str(inc.begin["context"]["attempt"]) for inc in history.incarnations}),
        "incarnations": [_incarnation(inc) for inc in history.incarnations],
        "devices": devices_for_ledger(history, table, rated),
        "declared": declared_for_ledger(found, history.declared, history.sessions.values()),
        "totals": {
            "executed": _executed(table, everything, found),
            "guidelines": guidelines_for_ledger(found),
            "architecture": architecture_for_ledger(found.told.architecture),
            "architectureAbsentReason": found.told.absent or None,
        },
        "energyJoules": energy_joules(tallies),
        "energyUncountedSeconds": energy_uncounted(tallies),
        "deviceSeconds": seconds(sum(tally.span_ns for tally in tallies)),
        "wallSeconds": seconds(sum(inc.last_ns - inc.begin["ns"] for inc in history.incarnations)),
        "coverage": _coverage(history, table),
        "findings": findings_for_ledger(
            seal.policies, found.guidelines, found.told.method, found.told.base, whole=len(roster) <= 1
        ),
        "reconciliation": _reconciliation(found),
        "evidence": [dict(item) for item in seal.evidence],
        "method": {
            "flopsdVersion": seal.flopsd_version,
            "sealedAt": seal.sealed_at,
            "peakTableSha256": table.sha256,
            "policies": policies_for_ledger(seal.policies),
            "configSha256": sorted({inc.begin["config_sha256"] for inc in history.incarnations}),
            "margins": {e.value: {"ppm": m.ppm, "source": m.source} for e, m in table.margins.items()},
            "assumptions": list(ASSUMPTIONS),
            "journal": {
                "sha256": journal.sha256,
                "bytes": str(journal.size_bytes),
                "records": str(journal.records),
                "headSha256": journal.head_sha256,
                "lastRecordAt": last.last_utc,
            },
        },
        "claim": {"text": CLAIM, "limits": CLAIM_LIMIT},
    }


def _incarnation(incarnation: Incarnation) -> dict[str, Any]:
    begin, end = incarnation.begin, incarnation.end
    return {
        "number": incarnation.number,
        "bootId": incarnation.boot_id,
        "startedAt": begin["utc"],
        "lastRecordAt": incarnation.last_utc,
        "endReason": None if end is None else end["reason"],
        "childExitCode": None if end is None else end.get("child_exit_code"),
        "attempt": begin["context"]["attempt"],
        "flopsdVersion": begin["flopsd_version"],
        "checkpoints": str(incarnation.checkpoints),
        "recovered": begin["recovered"],
        "precision": begin["precision"],
        "sources": incarnation.sources,
    }


def _reconciliation(found: Bases) -> list[dict[str, Any]]:
    architecture = found.told.architecture
    counted = None if architecture is None else architecture.counted
    ratios = reconcile(found.by_phase, found.guidelines.updates, counted, found.told.framework_flop)
    return [ratio.for_ledger() for ratio in ratios]


def _executed(table: PeakTable, rated: list[RatedTally], found: Bases) -> dict[str, Any]:
    by_evidence: dict[Evidence, Figures] = {}
    clock_uncertainty_flop = sum(row.clock_uncertainty_flop for one in rated for row in one.rows)
    for row in (row for one in rated for row in one.rows):
        known = by_evidence.get(row.evidence)
        by_evidence[row.evidence] = row.figures if known is None else known + row.figures
    seen = {evidence for one in rated for evidence in one.tally.observed_ns}
    return {
        **figures_json(found.executed),
        "method": _method(seen),
        "marginPpm": {e.value: table.margin_ppm(e) for e in sorted(by_evidence) if e in table.margins},
        "clockUncertaintyFlop": str(clock_uncertainty_flop),
        "byEvidence": {e.value: figures_json(by_evidence[e]) for e in sorted(by_evidence)},
        "byPhase": by_phase_for_ledger(found.by_phase),
    }


def _method(seen: set[Evidence]) -> str:
    """Where the measured figure comes from, in words."""
    words = {
        Evidence.CYCLES: "hardware cycle counters",
        Evidence.ACTIVITY: "hardware activity percentages and the SM clock",
        Evidence.COUNT: "the vendor's software count (executions x compiled operations)",
    }
    told = [words[evidence] for evidence in ESTIMATING if evidence in seen]
    return "; ".join(told) or NOTHING_ESTIMATES


def _coverage(history: History, table: PeakTable) -> dict[str, Any]:
    tallies = [tally for inc in history.incarnations for tally in inc.tallies.values()]
    by_reason: dict[GapReason, int] = {}
    for tally in tallies:
        for reason, gap_ns in tally.gap_ns.items():
            by_reason[reason] = by_reason.get(reason, 0) + gap_ns
    longest = sorted(history.gaps, key=lambda gap: gap.begin_ns - gap.end_ns)[:MAX_LISTED_GAPS]
    listed = sorted(longest, key=lambda gap: (gap.incarnation, gap.begin_ns, gap.device))
    return {
        "observedSeconds": seconds(sum(tally.total_observed_ns for tally in tallies)),
        "gapSeconds": seconds(sum(tally.total_gap_ns for tally in tallies)),
        "recoveredSeconds": seconds(sum(tally.recovered_ns for tally in tallies)),
        "spanSeconds": seconds(sum(tally.span_ns for tally in tallies)),
        "coveragePpm": _share_ppm(tallies),
        "gapSecondsByReason": {reason.value: seconds(ns) for reason, ns in sorted(by_reason.items())},
        "gaps": [_gap(history.incarnations[gap.incarnation - 1], gap, table) for gap in listed],
        "gapsNotListed": str(len(history.gaps) - len(listed)),
    }


def _share_ppm(tallies: list[Tally]) -> str | None:
    job_ns = sum(tally.job_ns for tally in tallies)
    return str((job_ns - sum(tally.unknown_ns for tally in tallies)) * PPM // job_ns) if job_ns else None


def _gap(incarnation: Incarnation, gap: GapInterval, table: PeakTable) -> dict[str, Any]:
    origin_ns = incarnation.begin["ns"]
    elsewhere = gap.reason in ACCOUNTED_ELSEWHERE
    most = (
        0
        if elsewhere
        else gap_ceiling_flop(gap.end_ns - gap.begin_ns, rating_of(incarnation, gap.device, table), table)
    )
    return {
        "device": gap.device,
        "incarnation": gap.incarnation,
        "reason": gap.reason.value,
        "beginSeconds": seconds(gap.begin_ns - origin_ns),
        "endSeconds": seconds(gap.end_ns - origin_ns),
        "seconds": seconds(gap.end_ns - gap.begin_ns),
        "ceiling": None if most is None else str(most),
    }


def _refuse_impossible(history: History, table: PeakTable) -> None:
    """No device was active for more cycles than it had or did more than it can, and rows and devices fit together."""
    for incarnation in history.incarnations:
        for entry in incarnation.devices.values():
            if entry.part_id is not None and entry.part_id not in table.parts:
                raise JournalDamagedError(
                    f"the journal rates {entry.device.uid} by row {entry.part_id!r}, which the peak table does not have"
                )
            tally, rating = incarnation.tallies[entry.device.uid], rating_of(incarnation, entry.device.uid, table)
            most = max_counted_flop(rating.limits, tally.job_ns)
            if most is not None and tally.counted_flop > most:
                raise JournalDamagedError(
                    f"of device {entry.device.uid} {tally.counted_flop} FLOP were counted of {most} possible ones"
                )
            if not isinstance(rating.limits, Limits):
                continue
            for (evidence, pipe), cycles in tally.active_sm_cycles.items():
                known_ns = tally.observed_ns.get(evidence, 0)
                if evidence is Evidence.CYCLES:
                    known_ns += tally.recovered_ns + COUNTER_REFRESH_NS
                # One extra cycle a reading for rounding; no run has more readings than milliseconds.
                possible = max_plausible_sm_cycles(rating.limits, known_ns) + tally.span_ns // 1_000_000
                if cycles > possible:
                    raise JournalDamagedError(
                        f"device {entry.device.uid} was {pipe.value} for {cycles} cycles of {possible} possible ones"
                    )
    for uid in {uid for incarnation in history.incarnations for uid in incarnation.tallies}:
        tallies = [inc.tallies[uid] for inc in history.incarnations if uid in inc.tallies]
        if sum(tally.recovered_ns for tally in tallies) > sum(tally.total_gap_ns for tally in tallies):
            raise JournalDamagedError(f"device {uid}: more gap time was recovered than there was")
        if sum(tally.energy_ns for tally in tallies) > sum(tally.job_ns for tally in tallies):
            raise JournalDamagedError(f"device {uid}: energy was counted for more time than there was")
