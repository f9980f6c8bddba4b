"""How far a sum of randomly timed clock readings can be from the true integral. Pure, on exact ints.

Time is cut into slots, and the clock is read once in each, at a moment drawn uniformly from the slot. A reading times
the slot's length is then an unbiased estimate X_i of the slot's cycles, whatever the clock does, provided that it does
not depend on the draw. With X_i from 0 to c_i <= c, and P_i any prediction of X_i made before the draw, the sum of all
errors stays below

  c * L / a + sum((X_i - P_i)^2) / c * psi(a) / a     (empirical Bernstein: Fan, Grama and Liu 2015)
  c * L / a + sum(c_i^2) / c * a / 8                  (Hoeffding)

for every a of a grid, either way, at all times at once, except once in a million: L = ln(2 * 40 * 10^6), psi(a) = -ln(1
- a) - a. docs/adr/0020 has the proof. All sums only grow, so the bound adds up over readings and restarts.
"""

from __future__ import annotations

from flopsd.core.values import ceil_div

SLOT_MAX_NS = 58_000_000  # an interval of one second has eighteen slots
# For a = 4/5, 1/2, 1/4 ... 1/2^19: L / a, an upper bound of psi(a) / a, and a / 8, in units of 2^-60, rounded up. L is
# 18.2, above ln(2 * 40 * 10^6) = 18.198; psi(a) = a^2/2 + a^3/3 + ... <= a^2/2 + a^3 / (3 (1 - a)).
_UNIT = 2**60
_GRID = ((4, 5), *((1, 2**k) for k in range(1, 20)))
_TERMS = tuple(
    (
        ceil_div(_UNIT * 182 * below, 10 * above),
        ceil_div(_UNIT * above * (3 * (below - above) + 2 * above), 6 * below * (below - above)),
        ceil_div(_UNIT * above, 8 * below),
    )
    for above, below in _GRID
)


def deviation(square_sum: int, widest: int, whole: int) -> int:
    """The greatest distance of a sum from the truth, either way, rounded up; one sum in a million exceeds it.

    `widest` is c, the most that one slot can have; `whole` is the most that all slots can have together; `square_sum`
    is the sum of squared differences between each slot's estimate and its prediction, in the unit of `widest` squared.
    """
    if widest <= 0:
        return 0
    found: int | None = None
    for constant, bernstein, hoeffding in _TERMS:
        at_least = constant * widest
        if found is not None and found <= at_least:
            break  # the constants grow
        bound = at_least + min(ceil_div(bernstein * square_sum, widest), hoeffding * whole)
        found = bound if found is None else min(found, bound)
    assert found is not None
    return ceil_div(found, _UNIT)
