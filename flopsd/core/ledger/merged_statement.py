"""The merged ledger: node ledgers as one job, or jobs as one model's lineage. Pure.

Its predicate is a function of the entries of its children and a few facts of the merge, so a verifier can add it up
again. With the children at hand, the verifier also makes each entry again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.merged_completeness import ENDLESS, WHOLE, Completeness, NodeCheck
from flopsd.core.ledger.merged_entry import refuse_malformed
from flopsd.core.ledger.merged_sums import LedgerSums, MergedDeclarations, sums_of_ledger
from flopsd.core.ledger.merged_types import refuse_wrong_entry, refuse_wrong_facts
from flopsd.core.ledger.statement import CLAIM_LIMITS, policies_for_ledger, statement_about
from flopsd.core.notes import Note, note_from
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.policy_file import Policy
from flopsd.core.policy.reconcile import NO_PROCESS, NO_WORK, reconcile
from flopsd.core.values import whole_number
from flopsd.errors import LedgerError

_NO_WORK_REASONS = frozenset((NO_PROCESS, NO_WORK))
_Node = tuple[int | None, str | None]  # rank and node name
JOB, LINEAGE = "job", "lineage"
KINDS = (JOB, LINEAGE)

ASSUMPTIONS = (
    "sums_are_exact", "guidelines_need_all", "missing_has_no_ceiling", "energy_of_counted", "device_names",
    "times_of_boots",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MergeFacts:
    """Facts that the children cannot state, and facts on which all must agree."""

    kind: str
    run: Mapping[str, Any] | None  # for a job: id, platform, job name and ARN
    job_nodes: tuple[str, ...]  # for a job: its nodes by rank, where the platform lists them
    lineage: str | None  # for a lineage: its name
    declared_nodes: int | None
    flopsd_version: str
    sealed_at: str
    policies: tuple[Policy, ...] = ()


class Merging:
    """Adds children one by one, in the order of `sort_key`. Keeps sums and names, not the children."""

    def __init__(self, facts: MergeFacts) -> None:
        self.facts = facts
        self.sums = LedgerSums()
        self.ledgers = self.replays = self.incarnations = 0
        self._node_check = NodeCheck(facts.job_nodes, facts.declared_nodes, (facts.run or {}).get("platform"))
        self._attempts: set[str] = set()
        self._runs: set[str] = set()
        self._versions: set[str] = set()
        self._tables: set[str] = set()
        self._begun = self._last = ""
        self._node: NodeSummary | None = None
        self._declared = MergedDeclarations()
        self._jobs_missing: list[Note] = []
        self._wholes: set[bool | None] = set()  # completeness of each job of a lineage
        self._nodes_unknown = False
        self._no_work: dict[_Node, set[Note]] = {}  # why segments of a node have no basis
        self._others: set[_Node] = set()  # nodes with a segment that has a basis, or another reason

    def add(self, entry: Mapping[str, Any], label: str, *, own: bool = False) -> dict[str, Any] | None:
        """Add one child and return the summary of the previous node if that is finished. `own`: the entry was made just
        now, by `node_entry` or `job_entry`. Raises LedgerError for a child that cannot be of this job, and KeyError,
        TypeError, ValueError, AttributeError on anything but an entry."""
        sums = sums_of_ledger(entry)
        if not own:
            refuse_malformed(entry, sums)
        refuse_wrong_entry(entry, in_lineage=self.facts.kind == LINEAGE)
        if self.facts.run is not None and entry["run"] != self.facts.run["id"]:
            raise LedgerError(
                f"{label} is of run {entry['run']!r}, not of {self.facts.run['id']!r}", code="other_run_of_child"
            )
        self.sums += self._basis_counted(entry, sums)
        self.ledgers += 1
        self._declared.add(entry["declared"])
        self.replays += bool(entry["replay"])
        self._runs.add(entry["run"])
        self._versions.update(entry["flopsdVersions"])
        self._tables.update(entry["peakTableSha256"])
        self._begun = min(self._begun or entry["startedAt"], entry["startedAt"])
        self._last = max(self._last, entry["lastRecordAt"])
        if self.facts.kind == LINEAGE:
            job = entry["completeness"]
            self._wholes.add(job["complete"])
            self._nodes_unknown = self._nodes_unknown or (job["complete"] is None and not job["missing"])
            holes = map(note_from, job["missing"])
            self._jobs_missing += [Note(hole.code, (("job", entry["run"]), *hole.parameters)) for hole in holes]
            return None
        self.incarnations += len(entry["periods"])
        self._attempts.update(period["attempt"] for period in entry["periods"])
        self._node_check.add(entry, label)
        before = self._node
        if before is None or (before.rank, before.name) != (entry["rank"], entry["node"]):
            self._node = NodeSummary(entry)
        else:
            before = None
        assert self._node is not None
        self._node.add(entry, sums)
        return None if before is None else before.for_ledger()

    def _basis_counted(self, entry: Mapping[str, Any], sums: LedgerSums) -> LedgerSums:
        """The sums of a child. A segment in which no process declared work does not remove the architecture basis of
        its node's other segments: the run has one, as if it were not rotated."""
        node = entry["rank"], entry["node"]
        if entry["segment"] is None:
            return sums
        if sums.absent <= _NO_WORK_REASONS and sums.counted is None:
            self._no_work.setdefault(node, set()).update(sums.absent)
            return replace(sums, absent=frozenset())
        self._others.add(node)
        return sums

    def last_node(self) -> dict[str, Any] | None:
        """The summary of the last node, for use after all children."""
        return None if self._node is None else self._node.for_ledger()

    def completeness(self) -> Completeness:
        """The completeness of the sum. Raises LedgerError for more nodes than declared."""
        if self.facts.kind == JOB:
            return self._node_check.result()
        complete = False if False in self._wholes else True if self._wholes == {True} else None
        return Completeness(complete, tuple(self._jobs_missing), None, 0, None, nodes_unknown=self._nodes_unknown)

    def predicate(self, nodes: Any, children: Any) -> dict[str, Any]:
        """The predicate with the given lists of node summaries and children. Raises LedgerError as `completeness`."""
        facts, completeness = self.facts, self.completeness()
        whole, declared = completeness.complete is True, self._declared
        absent = {reason for node, reasons in self._no_work.items() if node not in self._others for reason in reasons}
        self.sums = replace(self.sums, absent=self.sums.absent | absent)
        sums = self.sums.for_ledger(whole=whole)
        counted, integers = self.sums.guidelines_of(whole=whole)
        architecture = None if sums["totals"]["architecture"] is None else self.sums.counted
        claimed = self.sums.claims(whole=whole)
        case = Case(
            counted, declared.method, declared.base, whole, declared.conflict, integers,
            None if claimed is None else claimed.counted, declared.methods,
        )  # fmt: skip
        job = facts.kind == JOB
        return {
            "kind": facts.kind,
            "replay": {"children": str(self.replays)} if self.replays else None,
            "run": None if facts.run is None else dict(facts.run),
            "lineage": None if job else {"name": facts.lineage, "runs": sorted(self._runs)},
            "jobNodes": list(facts.job_nodes),
            "completeness": completeness.for_ledger() if job else _jobs_of(completeness),
            "attempts": sorted(self._attempts),
            "incarnationCount": str(self.incarnations) if job else None,
            "ledgerCount": str(self.ledgers),
            "startedAt": self._begun,
            "lastRecordAt": self._last,
            "declared": {
                **declared.for_ledger(),
                "contradictions": [one.for_ledger() for one in declared.contradictions(facts.policies, one_job=job)],
            },
            **sums,
            "findings": [finding.for_ledger() for policy in facts.policies for finding in findings(policy, case)],
            "reconciliation": [
                *(ratio.for_ledger() for ratio in reconcile(self.sums.by_phase, counted.updates, architecture)),
                *sums["reconciliation"],
            ],
            "evidence": [],
            "method": {
                "flopsdVersion": facts.flopsd_version,
                "sealedAt": facts.sealed_at,
                "flopsdVersions": sorted(self._versions),
                "peakTableSha256": sorted(self._tables),
                "policies": policies_for_ledger(facts.policies),
                "assumptions": list(ASSUMPTIONS),
            },
            "claim": {"states": "sum_of_ledgers", "limits": [*CLAIM_LIMITS, *([] if job else ["lineage_is_declared"])]},
            "nodes": nodes,
            "children": children,
        }


class NodeSummary:
    """The sum of all ledgers of one rank and node."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.rank, self.name = entry["rank"], entry["node"]
        self._instance_type = entry["instanceType"]
        self._first = entry  # has the sums as written, for a node with one ledger
        self._sums: LedgerSums | None = None
        self._ledgers = 0
        self._devices: set[str] = set()
        self._attempts: set[str] = set()

    def add(self, entry: Mapping[str, Any], sums: LedgerSums) -> None:
        self._sums = sums if self._sums is None else self._sums + sums
        self._ledgers += 1
        self._devices.update(name for times in entry["deviceTimes"] for name in times["devices"])
        self._attempts.update(period["attempt"] for period in entry["periods"])

    def for_ledger(self) -> dict[str, Any]:
        sums = self._first if self._ledgers == 1 or self._sums is None else self._sums.for_ledger()
        executed = sums["totals"]["executed"]
        return {
            "name": self.name,
            "rank": self.rank,
            "instanceType": self._instance_type,
            "ledgers": str(self._ledgers),
            "attempts": str(len(self._attempts)),
            "devices": str(len(self._devices)),
            "executed": {name: executed[name] for name in ("low", "measured", "high")},
            "energyJoules": sums["energyJoules"],
            "energyUncountedSeconds": sums["energyUncountedSeconds"],
            "deviceSeconds": sums["deviceSeconds"],
            "coveragePpm": sums["coverage"]["coveragePpm"],
        }


def subject_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A child as the statement's subject, by the digest of its payload: countersigning does not change it."""
    return {"name": entry["name"], "digest": {"sha256": entry["sha256"]}}


def recompute_merged(
    predicate: Mapping[str, Any], entries: Iterable[Mapping[str, Any]], policies: tuple[Policy, ...]
) -> dict[str, Any]:
    """Make the statement again from the children in a merged predicate; `policies` are those that it names. Raises
    LedgerError for children that cannot be merged, and KeyError, TypeError, ValueError, AttributeError on anything but
    a merged predicate."""
    refuse_wrong_facts(predicate, is_job=predicate["kind"] == JOB)
    nodes = predicate["completeness"]["declaredNodes"]
    facts = MergeFacts(
        predicate["kind"],
        predicate["run"],
        tuple(predicate["jobNodes"]),
        None if predicate["lineage"] is None else predicate["lineage"]["name"],
        None if nodes is None else whole_number(nodes),
        str(predicate["method"]["flopsdVersion"]),
        str(predicate["method"]["sealedAt"]),
        policies,
    )
    merging = Merging(facts)
    finished, subject = [], []
    for entry in entries:
        finished.append(merging.add(entry, entry["name"]))
        subject.append(subject_of(entry))
    summaries = [node for node in (*finished, merging.last_node()) if node is not None]
    return statement_about(subject, merging.predicate(summaries, entries))


def _jobs_of(completeness: Completeness) -> dict[str, Any]:
    listed = completeness.for_ledger()
    jobs = {WHOLE: "jobs_whole", ENDLESS: "jobs_no_end"}
    return {**listed, "nodes": None, "summary": jobs.get(listed["summary"], listed["summary"])}
