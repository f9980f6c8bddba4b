"""What comes out of the architecture basis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """FLOP: at least, as computed, at most. `computed` rests on assumptions that are named beside it."""

    low: int
    computed: int
    high: int


@dataclass(frozen=True, slots=True)
class ArchitectureFlop:
    """FLOP of a training by what it required and by what ran. The `terms` add up to `executed.computed`."""

    required: Bounds
    executed: Bounds
    terms: Mapping[str, int]
    assumptions: tuple[str, ...]
