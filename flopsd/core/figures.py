"""The three figures of any total, and their sums. Pure and exact."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from flopsd.core.values import whole_number

K = TypeVar("K", bound=Hashable)


class Figures(NamedTuple):
    """The three figures of any total, in FLOP. `measured` is None where no estimating evidence was read; `high_flop` is
    None where no ceiling is known."""

    low_flop: int
    measured_flop: int | None
    high_flop: int | None

    def __add__(self, other: Figures) -> Figures:  # type: ignore[override]  # no list of three numbers
        return sum_figures((self, other))

    @property
    def unbounded(self) -> Figures:
        """The same figures without an upper bound, for a total that is incomplete."""
        return self._replace(high_flop=None)

    def for_ledger(self) -> dict[str, str | None]:
        """`{low, measured, high}` as decimal strings; null: not known."""
        low, measured, high = self
        return {
            "low": str(low),
            "measured": None if measured is None else str(measured),  # a ledger has hundreds of figures
            "high": None if high is None else str(high),
        }


NO_FIGURES = Figures(0, None, 0)


def figures_from(entry: Mapping[str, Any], middle: str = "measured") -> Figures:
    """The inverse of `Figures.for_ledger`; `middle` is the entry's name for the middle figure. Raises KeyError,
    TypeError or ValueError on anything else."""
    low, point, high = entry["low"], entry[middle], entry["high"]
    if low is None:
        raise ValueError("low is never null")
    return Figures(
        whole_number(low), None if point is None else whole_number(point), None if high is None else whole_number(high)
    )


def sum_figures(parts: Iterable[Figures]) -> Figures:
    """The sum. It is unmeasured if no part was measured, and unbounded if any part is unbounded."""
    listed = list(parts)
    if len(listed) == 1:
        return listed[0]
    low, measured, high = NO_FIGURES
    for least, point, most in listed:
        low += least
        if point is not None:
            measured = point if measured is None else measured + point
        high = None if high is None or most is None else high + most
    return Figures(low, measured, high)


def sum_by_key(parts: Iterable[Mapping[K, Figures]]) -> dict[K, Figures]:
    """The sum of the figures of each key."""
    found: dict[K, list[Figures]] = {}
    for part in parts:
        for key, figures in part.items():
            found.setdefault(key, []).append(figures)
    return {key: sum_figures(summed) for key, summed in found.items()}
