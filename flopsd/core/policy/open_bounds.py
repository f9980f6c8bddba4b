"""Bounds of FLOP that may be open: of work that was not all counted, only the low end is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flopsd.core.dataclass import dataclass
from flopsd.core.values import text_or_none, whole_number

if TYPE_CHECKING:
    from flopsd.core.architecture import Bounds


@dataclass(frozen=True, slots=True)
class OpenBounds:
    """FLOP. `computed` and `high` are None where something that belongs to them was not counted."""

    low: int
    computed: int | None
    high: int | None

    @classmethod
    def of(cls, bounds: Bounds, *, is_open: bool = False) -> OpenBounds:
        return cls(bounds.low, None, None) if is_open else cls(bounds.low, bounds.computed, bounds.high)

    def __add__(self, other: OpenBounds) -> OpenBounds:
        return OpenBounds(self.low + other.low, _sum(self.computed, other.computed), _sum(self.high, other.high))

    def for_ledger(self) -> dict[str, str | None]:
        return {"low": str(self.low), "computed": text_or_none(self.computed), "high": text_or_none(self.high)}


def open_bounds_from(entry: Mapping[str, Any]) -> OpenBounds:
    """The inverse of `OpenBounds.for_ledger`. Raises KeyError, TypeError, ValueError on anything else."""
    computed, high = (None if entry[name] is None else whole_number(entry[name]) for name in ("computed", "high"))
    return OpenBounds(whole_number(entry["low"]), computed, high)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
