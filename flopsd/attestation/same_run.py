"""Compare two ledgers of one run on one node: one is an earlier seal of the other's journal, or the journals fork."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path

from flopsd.attestation.compared import Compared, Relation
from flopsd.attestation.verify import Verified
from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.merged_claims import NODE, Claim, claims_of
from flopsd.core.ledger.merged_entry import node_entry
from flopsd.errors import NotVerifiedError
from flopsd.journal.reading import read_journal


@dataclass(frozen=True, slots=True)
class SealedRun:
    """A verified ledger of a node, with its journal."""

    label: str
    journal: Path
    verified: Verified

    @property
    def name(self) -> tuple[str, str]:
        return self.verified.history.run, self.verified.history.node

    @property
    def length(self) -> tuple[int, int, str]:
        """Records, bytes and SHA-256 head of the sealed part."""
        facts = self.verified.statement["predicate"]["method"]["journal"]
        return int(facts["records"]), int(facts["bytes"]), str(facts["headSha256"])

    def heads(self) -> Iterator[bytes]:
        return (line.head for line in islice(read_journal(self.journal), self.length[0]))

    def lists(self, other: SealedRun) -> bool:
        """Whether the sealed part of this journal names the other ledger."""
        digest, lines = sha256(other.verified.payload).hexdigest(), islice(read_journal(self.journal), self.length[0])
        named = (line.record() for line in lines if digest.encode("ascii") in line.body)
        return any(record["kind"] == "sealed" and record["payload_sha256"] == digest for record in named)

    def times(self) -> list[Claim]:
        entry = node_entry(self.verified.statement["predicate"], self.verified.history, "", [])
        return [claim for claim in claims_of(entry) if claim.what == NODE]


def compare(one: SealedRun, other: SealedRun) -> Compared:
    """Compare two ledgers. Raises NotVerifiedError for a fork, and for ledgers of different runs or nodes."""
    if one.name != other.name:
        raise NotVerifiedError(
            f"{other.label} is of another run or node than {one.label}: run {other.name[0]!r} on {other.name[1]!r}, "
            f"not run {one.name[0]!r} on {one.name[1]!r}",
            hint="only ledgers of one run on one node can be compared; merge those of one job",
            code="another_run",
        )
    common = 0
    for mine, its in zip(one.heads(), other.heads(), strict=False):
        if mine != its:
            break
        common += 1
    lengths = one.length[0], other.length[0]
    if common < min(lengths):
        if common == 0 and not any(mine.overlaps(its) for mine in one.times() for its in other.times()):
            return Compared(
                one.label, other.label, Relation.ANOTHER, 0, 0, 0, dict.fromkeys(("low", "measured", "high")), None
            )
        part = f"part after record {common}" if common else "have no record in common"
        ends = [f"record {run.length[0]} with head {run.length[2]}" for run in (one, other)]
        raise NotVerifiedError(
            f"FORK: {one.label} and {other.label} are two histories of run {one.name[0]!r} on node {one.name[1]!r}: "
            f"their journals {part}; one goes on to {ends[0]}, the other to {ends[1]}",
            hint="at most one of them is true for that time; ask the sender why there are two: a journal that was "
            "restored from an older copy forks like this, and so does one that was rewritten",
            code="two_histories",
        )
    longer, shorter = (one, other) if lengths[0] >= lengths[1] else (other, one)
    relation = Relation.SAME if lengths[0] == lengths[1] else Relation.EARLIER if longer is one else Relation.LATER
    executed = [run.verified.statement["predicate"]["totals"]["executed"] for run in (longer, shorter)]
    return Compared(
        one.label,
        other.label,
        relation,
        common,
        longer.length[0] - shorter.length[0],
        longer.length[1] - shorter.length[1],
        {name: _less(executed[0][name], executed[1][name]) for name in ("low", "measured", "high")},
        None if relation is Relation.SAME else longer.lists(shorter),
    )


def _less(more: str | None, less: str | None) -> str | None:
    return None if more is None or less is None else str(int(more) - int(less))
