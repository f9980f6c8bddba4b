"""What comparing two ledgers of one run on one node found."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.rounding import format_flop


class Relation(str, Enum):
    """What the other ledger is to this one."""

    SAME = "same length"
    EARLIER = "earlier seal"
    LATER = "later seal"
    ANOTHER = "another journal"  # of the same run and node, at another time


@dataclass(frozen=True, slots=True)
class Compared:
    """`records`, `bytes` and `flop` are how much longer the longer one is; a figure that either lacks is None.
    `common_records`: how far both chains are the same. `listed`: the longer one's journal names the shorter one."""

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

    def for_json(self) -> dict[str, Any]:
        return {**asdict(self), "relation": self.relation.value}
