"""How far a sum of randomly timed clock readings can be from the true integral. Pure, on exact ints.

Time is cut into slots, and the clock is read once in each, at a moment drawn evenly from the slot. A reading times the
slot's length is then an unbiased estimate of the slot's cycles, whatever the clock does, as long as it does not depend
on the draw. The sum of such estimates obeys an empirical Bernstein inequality: with X_i between 0 and `slot` apart
from a constant, and any prediction of X_i made before the draw,

    P(|sum of errors| >= slot * (L / a + v * psi(a) / a)) <= 1 in a million,  v = sum((X_i - prediction_i)^2) / slot^2

for every a of a fixed grid at once, L = ln(2 * grid * 10^6), psi(a) = -ln(1 - a) - a (Fan, Grama and Liu 2015; Howard
et al. 2021, theorem 4; docs/adr/0020 has the proof). It holds at all times at once and the sum only grows, so that it
adds up over readings and restarts.
"""

from __future__ import annotations

from fractions import Fraction

MISS_PROBABILITY = Fraction(1, 1_000_000)
_GRID = (Fraction(4, 5), *(Fraction(1, 2**k) for k in range(1, 20)))
_L = Fraction(17505, 1000)  # above ln(2 * 20 * 10^6) = 17.5044
# Per grid point: L / a, and an upper end of psi(a) / a: psi(a) = a^2/2 + a^3/3 + ... <= a^2/2 + a^3 / (3 (1 - a)).
_TERMS = tuple((_L / a, a / 2 + a * a / (3 * (1 - a))) for a in _GRID)


def deviation(square_sum: int, slot: int) -> int:
    """The greatest distance of a sum from the truth, both ways, rounded up; it is exceeded once in a million sums.

    `slot` is the most that one slot can be off (its length times the width of the range that the clock has);
    `square_sum` the sum of squares of the differences between each slot's estimate and its prediction, in the unit of
    `slot` squared. Zero slots have no deviation.
    """
    if slot <= 0:
        return 0
    found = min(constant * slot + factor * Fraction(square_sum, slot) for constant, factor in _TERMS)
    return -(-found.numerator // found.denominator)
