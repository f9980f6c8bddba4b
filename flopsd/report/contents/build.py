"""Build the report of a ledger: pure data from the statement, its verification and the points of its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from itertools import islice
from pathlib import Path
from typing import Any

from flopsd.attestation.evidence.item import EvidenceResult
from flopsd.core.field_reader import words_of
from flopsd.core.ledger.growing_run import GrowingRun, RunSums
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.history_from_records import extend, skip_to
from flopsd.core.ledger.session_records import take_sessions
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.policy_file import Policy
from flopsd.core.values import seconds
from flopsd.errors import LedgerError
from flopsd.journal.framing import JournalLine
from flopsd.journal.reading import read_journal
from flopsd.report.answer import answer_of
from flopsd.report.contents.bases import bases_of, comparisons_of, evidence_of, phases_of, read_from
from flopsd.report.contents.coverage import coverage_of, growth_chart, moment, timed
from flopsd.report.contents.declarations import declared_of
from flopsd.report.contents.inventory import child, completeness_of, device, energy_of, items_of, nodes_of, rows_of
from flopsd.report.contents.model import (
    Content,
    Fact,
    Form,
    FormLine,
    Report,
    ReportMethod,
    VerificationResult,
    VerificationState,
)
from flopsd.report.contents.model_documentation import form
from flopsd.report.contents.verdicts import rules_of
from flopsd.report.contents.verification import LedgerDocument, flags_of, proof_of
from flopsd.report.isolation_text import isolation_text
from flopsd.report.ledger_json import HINT, LedgerObject, line, may_be_longer
from flopsd.report.numbers import percent
from flopsd.report.verification_text import codes_text
from flopsd.system.clock import rfc3339

_KINDS = {"node": "run", "job": "job", "lineage": "model lineage"}
_ADVICE = (
    "A threshold is an indicative criterion. Whether a model falls under a rule depends on more than compute, and this "
    "report is not legal advice."
)
Course = Sequence[Mapping[str, Any]]
MAX_POINTS = 200  # in a course


def report_of(
    document: LedgerDocument, check: VerificationResult, made: str, found: Sequence[EvidenceResult] = (),
    policy: Policy | None = None, course: Course = (), now_ns: int | None = None, history: History | None = None,
) -> Report:  # fmt: skip
    """The report of a ledger. `found`: the results of checking the attached evidence. `policy`: the policy whose form
    is filled. `course` and `history`: of the verified journal. `now_ns`: the reader's time in Unix nanoseconds; a later
    seal is flagged. Raises LedgerError if the ledger is not as flopsd writes one."""
    predicate = document.predicate
    kind = predicate.text("kind")
    if kind not in _KINDS:
        raise LedgerError(f"a ledger of kind {kind!r:.40} is not known here", hint="a newer flopsd may know it")
    subject = predicate.object("lineage").text("name") if kind == "lineage" else predicate.object("run").text("id")
    return Report(
        kind=kind,
        title=f"Training compute of {_KINDS[kind]} {subject}",
        subject=subject,
        digest=document.payload_sha256,
        made=made,
        flags=flags_of(document, now_ns, history),
        check=check,
        proof=proof_of(document),
        content=None if check.state is VerificationState.REFUSED else _content(predicate, kind, found, policy, course),
    )


def _content(
    predicate: LedgerObject, kind: str, found: Sequence[EvidenceResult], policy: Policy | None, course: Course
) -> Content:
    rules, others, axis = rules_of(predicate)
    bases = bases_of(predicate)
    devices, devices_left_out = rows_of(predicate, "devices", device)
    nodes, nodes_left_out = nodes_of(predicate)
    children, children_left_out = rows_of(predicate, "children", child)
    claim = predicate.object("claim")
    return Content(
        facts=_facts(predicate, kind),
        answer=answer_of(rules, others, bases[0].value),
        rules=rules,
        other_rules=others,
        axis=axis,
        bases=bases,
        comparisons=comparisons_of(predicate),
        evidence=evidence_of(predicate),
        phases=phases_of(predicate),
        course=growth_chart(predicate, course),
        coverage=coverage_of(predicate),
        completeness=completeness_of(predicate),
        nodes=nodes,
        children=children,
        members_left_out=max(nodes_left_out, children_left_out),
        devices=devices,
        devices_left_out=devices_left_out,
        energy=energy_of(predicate),
        declared=declared_of(predicate),
        form=form_of(predicate, policy),
        method=_method(predicate),
        items=items_of(predicate, found),
        claims=claim.words("states", "claim.states"),
        does_not_claim=" ".join(claim.all_words("limits", "claim.limits")),
        isolation=isolation_text(predicate),
        advice=_ADVICE if rules or others else "",
    )


def _facts(predicate: LedgerObject, kind: str) -> tuple[Fact, ...]:
    """The facts of what was metered, where and when."""
    facts = []
    if (run := predicate.maybe_object("run")) is not None:
        facts.append(Fact("Platform", run.text("platform")))
        named = (("Job", "jobName"), ("ARN", "jobArn"))
        facts += [Fact(name, run.text(member)) for name, member in named if member in run]
    if kind == "node":
        host = predicate.object("node")
        rank = host.maybe_count("rank")
        facts.append(Fact("Node", host.text("name") + ("" if rank is None else f", rank {rank}")))
        if "instanceType" in host:
            facts.append(Fact("Instance type", host.text("instanceType")))
        starts = list(predicate.objects("incarnations"))
        if starts:
            facts.append(Fact("Begun", _utc(min(entry.moment_ns("startedAt") for entry in starts))))
            facts.append(Fact("Last record", _utc(max(entry.moment_ns("lastRecordAt") for entry in starts))))
            facts.append(Fact("Starts of the daemon", str(len(starts))))
            checked = sum(entry.text("codes") == "checked" for entry in starts)
            facts.append(Fact("Codes of the journal", codes_text(checked, len(starts))))
        facts.append(timed("Wall time", predicate.decimal("wallSeconds")))
    else:
        facts.append(Fact("Begun", _utc(predicate.moment_ns("startedAt"))))
        facts.append(Fact("Last record", _utc(predicate.moment_ns("lastRecordAt"))))
        facts.append(Fact("Ledgers", str(predicate.count("ledgerCount"))))
        if kind == "lineage":
            facts.append(Fact("Jobs", str(len(predicate.object("lineage").texts("runs")))))
    attempts = predicate.texts("attempts")
    if attempts:
        facts.append(Fact("Attempt ids", str(len(attempts))))
    least = "at least " if may_be_longer(predicate.object("coverage").object("gapSecondsByReason").mapping) else ""
    return (*facts, timed("Device time", predicate.decimal("deviceSeconds"), least))


def _utc(at_ns: int) -> str:
    return f"{moment(at_ns)} UTC"


def _method(predicate: LedgerObject) -> ReportMethod:
    entry = predicate.object("method")
    facts = [Fact("Sealed", entry.utc("sealedAt")), Fact("Sealed by flopsd", entry.text("flopsdVersion"))]
    if versions := entry.texts("flopsdVersions"):
        facts.append(Fact("Its ledgers sealed by flopsd", ", ".join(versions)))
    executed = predicate.object("totals").object("executed")
    used = executed.object("byEvidence")
    for name, margin in entry.items("margins"):
        if name in used:
            facts.append(Fact(f"Margin of {name}", f"{percent(margin.count('ppm'))} either way", margin.text("source")))
    policies = [policy.text("id") for policy in entry.objects("policies")]
    facts += [Fact("Policy applied", policy) for policy in policies or ["none"]]
    return ReportMethod(read_from(executed), tuple(facts), entry.all_words("assumptions", "method.assumptions"))


def form_of(predicate: LedgerObject, policy: Policy | None) -> Form | None:
    """The form of the policy, filled from the predicate; None if the policy has no form. Raises LedgerError."""
    if policy is None or policy.form is None:
        return None
    for entry in predicate.objects("devices"):
        entry.decimal("spanSeconds")  # refuse texts such as 1e999999999
    try:
        found = form(predicate.mapping, policy)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as fault:
        raise LedgerError(f"predicate gives no figures for the Form: {line(words_of(fault))}", hint=HINT) from fault
    lines = tuple(FormLine(*(line(text) for text in astuple(one))) for one in found.lines)
    return replace(found, lines=lines, notification=tuple(map(line, found.notification)))


_OPERATORS = b'"operator_flop"'  # counters in a checkpoint; later checkpoints repeat them only when they change


def course_of(journal: Path, records: int, table: PeakTable) -> list[dict[str, Any]]:
    """The growth of compute: cumulative figures at some checkpoints of the first `records` records, including the last.
    Times follow from the wall clock at each daemon start; nothing is returned if one has a year above 9999. The journal
    must be verified. Raises JournalError."""
    checkpoints = sum(_is_checkpoint(entry) for entry in islice(read_journal(journal), records))
    every = max(1, -(-checkpoints // MAX_POINTS))
    history, run, seen, points = History(), GrowingRun(table), 0, list[dict[str, Any] | None]()
    last: JournalLine | None = None  # the newest checkpoint that was skipped
    for entry in islice(read_journal(journal), records):
        if _is_checkpoint(entry):
            seen, last = seen + 1, entry
            if seen % every != 0 and seen != checkpoints:
                if _OPERATORS in entry.body:
                    take_sessions(history, entry.record())
                continue
        if last is not None:
            skip_to(history, last.record())
        if last is entry:
            points.append(_point(history.incarnations[-1], run.sums(history)))
        else:
            extend(history, entry.record())
        last = None
    return [] if None in points else [point for point in points if point is not None]


def _is_checkpoint(entry: JournalLine) -> bool:
    """Whether a line is a checkpoint, by the alphabetically first key of its record: parsing all lines takes long."""
    return entry.body.startswith(b'{"devices":')


def _point(last: Incarnation, so_far: RunSums) -> dict[str, Any] | None:
    passed_ns, coverage_ppm = last.last_ns - int(last.begin["ns"]), so_far.coverage_ppm
    try:
        at = rfc3339(int(last.begin["wall_ns"]) + passed_ns)
    except (ValueError, OverflowError):
        return None
    return {
        "at": at,
        "seconds": seconds(passed_ns),
        "executed": so_far.figures.for_ledger(),
        "phases": {phase: figures.for_ledger() for phase, figures in sorted(so_far.by_phase.items())},
        "coveragePpm": None if coverage_ppm is None else str(coverage_ppm),
    }
