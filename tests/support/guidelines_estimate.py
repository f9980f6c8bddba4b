"""The two ways of estimating training compute that the Commission's Guidelines write down (annex A.2), exactly. Pure.

Every format counts alike and the peak is a dense one: annex A.3 takes 300 TFLOP/s for A100 and 989 for H100, both BF16.
The Guidelines do not define the utilisation U. The share of time that a driver reports is not it: that reads 2.4 to
5.8 times too high (Vilanakis 2026); the examples fit model FLOP utilisation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which the number of units does not change. `utilization` is the share of the peak achieved."""

    units: int
    seconds: Fraction
    peak_flop_per_s: Fraction
    utilization: Fraction


def hardware_flop(periods: Iterable[Period]) -> Fraction:
    """C = N x L x H x U, summed over periods (annex A.2.1)."""
    return sum((p.units * p.seconds * p.peak_flop_per_s * p.utilization for p in periods), Fraction(0))


def mixed_peak_flop_per_s(units: Iterable[tuple[int, Fraction]]) -> Fraction:
    """The peak of unlike units: their mean, weighted by how many there are. Raises ValueError for no units."""
    counted = list(units)
    total = sum(number for number, _ in counted)
    if total <= 0:
        raise ValueError("no units, so no peak")
    return sum((number * peak for number, peak in counted), Fraction(0)) / total


def dense_transformer_flop(parameters: int, tokens: int) -> int:
    """C = 6 x P x D (annex A.2.2): all parameters, and tokens as often as they were trained on.

    For large dense transformers only: parameters far more than a twelfth of the context's tokens (footnote 13).
    """
    return 6 * parameters * tokens
