"""How far a sum of randomly timed clock readings can be from the true integral. Pure, on exact ints.

Time is cut into slots, and the clock is read once in each, at a moment drawn evenly from the slot. A reading times the
slot's length is then an unbiased estimate of the slot's cycles, whatever the clock does, as long as it does not depend
on the draw. The sum of such estimates obeys an empirical Bernstein inequality: with X_i between 0 and `widest` apart
from a constant, and any prediction of X_i made before the draw,

    P(|sum of errors| >= widest * (L / a + v * psi(a) / a)) <= 1 in a million
    v = sum((X_i - prediction_i)^2) / widest^2

for every a of a fixed grid at once, L = ln(2 * grid * 10^6), psi(a) = -ln(1 - a) - a (Fan, Grama and Liu 2015; Howard
et al. 2021, theorem 4; docs/adr/0020 has the proof). It holds at all times at once and the sum only grows, so that it
adds up over readings and restarts.
"""

from __future__ import annotations

from functools import lru_cache

SLOT_MAX_NS = 90_000_000  # an interval of a second has twelve slots
# For a = 4/5, 1/2, 1/4 ... 1/2^19: L / a and an upper end of psi(a) / a, in units of 2^-60, rounded up. L = 17.505 is
# above ln(2 * 20 * 10^6) = 17.5044; psi(a) = a^2/2 + a^3/3 + ... <= a^2/2 + a^3 / (3 (1 - a)).
_UNIT = 2**60
_L = (17505, 1000)
_GRID = ((4, 5), *((1, 2**k) for k in range(1, 20)))
_TERMS = tuple(
    (
        -(-_UNIT * _L[0] * below // (_L[1] * above)),
        -(-_UNIT * above * (3 * (below - above) + 2 * above) // (6 * below * (below - above))),
    )
    for above, below in _GRID
)


@lru_cache(maxsize=256)
def deviation(square_sum: int, widest: int) -> int:
    """The greatest distance of a sum from the truth, both ways, rounded up; it is exceeded once in a million sums.

    `widest` is the most that one slot can be off (its length times the range that the clock has); `square_sum` the sum
    of squares of the differences between each slot's estimate and its prediction, in the unit of `widest` squared.
    """
    if widest <= 0:
        return 0
    found: int = min(constant * widest + -(-factor * square_sum // widest) for constant, factor in _TERMS)
    return -(-found // _UNIT)
