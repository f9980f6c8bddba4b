"""What is computed of a training: FLOP as an interval, and what it was computed from."""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.dataclass import dataclass
from flopsd.core.notes import Note


@dataclass(frozen=True, slots=True)
class Bounds:
    """FLOP: at least, as computed, at most. `computed` rests on assumptions that are named beside it."""

    low: int
    computed: int
    high: int

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.low + other.low, self.computed + other.computed, self.high + other.high)

    def for_ledger(self) -> dict[str, str]:
        return {"low": str(self.low), "computed": str(self.computed), "high": str(self.high)}


@dataclass(frozen=True, slots=True)
class ArchitectureFlop:
    """FLOP of a training by what it required and by what ran. The `terms` add up to `executed.computed`."""

    required: Bounds
    executed: Bounds
    terms: Mapping[str, int]
    assumptions: tuple[Note, ...]
