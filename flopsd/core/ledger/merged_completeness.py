"""Whether the ledgers of a job are complete, as far as the ledgers show. Pure.

Some platforms give every node the list of the job's nodes; otherwise the operator may declare their number at the
merge. Without either a missing node would go unnoticed, so no upper bound is known. Nor is one known where a ledger has
no end: how long that node continued, and with which devices, is not recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.merged_segments import SegmentCheck
from flopsd.core.notes import Note, note, notes_for_ledger
from flopsd.core.values import text_or_none
from flopsd.errors import LedgerError

MAX_LISTED = 20

WHOLE, NOT_WHOLE, ENDLESS, NODES_UNKNOWN = "whole", "ledgers_missing", "no_end", "nodes_unknown"


@dataclass(frozen=True, slots=True)
class Completeness:
    """`complete` is None where it is not known. `missing` names what is, or may be, missing. `nodes_unknown`: the job's
    number of nodes is not known."""

    complete: bool | None
    missing: tuple[Note, ...]
    expected_nodes: int | None
    nodes: int
    declared_nodes: int | None
    nodes_unknown: bool = False

    def for_ledger(self) -> dict[str, Any]:
        return {
            "complete": self.complete,
            "missing": notes_for_ledger(self.missing),
            "expectedNodes": text_or_none(self.expected_nodes),
            "declaredNodes": text_or_none(self.declared_nodes),
            "nodes": str(self.nodes),
            "summary": {True: WHOLE, False: NOT_WHOLE, None: NODES_UNKNOWN if self.nodes_unknown else ENDLESS}[
                self.complete
            ],
        }


def completeness_of_single(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Completeness of a job of one node, for a lineage's entry."""
    endless = _endless(entry)
    if (segment := entry["segment"]) is not None:
        who = of_node(entry["rank"], entry["node"])
        alone = note("segment_alone", **who, ledger=entry["name"], segment=str(segment["number"]))
        return {"complete": False, "missing": notes_for_ledger([alone, *endless])}
    return {"complete": None if endless else True, "missing": notes_for_ledger(endless)}


def _endless(entry: Mapping[str, Any]) -> list[Note]:
    """Notes on a node whose last daemon start has no end. Earlier ones were continued by the next start, which accounts
    for the time in between."""
    if entry["ended"] is True:
        return []
    who = of_node(entry["rank"], entry["node"])
    return [note("no_end", **who, ledger=entry["name"], after=entry["lastRecordAt"])]


def of_node(rank: int | None, node: str | None) -> dict[str, str]:
    """The parameters that name a node in a note."""
    return {**({} if rank is None else {"rank": str(rank)}), **({} if node is None else {"node": node})}


MOST_NODES = 100_000  # per job: each missing one is named, so an untrusted number must not fill the memory


class NodeCheck:
    """Tracks which nodes of a job have ledgers, and of which attempts."""

    def __init__(self, job_nodes: Sequence[str], declared_nodes: int | None, platform: str | None = None) -> None:
        self._job_nodes, self._declared = tuple(job_nodes), declared_nodes
        self._counts_attempts = platform == "slurm"  # from 0: a later number shows that there were earlier ones
        self._rank_of = {name: rank for rank, name in enumerate(self._job_nodes)}
        self._seen: dict[tuple[int | None, str], set[str]] = {}  # attempts by rank and node
        self._attempts: dict[str, str] = {}  # one copy of each attempt's name
        self._named = True
        self._endless: list[Note] = []
        self._segments = SegmentCheck()
        if len(self._rank_of) < len(self._job_nodes):
            raise LedgerError(
                "the job's node list has a name twice, so the rank of that node is ambiguous",
                hint="give each node a different name",
                code="rank_differs",
            )
        if declared_nodes is not None and declared_nodes > MOST_NODES:
            raise _too_many(declared_nodes)
        if self._job_nodes and declared_nodes not in (None, len(self._job_nodes)):
            raise LedgerError(
                f"the ledgers name {len(self._job_nodes)} nodes of the job, --nodes declares {declared_nodes}",
                hint="leave --nodes out: it is for jobs whose ledgers name none",
                code="too_many_nodes",
            )

    def add(self, entry: Mapping[str, Any], label: str) -> None:
        """Add a node ledger. Raises LedgerError where it cannot belong to this job."""
        node, rank = entry["node"], entry["rank"]
        if self._job_nodes and (node not in self._rank_of or self._rank_of[node] != rank):
            of_rank = "no rank" if rank is None else f"rank {rank}"
            raise LedgerError(
                f"{label} is of node {node!r} with {of_rank}, which is not among the job's nodes"
                if node not in self._rank_of
                else f"{label} gives node {node!r} {of_rank}; by the job's node list it has {self._rank_of[node]}",
                hint="leave it out: it belongs to another job",
                code="rank_differs",
            )
        if not self._job_nodes and self._declared is not None and rank is not None and rank >= self._declared:
            raise LedgerError(
                f"{label} has rank {rank}: the job had more than {self._declared} nodes",
                hint="give --nodes the number of nodes that the job had",
                code="too_many_nodes",
            )
        if rank is not None and rank >= MOST_NODES:
            raise _too_many(rank + 1)
        self._endless += _endless(entry)
        self._segments.add(entry["segment"], of_node(rank, node), entry["name"])
        attempts = self._seen.setdefault((rank, node), set())
        for period in entry["periods"]:
            attempts.add(self._attempts.setdefault(period["attempt"], period["attempt"]))
            # Without attempt numbers of the platform the boot stands for an attempt, and no two nodes share a boot.
            self._named = self._named and period["attempt"] != period["bootId"]

    def result(self) -> Completeness:
        """The result. Raises LedgerError for more nodes than declared, or segments that cannot continue each other."""
        ranked = all(rank is not None for rank, _ in self._seen)
        slots: dict[int | str, set[str]] = {}  # a node may return under the same rank and another name
        names: dict[int | str, str] = {}
        for (rank, node), attempts in self._seen.items():
            slot = rank if ranked and rank is not None else node
            slots.setdefault(slot, set()).update(attempts)
            names[slot] = min(node, names.get(slot, node))
        missing = self._absent(slots, ranked)
        if not missing:
            missing = self._absent_attempts(slots, names)
        missing += self._segments.missing()
        expected = len(self._job_nodes) or self._declared
        complete = False if missing else None if expected is None or self._endless else True
        listed = (*missing, *self._endless)
        return Completeness(complete, listed, expected, len(slots), self._declared, nodes_unknown=expected is None)

    def _absent(self, slots: Mapping[int | str, object], ranked: bool) -> list[Note]:
        if self._job_nodes:
            here = {node for _, node in self._seen}
            absent = [(rank, node) for rank, node in enumerate(self._job_nodes) if node not in here]
            return [note("no_ledger", **of_node(rank, node)) for rank, node in absent]
        if ranked:
            highest = max((slot for slot in slots if isinstance(slot, int)), default=-1)
            expected = range(self._declared if self._declared is not None else highest + 1)
            return [note("no_ledger", **of_node(rank, None)) for rank in expected if rank not in slots]
        if self._declared is None or len(slots) == self._declared:
            return []
        if len(slots) > self._declared:
            raise LedgerError(
                f"there are ledgers of {len(slots)} nodes, of {self._declared} that were declared",
                hint="give --nodes the number of nodes that the job had",
                code="too_many_nodes",
            )
        return [note("nodes_missing", missing=str(self._declared - len(slots)), nodes=str(self._declared))]

    def _absent_attempts(self, slots: Mapping[int | str, set[str]], names: Mapping[int | str, str]) -> list[Note]:
        missing: list[Note] = []
        most = max((len(attempts) for attempts in slots.values()), default=0)
        every = set(self._attempts)
        if self._counts_attempts:  # the first number that no node has is enough
            every.update([text for text in map(str, range(len(every))) if text not in every][:1])
        for slot in sorted(slots, key=lambda slot: (str(type(slot)), slot)):
            who = of_node(slot if isinstance(slot, int) else None, names[slot])
            if self._named:
                absent = sorted(every - slots[slot])
                missing += [note("no_ledger_of_attempt", **who, attempt=attempt) for attempt in absent]
            elif len(slots[slot]) < most:
                missing.append(note("fewer_attempts", **who, attempts=str(len(slots[slot])), most=str(most)))
        return missing


def _too_many(nodes: int) -> LedgerError:
    return LedgerError(
        f"a job of {nodes} nodes: at most {MOST_NODES} can be merged",
        hint="merge parts of the job into several ledgers; flopsd cannot add those up to one job",
        code="too_many_nodes",
    )
