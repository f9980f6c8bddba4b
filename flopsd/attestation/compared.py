"""The result of comparing two ledgers of one run on one node."""

from __future__ import annotations

from enum import Enum

from flopsd.core.dataclass import dataclass
from flopsd.core.rounding import format_flop


class Relation(str, Enum):
    """The relation of the other ledger to this one."""

    SAME = "same length"
    EARLIER = "earlier seal"
    LATER = "later seal"
    ANOTHER = "another journal"  # of the same run and node, at another time


@dataclass(frozen=True, slots=True)
class Compared:
    """`records`, `bytes` and `flop`: the longer ledger less the shorter; None for a figure that either lacks.
    `common_records`: the length of the common chain. `listed`: whether the longer one's journal names the shorter."""

    ledger: str
    other: str
    relation: Relation
    common_records: int
    records: int
    bytes: int
    flop: dict[str, str | None]
    listed: bool | None

    @property
    def text(self) -> str:
        measured = self.flop["measured"]
        flop = "an unknown measured amount" if measured is None else f"{format_flop(int(measured))} measured"
        apart = f"{self.records} records, {self.bytes} bytes and {flop}"
        listed = f"the later one {'lists' if self.listed else 'does not list'} the earlier one"
        return {
            Relation.SAME: f"{self.other} seals the same journal at the same length, {self.common_records} records.",
            Relation.EARLIER: f"{self.other} is an earlier seal of this journal, {apart} shorter; {listed}.",
            Relation.LATER: f"{self.other} is a LATER seal of this journal: {self.ledger} lacks {apart}; {listed}.",
            Relation.ANOTHER: f"{self.other} is of another journal of this run and node, at another time.",
        }[self.relation]
