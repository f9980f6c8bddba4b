"""The metric families of a run and of its daemon, made from a snapshot. Missing data never raises.

Rows under one name are disjoint, so sum() over a name is meaningful; the exceptions, flopsd_run_flop and
flopsd_threshold_ratio, say so in their HELP. Totals are ints up to here and are exported as the nearest float, bounds
as the nearest that still holds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from flopsd import __version__
from flopsd.core.model import PPM
from flopsd.core.policy.bases import Bases
from flopsd.core.policy.finding import Finding, Verdict
from flopsd.core.unused_count import Unused
from flopsd.report.rule_words import source_of, what_follows
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.families import Family, at_least, at_most, counter, gauge
from flopsd.telemetry.snapshot import Snapshot

_STATES = tuple(Verdict)


def figures(snapshot: Snapshot, rules: Rules) -> Iterator[Family]:
    yield _run_flop(snapshot.view.bases)
    yield from rules.families(snapshot.view.findings)
    yield _shares(snapshot.view.findings)


def _run_flop(found: Bases) -> Family:
    run = gauge("flopsd_run_flop", labels=("basis", "bound"))
    counted = found.guidelines
    bases = {"executed": found.executed, "guidelines": counted.updates, "guidelines_cumulative": counted.cumulative}
    for basis, figures in bases.items():
        run.add((basis, "low"), at_least(figures.low_flop))
        if figures.measured_flop is not None:
            run.add((basis, "measured"), float(figures.measured_flop))
        run.add((basis, "high"), at_most(figures.high_flop))
    if found.declarations.architecture is not None:
        required = found.declarations.architecture.counted.required
        run.add(("architecture", "low"), at_least(required.low))
        if required.computed is not None:
            run.add(("architecture", "computed"), float(required.computed))
        run.add(("architecture", "high"), at_most(required.high))
    return run


class Rules:
    """Families that state the rules of policies and their verdicts: made again only if one of these changes."""

    def __init__(self) -> None:
        self._stated: Sequence[tuple[object, ...]] = []
        self._families = _rules(())

    def families(self, findings: Sequence[Finding]) -> tuple[Family, ...]:
        stated = [(one.policy, one.rule, one.applies, one.limit, one.state) for one in findings]
        if stated != self._stated:
            self._stated, self._families = stated, _rules(findings)
        return self._families


def _rules(findings: Sequence[Finding]) -> tuple[Family, ...]:
    threshold = gauge("flopsd_threshold_flop", labels=("policy", "rule", "bound"))
    verdict = gauge("flopsd_verdict", labels=("policy", "rule", "state"))
    rule = gauge("flopsd_rule_info", labels=("policy", "rule", "title", "citation", "consequence", "applies"))
    for finding in findings:
        if finding.state is None:
            continue
        name = (finding.policy, finding.rule.id)
        applies = "true" if finding.applies else "unknown"
        source = source_of(finding.rule.citation, finding.rule.status)
        rule.add((*name, finding.rule.title, source, what_follows(finding.rule), applies), 1)
        for state in _STATES:
            verdict.add((*name, state._value_), float(finding.state is state))
        if finding.limit is not None:
            threshold.add((*name, "low"), float(finding.limit.low))
            if finding.limit.high is not None:
                threshold.add((*name, "high"), float(finding.limit.high))
    return rule, threshold, verdict


def _shares(findings: Sequence[Finding]) -> Family:
    share = gauge("flopsd_threshold_ratio", labels=("policy", "rule", "quantity", "bound"))
    for finding in findings:
        for bound, ppm in zip(("low", "measured", "high"), finding.share_ppm, strict=True):
            if ppm is not None:
                share.add((finding.policy, finding.rule.id, finding.quantity, bound), ppm / PPM)
    return share


def unused_counts(snapshot: Snapshot) -> Iterator[Family]:
    unused = gauge("flopsd_operator_counts_unused", labels=("reason",))
    reasons = [one.reason for one in snapshot.view.unused]
    for reason in Unused:
        if reason in reasons:
            unused.add((reason._value_,), reasons.count(reason))
    yield unused


def run_facts(snapshot: Snapshot) -> Iterator[Family]:
    info = gauge("flopsd_run_info", labels=("run_id", "node", "platform", "replay"))
    info.add((snapshot.view.run, snapshot.view.node, snapshot.platform, str(snapshot.replay).lower()), 1)
    yield info
    build = gauge("flopsd_build_info", labels=("version", "python", "peak_table_sha256"))
    build.add((__version__, sys.version.split()[0], snapshot.table.sha256), 1)
    yield build
    yield gauge("flopsd_daemon_starts", snapshot.view.start)
    target = gauge("target_info", labels=("service_name", "host_name"))
    target.add(("flopsd", snapshot.view.node), 1)
    yield target


def sources(snapshot: Snapshot) -> Iterator[Family]:
    up = gauge("flopsd_source_up", labels=("source",))
    errors = counter("flopsd_source_errors", labels=("source", "reason"))
    duration = gauge("flopsd_source_read_duration_seconds", labels=("source",))
    starts = counter("flopsd_source_child_starts", labels=("source",))
    cpu = counter("flopsd_source_child_cpu_seconds", labels=("source",))
    memory = gauge("flopsd_source_child_memory_bytes", labels=("source",))
    for name, state in snapshot.sources.items():
        if state.absent:
            continue
        up.add((name,), float(state.up))
        for reason, count in state.errors.items():
            errors.add((name, reason), count)
        if state.read_seconds is not None:
            duration.add((name,), state.read_seconds)
        if state.child is not None:
            starts.add((name,), state.child.starts)
            cpu.add((name,), state.child.cpu_ns / NS_PER_S)
            memory.add((name,), state.child.memory_bytes)
    yield from (up, errors, duration, starts, cpu, memory)


def journal(snapshot: Snapshot) -> Iterator[Family]:
    yield counter("flopsd_journal_records", snapshot.journal_records)
    yield gauge("flopsd_journal_writable", float(not snapshot.journal_fault))
    yield counter("flopsd_journal_put_back", snapshot.journal_put_back)


def ended(snapshot: Snapshot) -> Iterator[Family]:
    yield gauge("flopsd_run_ended", float(snapshot.ended))


def of_request(snapshot: Snapshot) -> Iterator[Family]:
    """The families whose values are those of the request. Moments are by the wall clock of the request, even if it was
    set since then, so that they can be subtracted from flopsd_time_seconds."""
    last = gauge("flopsd_last_reading_timestamp_seconds", labels=("source",))
    for name, source in snapshot.sources.items():
        if not source.absent and (seconds := _wall_seconds(source.last_reading_ns, snapshot)) is not None:
            last.add((name,), seconds)
    yield last
    yield _moment("flopsd_journal_last_append_timestamp_seconds", snapshot.journal_last_append_ns, snapshot)
    state = snapshot.journal_state
    if state is None:
        return
    yield gauge("flopsd_time_seconds", state.wall_ns / NS_PER_S)
    yield gauge("flopsd_signing_key_usable", state.key.usable)
    fault = gauge("flopsd_signing_key_fault_info", labels=("reason",))
    if state.key.reason:
        fault.add((state.key.reason,), 1)
    yield fault
    yield gauge("flopsd_ledger_deliveries_pending", state.undelivered_ledgers)
    yield gauge("flopsd_journal_size_bytes", state.disk.journal_bytes)
    yield gauge("flopsd_state_free_bytes", state.disk.free_bytes)
    yield gauge("flopsd_closed_segments_waiting", state.disk.waiting_segments)
    if state.seal_every_ns is None:
        return
    yield gauge("flopsd_ledger_seal_interval_seconds", state.seal_every_ns / NS_PER_S)
    yield _moment("flopsd_ledger_last_seal_timestamp_seconds", state.last_seal_ns, snapshot)
    yield counter("flopsd_ledger_seal_failures", state.seal_failures)
    if not state.copies:
        return
    yield _moment("flopsd_ledger_last_copy_timestamp_seconds", state.last_copy_ns, snapshot)
    yield counter("flopsd_ledger_copy_failures", state.copy_failures)


def _moment(name: str, ns: int | None, snapshot: Snapshot) -> Family:
    return gauge(name, _wall_seconds(ns, snapshot))


def _wall_seconds(ns: int | None, snapshot: Snapshot) -> float | None:
    wall_ns = snapshot.wall_ns(ns)
    return None if wall_ns is None else wall_ns // 1_000_000 / 1000  # less is noise
