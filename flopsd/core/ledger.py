"""The ledger: a history and a peak table as an in-toto Statement, deterministically.

`predicate` is a pure function of the journal, the table and the few facts of sealing, so a verifier
runs it again on the journal and compares every field. Counts are decimal strings; there are no floats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flopsd.core.figures import (
    UNDECLARED,
    Rating,
    Row,
    gap_ceiling_flop,
    rows,
    sum_figures,
    takes_a_declaration,
    total,
    total_of,
)
from flopsd.core.meter import COUNTER_REFRESH_NS, max_plausible_sm_cycles
from flopsd.core.model import (
    ACCOUNTED_ELSEWHERE,
    ESTIMATING,
    PPM,
    UNDECLARED_PHASE,
    Device,
    DeviceUid,
    Evidence,
    Figures,
    GapReason,
    Limits,
    Tally,
)
from flopsd.core.peaks import PeakTable
from flopsd.core.records import GapInterval, History, Incarnation
from flopsd.errors import JournalDamagedError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://flopsd.dev/attestations/compute-ledger/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_LISTED_GAPS = 1000

CLAIM = (
    "This is what the daemon of the named key's holder read from the accelerators' driver, complete since its "
    "first record, unaltered since the checkpoints that left the host, with the gaps listed here."
)
CLAIM_LIMIT = (
    "It does not prove that the compute took place: whoever controls the host can present a false driver. "
    "Figures are what the hardware executed, not what a regulation counts."
)
ASSUMPTIONS = (
    "One fused multiply-add is 2 FLOP. Rates are dense: structured sparsity is not doubled.",
    "measured = SM-cycles of an active pipe x dense FLOP per cycle of the pipe. It says nothing of gaps.",
    "No counter separates FP16, BF16, TF32, FP8 and FP4. Where no format is declared, measured takes dense BF16, "
    "low the slowest and high the fastest format of the pipe on that part.",
    "low leaves out the FP32 pipe, which counts integer multiply-adds too, INT8 tensor work, and what is only bounded.",
    "high adds the margins, and the most that the device can do for every interval only bounded or not observed.",
    "A pipe whose rate the table does not state is not in measured; high holds a bound for it.",
    "Energy is what the devices' counters counted; device seconds without such a counter are named beside it.",
    "utilization is the share of time in which any kernel ran: a ceiling, never an estimate.",
    "cycles are differences of counters that run on while nobody looks: recoveredSeconds of the gaps are counted by "
    "them. Their origin says their scale as the self-test found it: SM-cycles = counter x N.",
    "The SM clock of activity is integrated from samples; clockUncertainty is how far off it may be in between.",
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


@dataclass(frozen=True, slots=True)
class Rated:
    """One tally with what follows from it, so that it follows once."""

    tally: Tally
    rating: Rating
    rows: list[Row]
    figures: Figures


def rating_of(incarnation: Incarnation, uid: DeviceUid, table: PeakTable) -> Rating:
    """How a device of an incarnation is rated: by the row that the journal names."""
    entry = next(e for e in incarnation.devices.values() if e.device.uid == uid)
    part = table.parts.get(entry.part_id) if entry.part_id is not None else None
    limits = table.limits(entry.device, part) if part is not None else None
    return Rating(part, limits, entry.precision)


def figures_of(history: History, table: PeakTable) -> Figures:
    """The run's executed FLOP: low, measured, high."""
    return _whole(
        total(tally, rating_of(incarnation, uid, table), table)
        for incarnation in history.incarnations
        for uid, tally in incarnation.tallies.items()
    )


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
    rated: dict[DeviceUid, list[Rated]] = {}
    for incarnation in history.incarnations:
        for uid, tally in incarnation.tallies.items():
            rating = rating_of(incarnation, uid, table)
            found = rows(tally, rating, table)
            rated.setdefault(uid, []).append(Rated(tally, rating, found, total_of(found, tally)))
    tallies = [one.tally for several in rated.values() for one in several]
    return {
        "kind": "node",
        "replay": history.replay,
        "run": {"id": history.run, **first.begin["context"]["run"]},
        "node": {"name": history.node, **first.begin["context"]["node"]},
        "attempts": sorted({str(inc.begin["context"]["attempt"]) for inc in history.incarnations}),
        "incarnations": [_incarnation(inc) for inc in history.incarnations],
        "devices": _devices(history, table, rated),
        "totals": {
            "executed": _executed(table, [one for several in rated.values() for one in several]),
            "guidelines": None,
            "architecture": None,
        },
        "energyJoules": _energy(tallies),
        "energyUncountedSeconds": _energy_uncounted(tallies),
        "deviceSeconds": seconds(sum(tally.span_ns for tally in tallies)),
        "wallSeconds": seconds(sum(inc.last_ns - inc.begin["ns"] for inc in history.incarnations)),
        "coverage": _coverage(history, table),
        "findings": [],
        "reconciliation": [],
        "evidence": [dict(item) for item in seal.evidence],
        "method": {
            "flopsdVersion": seal.flopsd_version,
            "sealedAt": seal.sealed_at,
            "peakTableSha256": table.sha256,
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
        "claim": {"says": CLAIM, "doesNotSay": CLAIM_LIMIT},
    }


def seconds(duration_ns: int) -> str:
    """Nanoseconds as exact decimal seconds."""
    sign = "-" if duration_ns < 0 else ""
    whole, rest = divmod(abs(duration_ns), 1_000_000_000)
    return f"{sign}{whole}.{rest:09d}"


def figures_json(figures: Figures) -> dict[str, str | None]:
    """`{low, measured, high}` as decimal strings; null is what is not known."""
    return {"low": str(figures.low_flop), "measured": _text(figures.measured_flop), "high": _text(figures.high_flop)}


def _text(flop: int | None) -> str | None:
    return None if flop is None else str(flop)


def _incarnation(incarnation: Incarnation) -> dict[str, Any]:
    begin, end = incarnation.begin, incarnation.end
    return {
        "number": incarnation.number,
        "bootId": incarnation.boot_id,
        "begunAt": begin["utc"],
        "lastRecordAt": incarnation.last_utc,
        "end": None if end is None else end["why"],
        "childExitCode": None if end is None else end.get("child_exit_code"),
        "attempt": begin["context"]["attempt"],
        "flopsdVersion": begin["flopsd"],
        "checkpoints": str(incarnation.checkpoints),
        "recovered": begin["recovered"],
        "precision": begin["precision"],
        "sources": incarnation.sources,
    }


def _devices(history: History, table: PeakTable, rated: Mapping[DeviceUid, list[Rated]]) -> list[dict[str, Any]]:
    latest: dict[DeviceUid, tuple[Device, str, str | None]] = {}
    for incarnation in history.incarnations:
        for entry in incarnation.devices.values():
            latest[entry.device.uid] = (entry.device, entry.source, entry.part_id)
    listed = []
    for uid, (device, source, part_id) in sorted(latest.items(), key=lambda item: (item[1][0].index, item[0])):
        part = table.parts.get(part_id) if part_id is not None else None
        tallies = [one.tally for one in rated[uid]]
        work = [(_declarer(one.rating, row), row) for one in rated[uid] for row in one.rows]
        listed.append(
            {
                "uuid": uid,
                "index": device.index,
                "source": source,
                "vendor": device.vendor,
                "model": device.model,
                "serial": device.serial,
                "pciBusId": device.pci_bus_id,
                "pciDeviceId": None if device.pci_device_id is None else f"0x{device.pci_device_id:04x}",
                "driver": device.driver,
                "parent": device.parent,
                "smCount": device.sm_count,
                "smCountExpected": None if part is None else part.sm_count,
                "smClockMaxMhz": device.sm_clock_max_mhz,
                "peakRow": part_id,
                "peakStatus": None if part is None else part.status,
                "evidence": device.evidence.value,
                "evidenceReason": device.evidence_reason,
                "sharedWith": device.shared,
                "executed": figures_json(sum_figures(one.figures for one in rated[uid])),
                "energyJoules": _energy(tallies),
                "energyUncountedSeconds": _energy_uncounted(tallies),
                "observedSeconds": seconds(sum(tally.total_observed_ns for tally in tallies)),
                "gapSeconds": seconds(sum(tally.total_gap_ns for tally in tallies)),
                "recoveredSeconds": seconds(sum(tally.recovered_ns for tally in tallies)),
                "spanSeconds": seconds(sum(tally.span_ns for tally in tallies)),
                "counters": _counters(tallies[-1]),
                "work": _work(work),
            }
        )
    return listed


def _declarer(rating: Rating, row: Row) -> str | None:
    """Who said the format that a row is counted in, where anybody did."""
    if rating.precision is None or row.precision == UNDECLARED or not takes_a_declaration(row.pipe):
        return None
    return rating.precision.declared_by


def _work(work: Iterable[tuple[str | None, Row]]) -> list[dict[str, Any]]:
    grouped: dict[tuple[str, str, str], list[tuple[str | None, Row]]] = {}
    for by, row in work:
        key = (row.evidence.value, "" if row.pipe is None else row.pipe.value, row.precision)
        grouped.setdefault(key, []).append((by, row))
    return [
        {
            "phase": UNDECLARED_PHASE,
            "evidence": evidence,
            "pipe": pipe or None,
            "precision": precision,
            "precisionDeclaredBy": next((by for by, _ in group if by), None),
            "smCycles": str(sum(row.sm_cycles for _, row in group)),
            "seconds": seconds(sum(row.duration_ns for _, row in group)),
            "flop": figures_json(sum_figures(row.figures for _, row in group)),
            "clockUncertainty": str(sum(row.clock_doubt_flop for _, row in group)),
        }
        for (evidence, pipe, precision), group in sorted(grouped.items())
    ]


def _counters(tally: Tally) -> dict[str, Any]:
    """Absolute counters as last read, for whoever checks them against another source; the running ones that the
    `cycles` evidence is made of say their scale in the origin."""
    found: dict[str, Any] = {name: str(value) for name, value in sorted(tally.counters.items())}
    if tally.totals is not None:
        found["running"] = {
            "origin": tally.totals.origin,
            "elapsedSmCycles": str(tally.totals.elapsed_sm_cycles),
            "smCycles": {pipe.value: str(cycles) for pipe, cycles in sorted(tally.totals.sm_cycles.items())},
        }
    return found


def _executed(table: PeakTable, rated: list[Rated]) -> dict[str, Any]:
    by_evidence: dict[Evidence, Figures] = {}
    clock_doubt_flop = sum(row.clock_doubt_flop for one in rated for row in one.rows)
    for row in (row for one in rated for row in one.rows):
        known = by_evidence.get(row.evidence)
        by_evidence[row.evidence] = row.figures if known is None else known + row.figures
    seen = {evidence for one in rated for evidence in one.tally.observed_ns}
    return {
        **figures_json(_whole(one.figures for one in rated)),
        "method": _method(seen),
        "marginPpm": {e.value: table.margin_ppm(e) for e in sorted(by_evidence) if e in table.margins},
        "clockUncertainty": str(clock_doubt_flop),
        "byEvidence": {e.value: figures_json(by_evidence[e]) for e in sorted(by_evidence)},
    }


def _method(seen: set[Evidence]) -> str:
    """Where the measured figure comes from, in words."""
    words = {
        Evidence.CYCLES: "hardware cycle counters",
        Evidence.ACTIVITY: "hardware activity percentages and the SM clock",
        Evidence.COUNT: "the vendor's software count (executions x compiled operations)",
    }
    told = [words[evidence] for evidence in ESTIMATING if evidence in seen]
    return "; ".join(told) or "no counter that estimates was read: high is a ceiling, not an estimate"


def _energy(tallies: Iterable[Tally]) -> str | None:
    known = [tally.energy_mj for tally in tallies if tally.energy_mj is not None]
    return f"{sum(known) // 1000}.{sum(known) % 1000:03d}" if known else None


def _energy_uncounted(tallies: Iterable[Tally]) -> str:
    """Device time of which no counter told the energy, so that a partial sum is never taken for the whole."""
    return seconds(sum(tally.span_ns for tally in tallies if tally.energy_mj is None))


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
        "observedPpm": _share_ppm(tallies),
        "gapSecondsByReason": {reason.value: seconds(ns) for reason, ns in sorted(by_reason.items())},
        "gaps": [_gap(history.incarnations[gap.incarnation - 1], gap, table) for gap in listed],
        "gapsNotListed": str(len(history.gaps) - len(listed)),
    }


def _share_ppm(tallies: list[Tally]) -> str | None:
    job_ns = sum(tally.job_ns for tally in tallies)
    return str((job_ns - sum(tally.unknown_ns for tally in tallies)) * PPM // job_ns) if job_ns else None


def _gap(incarnation: Incarnation, gap: GapInterval, table: PeakTable) -> dict[str, Any]:
    origin_ns = incarnation.begin["ns"]
    ceiling = gap_ceiling_flop(gap.end_ns - gap.begin_ns, rating_of(incarnation, gap.device, table), table)
    return {
        "device": gap.device,
        "incarnation": gap.incarnation,
        "reason": gap.reason.value,
        "beginSeconds": seconds(gap.begin_ns - origin_ns),
        "endSeconds": seconds(gap.end_ns - origin_ns),
        "seconds": seconds(gap.end_ns - gap.begin_ns),
        "ceiling": _text(0 if gap.reason in ACCOUNTED_ELSEWHERE else ceiling),
    }


def _refuse_impossible(history: History, table: PeakTable) -> None:
    """No device was active for more cycles than it had, and rows and devices fit together."""
    for incarnation in history.incarnations:
        for entry in incarnation.devices.values():
            if entry.part_id is not None and entry.part_id not in table.parts:
                raise JournalDamagedError(
                    f"the journal rates {entry.device.uid} by row {entry.part_id!r}, which the peak table does not have"
                )
            tally, rating = incarnation.tallies[entry.device.uid], rating_of(incarnation, entry.device.uid, table)
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
