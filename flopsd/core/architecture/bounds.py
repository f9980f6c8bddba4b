"""Computed FLOP of a training: an interval and its terms."""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.dataclass import dataclass
from flopsd.core.notes import Note


@dataclass(frozen=True, slots=True)
class Bounds:
    """FLOP: at least, as computed, at most. `computed` rests on assumptions that are stated with it."""

    low: int
    computed: int
    high: int

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.low + other.low, self.computed + other.computed, self.high + other.high)

    def __or__(self, other: Bounds) -> Bounds:
        """As this one, and wide enough for both."""
        return Bounds(min(self.low, other.low), self.computed, max(self.high, other.high))

    def for_ledger(self) -> dict[str, str]:
        return {"low": str(self.low), "computed": str(self.computed), "high": str(self.high)}


@dataclass(frozen=True, slots=True)
class ArchitectureFlop:
    """FLOP that a training required, and FLOP that ran. The `terms` add up to `executed.computed`."""

    required: Bounds
    executed: Bounds
    terms: Mapping[str, int]
    assumptions: tuple[Note, ...]
