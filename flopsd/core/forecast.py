"""When a threshold would be crossed if the work went on at a given rate. Pure; times are seconds from the figures."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from flopsd.core.model import Figures
from flopsd.core.policy import Limit


@dataclass(frozen=True, slots=True)
class Rate:
    """Between which FLOP/s the work goes on. `high_flop_per_s` is None where no ceiling is known."""

    low_flop_per_s: int
    high_flop_per_s: int | None


@dataclass(frozen=True, slots=True)
class Crossing:
    """Before `earliest_s` the threshold is certainly not crossed, from `latest_s` on it certainly is.

    0 is now. `earliest_s` is None where it is never crossed at this rate, `latest_s` where that it is crossed at all
    is not certain.
    """

    earliest_s: int | None
    latest_s: int | None


def crossing(limit: Limit | None, figures: Figures, rate: Rate) -> Crossing | None:
    """Earliest and latest crossing of `limit`; None where the threshold itself is not known.

    An upper end that is not known may have crossed already: then the earliest crossing is now.
    """
    if limit is None:
        return None
    earliest: int | None = 0
    if figures.high_flop is not None and figures.high_flop <= limit.low:
        high_rate = rate.high_flop_per_s
        earliest = 0 if high_rate is None else _until(limit.low, figures.high_flop, high_rate)
    return Crossing(earliest, _until(limit.high, figures.low_flop, rate.low_flop_per_s))


def _until(limit: Fraction, flop: int, flop_per_s: int) -> int | None:
    """The first whole second at whose end `flop` is greater than `limit`; None for never."""
    if flop > limit:
        return 0
    if flop_per_s <= 0:
        return None
    return (limit - flop) // flop_per_s + 1
