"""Whether a job's ledgers are all there, as far as the ledgers themselves can tell. Pure.

The roster is what the platform told every node; where it told none, whoever merges may declare how many nodes
the job had. Without either nobody can tell that a node is missing, and then no upper bound is known. Nor is one
known where a ledger has no end: nobody can tell how long that node went on, or with what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopsd.errors import LedgerError

MAX_TOLD = 20

WHOLE = "A ledger of every node and attempt that the ledgers know of is here."
NOT_WHOLE = "Ledgers are missing: the figures are the sum of what is here, and of the whole no upper bound is known."
ENDLESS = (
    "A ledger of every node and attempt is here, but not each has an end: "
    "the figures are the sum of what is here, and of the whole no upper bound is known."
)
UNTOLD = (
    "No ledger says how many nodes the job had, so a missing one would go unseen: "
    "the figures are the sum of what is here, and of the whole no upper bound is known."
)


@dataclass(frozen=True, slots=True)
class Completeness:
    """`complete` is None where nobody can tell. `missing` says in words what is, or may be. `untold`: how much there
    should be is not known."""

    complete: bool | None
    missing: tuple[str, ...]
    expected_nodes: int | None
    nodes: int
    declared_nodes: int | None
    untold: bool = False

    def for_ledger(self) -> dict[str, Any]:
        return {
            "complete": self.complete,
            "missing": list(self.missing),
            "expectedNodes": None if self.expected_nodes is None else str(self.expected_nodes),
            "declaredNodes": None if self.declared_nodes is None else str(self.declared_nodes),
            "nodes": str(self.nodes),
            "summary": self._summary,
        }

    @property
    def _summary(self) -> str:
        if self.complete is not None:
            return WHOLE if self.complete else NOT_WHOLE
        return UNTOLD if self.untold else ENDLESS

    @property
    def told(self) -> str:
        """What is missing, for a message of bearable length."""
        more = len(self.missing) - MAX_TOLD
        return "; ".join(self.missing[:MAX_TOLD]) + (f"; and {more} more" if more > 0 else "")


def completeness_of_lone(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Of a job of one node, as a lineage's entry has it."""
    endless = _endless(entry)
    return {"complete": None if endless else True, "missing": endless}


def _endless(entry: Mapping[str, Any]) -> list[str]:
    """What is not known of a node whose last incarnation has no end. Earlier ones were taken up by the next, which
    accounts for the time in between."""
    if entry["ended"] is True:
        return []
    who = _who(entry["rank"], entry["node"])
    return [f"{who}: no end in ledger {entry['name']}, and what it did after {entry['lastRecordAt']} is not known"]


def _who(rank: int | None, node: str) -> str:
    return f"node {node}" if rank is None else f"rank {rank} ({node})"


class NodeCheck:
    """Which nodes of a job are there, and in which attempts."""

    def __init__(self, roster: Sequence[str], declared_nodes: int | None) -> None:
        self._roster, self._declared = tuple(roster), declared_nodes
        self._rank_of = {name: rank for rank, name in enumerate(self._roster)}
        self._seen: dict[tuple[int | None, str], set[str]] = {}  # attempts by rank and node
        self._attempts: dict[str, str] = {}  # every attempt's name, held once
        self._named = True
        self._endless: list[str] = []
        if self._roster and declared_nodes not in (None, len(self._roster)):
            raise LedgerError(
                f"the ledgers name a roster of {len(self._roster)} nodes, not of {declared_nodes}",
                hint="leave --nodes out: it is for jobs whose ledgers name none",
            )

    def answer(self, entry: Mapping[str, Any], label: str) -> None:
        """A node ledger is there. Raises LedgerError where it cannot be of this job."""
        node, rank = entry["node"], entry["rank"]
        if self._roster and (node not in self._rank_of or self._rank_of[node] != rank):
            raise LedgerError(
                f"{label} is of node {node!r} with rank {rank}, which the job's roster does not have"
                if node not in self._rank_of
                else f"{label} gives node {node!r} rank {rank}; in the job's roster it has {self._rank_of[node]}",
                hint="take it away: it is of another job",
            )
        if not self._roster and self._declared is not None and rank is not None and rank >= self._declared:
            raise LedgerError(
                f"{label} has rank {rank}: the job had more than {self._declared} nodes",
                hint="give --nodes the number of nodes that the job had",
            )
        self._endless += _endless(entry)
        attempts = self._seen.setdefault((rank, node), set())
        for period in entry["periods"]:
            attempts.add(self._attempts.setdefault(period["attempt"], period["attempt"]))
            # Where the platform numbers no attempts the boot stands for one, and no two nodes share a boot.
            self._named = self._named and period["attempt"] != period["bootId"]

    def result(self) -> Completeness:
        """Raises LedgerError for more nodes than were declared."""
        ranked = all(rank is not None for rank, _ in self._seen)
        slots: dict[int | str, set[str]] = {}  # a node may come back under the same rank with another name
        names: dict[int | str, str] = {}
        for (rank, node), attempts in self._seen.items():
            slot = rank if ranked and rank is not None else node
            slots.setdefault(slot, set()).update(attempts)
            names[slot] = min(node, names.get(slot, node))
        missing = self._absent(slots, ranked)
        if not missing:
            missing = self._absent_attempts(slots, names)
        expected = len(self._roster) or self._declared
        complete = False if missing else None if expected is None or self._endless else True
        told = (*missing, *self._endless)
        return Completeness(complete, told, expected, len(slots), self._declared, untold=expected is None)

    def _absent(self, slots: Mapping[int | str, object], ranked: bool) -> list[str]:
        if self._roster:
            here = {node for _, node in self._seen}
            return [f"rank {rank} ({node}): no ledger" for rank, node in enumerate(self._roster) if node not in here]
        if ranked:
            highest = max((slot for slot in slots if isinstance(slot, int)), default=-1)
            expected = range(self._declared if self._declared is not None else highest + 1)
            return [f"rank {rank}: no ledger" for rank in expected if rank not in slots]
        if self._declared is None or len(slots) == self._declared:
            return []
        if len(slots) > self._declared:
            raise LedgerError(
                f"there are ledgers of {len(slots)} nodes, of {self._declared} that were declared",
                hint="give --nodes the number of nodes that the job had",
            )
        return [f"{self._declared - len(slots)} of {self._declared} nodes: no ledger, and none here says of which rank"]

    def _absent_attempts(self, slots: Mapping[int | str, set[str]], names: Mapping[int | str, str]) -> list[str]:
        missing = []
        most = max((len(attempts) for attempts in slots.values()), default=0)
        for slot in sorted(slots, key=lambda slot: (str(type(slot)), slot)):
            who = _who(slot if isinstance(slot, int) else None, names[slot])
            if self._named:
                absent = sorted(set(self._attempts) - slots[slot])
                missing += [f"{who}: no ledger of attempt {attempt!r}" for attempt in absent]
            elif len(slots[slot]) < most:
                missing.append(f"{who}: ledgers of {len(slots[slot])} attempts, while other nodes have {most}")
        return missing
