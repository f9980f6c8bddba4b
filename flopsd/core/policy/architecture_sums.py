"""The architecture basis as sums that ledgers add up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flopsd.core.architecture import Bounds
from flopsd.core.policy.guidelines import MARGIN_PPM
from flopsd.core.values import whole_number

COUNTED = "Counted from the model's shape and the tokens that its processes declare. No hardware was asked."


def add_bounds(one: Bounds, other: Bounds) -> Bounds:
    return Bounds(one.low + other.low, one.computed + other.computed, one.high + other.high)


@dataclass(frozen=True, slots=True)
class ArchitectureFigures:
    """The architecture basis in sums: what training required, and what all declared phases executed, in FLOP."""

    required: Bounds
    executed: Bounds
    tokens: int

    def __add__(self, other: ArchitectureFigures) -> ArchitectureFigures:
        required, executed = add_bounds(self.required, other.required), add_bounds(self.executed, other.executed)
        return ArchitectureFigures(required, executed, self.tokens + other.tokens)

    def for_ledger(self) -> dict[str, Any]:
        return {
            **bounds_json(self.required),
            "executed": bounds_json(self.executed),
            "method": COUNTED,
            "tokens": str(self.tokens),
            "marginPpm": str(MARGIN_PPM),
        }


def bounds_json(bounds: Bounds) -> dict[str, str]:
    return {"low": str(bounds.low), "computed": str(bounds.computed), "high": str(bounds.high)}


def figures_of_ledger(entry: Mapping[str, Any]) -> ArchitectureFigures:
    """The inverse of `Counted.for_ledger`. Raises KeyError, TypeError, ValueError on anything else."""
    return ArchitectureFigures(_bounds(entry), _bounds(entry["executed"]), whole_number(entry["tokens"]))


def _bounds(entry: Mapping[str, Any]) -> Bounds:
    return Bounds(*(whole_number(entry[name]) for name in ("low", "computed", "high")))
