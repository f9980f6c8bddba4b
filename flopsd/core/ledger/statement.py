"""The ledger: a deterministic in-toto Statement from a history and a peak table.

`predicate` is a pure function of the journal, the table and a few facts of sealing, so a verifier repeats it on the
journal and compares every field. Counts are decimal strings; there are no floats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import declared_from
from flopsd.core.figures import Figures, sum_figures
from flopsd.core.ledger.devices import coverage_for_ledger, devices_for_ledger
from flopsd.core.ledger.energy import compared, energy_for_ledger
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.impossible_totals import refuse_double_counting, refuse_impossible
from flopsd.core.ledger.isolation import isolation_for_ledger
from flopsd.core.ledger.open_accounts import refuse_missing_time
from flopsd.core.ledger.rated_tally import rated_tallies
from flopsd.core.ledger.run_view import RunView, view_of
from flopsd.core.ledger.segments import JournalFacts
from flopsd.core.ledger.unended import as_of
from flopsd.core.model import ESTIMATING, Evidence
from flopsd.core.notes import notes_for_ledger
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import Bases
from flopsd.core.policy.contradictions import contradictions
from flopsd.core.policy.guidelines import Guidelines
from flopsd.core.policy.policy_file import Policy
from flopsd.core.policy.reconcile import Architecture, operators_ratio, reconcile
from flopsd.core.values import joules, seconds, text_or_none

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:uuid:961e75da-79e6-4b84-bec0-b0fcb65b8a61#compute-ledger-v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
NO_METHOD = "none"
METHODS = (*(evidence.value for evidence in ESTIMATING), Evidence.OPERATOR_COUNT.value, NO_METHOD)
CLAIM_LIMITS = ("false_driver", "executed_is_not_counted", "no_legal_advice")
ASSUMPTIONS = (
    "fma_is_two_and_dense", "measured_is_cycles_times_rate", "undeclared_format", "claims_narrow_nothing",
    "phase_for_whole_reading", "integers_beside_flop", "low_without_bounded", "high_with_margins_and_ceilings",
    "unrated_pipe", "energy_by_counters", "utilization_is_a_ceiling", "cycles_run_on", "clock_of_activity",
    "count_is_the_vendors", "operators_are_the_processes_word",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SealFacts:
    """Facts that are not in the journal: who made the ledger, and when."""

    flopsd_version: str
    sealed_at: str
    evidence: tuple[Mapping[str, Any], ...] = ()  # collected at the seal; a verifier takes it from the signed ledger
    key: Mapping[str, Any] | None = None  # who could read the key, see `isolation.key_file`
    policies: tuple[Policy, ...] = ()  # the policies that the journal names by SHA-256
    code_secrets: Mapping[str, bytes] = field(default_factory=dict)  # by SHA-256; the codes were checked with them


def statement(history: History, table: PeakTable, journal: JournalFacts, seal: SealFacts) -> dict[str, Any]:
    """The in-toto Statement v1 with the journal as subject. Raises LedgerError, JournalDamagedError."""
    subject = [{"name": "journal.jsonl", "digest": {"sha256": journal.sha256}}]
    return statement_about(subject, predicate(history, table, journal, seal))


def statement_about(subject: Any, predicate: Mapping[str, Any]) -> dict[str, Any]:
    """The in-toto Statement v1 around a ledger's predicate."""
    return {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": predicate}


def encode(document: Mapping[str, Any]) -> bytes:
    """The bytes to sign: readable ASCII JSON without floats."""
    return json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def predicate(history: History, table: PeakTable, journal: JournalFacts, seal: SealFacts) -> dict[str, Any]:
    """The predicate of a ledger of kind `node`. Raises LedgerError, JournalDamagedError."""
    refuse_double_counting(history)
    recorded, history = history, as_of(history, seal.sealed_at)
    view = view_of(history, table, seal.policies)
    refuse_impossible(view.rated if history is recorded else rated_tallies(recorded, table))
    refuse_missing_time(recorded)
    first, last = history.incarnations[0], history.incarnations[-1]
    secrets = secrets_in(history, seal.code_secrets)
    return {
        "kind": "node",
        "replay": history.replay,
        "segment": _segment(history),
        "run": {"id": history.run, **first.begin["context"]["run"]},
        "node": {"name": history.node, **history.place},
        "attempts": sorted({str(inc.begin["context"]["attempt"]) for inc in history.incarnations}),
        "incarnations": [_incarnation(inc, inc.code_secret_sha256 in secrets) for inc in history.incarnations],
        "devices": devices_for_ledger(view),
        "declared": _declared(history, view),
        "totals": {
            "executed": _executed(view),
            "integerOperations": integers_for_ledger(view.integers, view.bases.integers),
            "guidelines": _guidelines(view.bases),
            "architecture": _architecture(view.declarations.architecture),
            "architectureAbsentReasons": notes_for_ledger(view.declarations.absent),
        },
        "energyJoules": joules(view.energy_mj),
        "energyUncountedSeconds": seconds(view.energy_unknown_ns),
        "deviceSeconds": seconds(view.span_ns),
        "wallSeconds": seconds(sum(inc.last_ns - inc.begin["ns"] for inc in history.incarnations)),
        "coverage": coverage_for_ledger(history, view),
        "findings": [finding.for_ledger() for finding in view.findings],
        "reconciliation": [*_reconciliation(view), *energy_for_ledger(compared(view.devices))],
        "evidence": [dict(item) for item in seal.evidence],
        "isolation": isolation_for_ledger(
            [incarnation.begin for incarnation in history.incarnations], history.sessions.values(), seal.key
        ),
        "method": {
            "flopsdVersion": seal.flopsd_version,
            "sealedAt": seal.sealed_at,
            "peakTableSha256": table.sha256,
            "policies": policies_for_ledger(seal.policies),
            "configSha256": sorted({inc.begin["config_sha256"] for inc in history.incarnations}),
            "margins": {e.value: {"ppm": m.ppm, "source": m.source} for e, m in table.margins.items()},
            "assumptions": list(ASSUMPTIONS),
            "codeSecrets": [secret.hex() for secret in secrets.values()],
            "earlierSeals": {
                "count": str(history.seals.count),
                "newest": None if history.seals.newest is None else history.seals.newest.for_ledger(),
            },
            "journal": {
                "sha256": journal.sha256,
                "bytes": str(journal.size_bytes),
                "records": str(journal.records),
                "headSha256": journal.head_sha256,
                "lastRecordAt": last.last_utc,
            },
        },
        "claim": {
            "states": "read_from_the_driver",
            "limits": [*CLAIM_LIMITS, *(["segment"] if history.is_segment else [])],
        },
    }


def _segment(history: History) -> dict[str, Any] | None:
    """The part of its run that a journal covers; None: the whole run."""
    if not history.is_segment:
        return None
    before = None if history.continues is None else history.continues.before.for_ledger()
    return {"number": history.segment, "continues": before, "isContinued": history.is_rotated}


def secrets_in(history: History, known: Mapping[str, bytes]) -> dict[str, bytes]:
    """The secrets in `known`, by SHA-256, that the history names, in its order."""
    named = (incarnation.code_secret_sha256 or "" for incarnation in history.incarnations)
    return {digest: known[digest] for digest in named if digest in known}


def _incarnation(incarnation: Incarnation, checked: bool) -> dict[str, Any]:
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
        "codes": "checked" if checked else "not_checkable",
        "recovered": _recovered(begin["recovered"]),
        "precision": _precision(begin["precision"]),
        "phase": declared_from(begin.get("declared")).for_journal()["phase"],
        "sources": incarnation.sources,
    }


def _recovered(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if found is None else {name: found[name] for name in ("cutBytes", "cutSha256", "reasons", "keptAs")}


def _precision(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if record is None else {"sharesPpm": record["shares_ppm"], "declaredBy": record["declared_by"]}


def _reconciliation(view: RunView) -> list[dict[str, Any]]:
    found = view.bases
    declared = found.declarations
    counted = None if declared.architecture is None else declared.architecture.counted
    ratios = [*reconcile(found.by_phase, found.guidelines.updates, counted, declared.framework_flop)]
    both = [
        (one.read.whole, one.count) for one in view.devices if one.count and one.read.whole.measured_flop is not None
    ]
    if both:
        ratios.append(
            operators_ratio(sum_figures(read for read, _ in both), sum(count.total_flop for _, count in both))
        )
    return [ratio.for_ledger() for ratio in ratios]


def _executed(view: RunView) -> dict[str, Any]:
    rows = view.rows
    by_evidence: dict[str, list[Figures]] = {}
    margins: dict[str, int] = {}
    for row in rows:
        evidence = row.evidence._value_
        by_evidence.setdefault(evidence, []).append(row.figures)
        if row.margin_ppm is not None:
            margins[evidence] = max(margins.get(evidence, 0), row.margin_ppm)
    return {
        **view.figures.for_ledger(),
        "method": methods_for_ledger({*view.observed_ns_by_evidence, *(row.evidence for row in view.operator_rows)}),
        "marginPpm": dict(sorted(margins.items())),
        "clockUncertaintyFlop": str(sum([row.clock_uncertainty_flop for row in rows])),
        "mayBeIntegerFlop": str(view.may_be_integer_flop),
        "byEvidence": {name: sum_figures(figures).for_ledger() for name, figures in sorted(by_evidence.items())},
        "byPhase": {phase: figures.for_ledger() for phase, figures in sorted(view.bases.by_phase.items())},
    }


def _declared(history: History, view: RunView) -> dict[str, Any]:
    """The declarations with their authors, and the contradictions among them; a declaration is not a measurement."""
    sessions, settings = list(history.sessions.values()), history.declared.for_journal()
    found = contradictions(history.declared_by_starts, sessions, view.policies, view.unused)
    base = settings["base"]
    return {
        **{name: settings[name] for name in ("phase", "method", "recomputation")},
        "base": None if base is None else {**base, "declaredBy": "config"},
        "sessions": [
            {
                "id": session.id,
                "process": {"pid": session.pid, "uid": session.uid, "client": session.client},
                "facts": session.facts,
                "work": {
                    phase: {name: str(value) for name, value in sorted(counters.items())}
                    for phase, counters in sorted(session.work.items())
                },
            }
            for session in sorted(sessions, key=lambda session: session.id)
        ],
        "contradictions": [one.for_ledger() for one in found],
    }


def methods_for_ledger(found: Iterable[str]) -> list[str]:
    """The evidence of a measured figure, or `none` if no evidence estimated anything."""
    known = set(found)
    return [name for name in METHODS if name in known] or [NO_METHOD]


def integers_for_ledger(executed: Figures, counted: Guidelines) -> dict[str, Any]:
    """Integer operations, and what the Guidelines basis counts of them if a policy counts integers as FLOP."""
    return {
        **executed.for_ledger(),
        "guidelines": {**counted.updates.for_ledger(), "cumulative": counted.cumulative.for_ledger()},
    }


def _guidelines(found: Bases) -> dict[str, Any]:
    share = found.declarations.required
    return {
        **found.guidelines.for_ledger(found.claimed),
        "requiredPpm": {
            "low": str(share.low_ppm),
            "stated": text_or_none(share.stated_ppm),
            "high": str(share.high_ppm),
        },
        "requiredPpmSource": list(share.source),
    }


def _architecture(found: Architecture | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        **found.counted.for_ledger(),
        "parameters": {
            "total": str(found.parameters_total),
            "active": str(found.parameters_active),
            "trainable": text_or_none(found.parameters_trainable),
        },
        "assumptions": notes_for_ledger(found.assumptions),
    }


def policies_for_ledger(policies: Sequence[Policy]) -> list[dict[str, str]]:
    return [{"id": policy.id, "sha256": policy.sha256} for policy in policies]
