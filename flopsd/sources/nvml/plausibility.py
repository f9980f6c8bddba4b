"""Checks whether percentages can be true, against power and utilisation. Pure.

A counter that is stuck looks like work. Its percentages are not counted if the device drew too little power for them,
ran nothing, or changed what it did while the percentages stayed the same to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flopsd.core.model import Pipe
from flopsd.sources.nvml.driver import Power

# Assumed, and measured on no hardware yet: a pipe that is active in a third of all cycles, at half the maximum clock or
# more, draws over a fifth of the power limit. If that is wrong, work becomes a gap with a ceiling: wider, but true.
ACTIVE_RATIO, IDLE_POWER_RATIO, RUNNING_CLOCK_RATIO = 0.3, 0.2, 0.5
FULL_UTILIZATION_RATIO = 0.9
READS_OF_ZERO = 3  # a device that draws little may wait in a kernel that computes nothing, but not long
READS_WITHOUT_UTILIZATION = 3  # one reading of utilisation covers the last sixth of a second only
STUCK_RATIO = 0.001  # less may be the noise of a device that does nothing
# Assumed as well: no device draws so much while kernels run and all pipes stand still.
ZERO_UTILIZATION_RATIO, ZERO_POWER_RATIO = 0.1, 0.3
POWER_STEP = 0.1  # of the limit; assumed too: noise does not change by so much
# The driver samples the power of A100 and H100 every 100 ms (arXiv:2312.02741), so its energy counter may be as old.
ENERGY_AGE_NS = 100_000_000


class Plausibility:
    """Checks one device's percentages from read to read."""

    def __init__(self) -> None:
        self._before: tuple[Mapping[Pipe, float], float | None, Power | None] = ({}, None, None)
        self._frozen = False
        self._without_utilization = self._zero = 0

    def is_zero_at_full_load(
        self, ratios: Mapping[Pipe, float], utilization: float | None, power: Callable[[], float | None]
    ) -> bool:
        """Whether every pipe reads exactly zero on a device that is busy by its utilisation, and either draws power or
        reads so for READS_OF_ZERO readings. Seen in the field for weeks (DCGM#303)."""
        busy = utilization is not None and utilization >= FULL_UTILIZATION_RATIO
        self._zero = self._zero + 1 if busy and not any(ratios.values()) else 0
        if not self._zero or self._zero >= READS_OF_ZERO:
            return self._zero > 0
        drawn = power()
        return drawn is not None and drawn >= IDLE_POWER_RATIO

    def contradicts(
        self, ratios: Mapping[Pipe, float], utilization: float | None, power: Power | None, clock: float | None, ns: int
    ) -> bool:
        """Whether the percentages of one reading of `ns` cannot be true. `power`: the mean of the interval. `clock`:
        the SM clock as a share of its maximum. None: not known."""
        before, utilization_before, power_before = self._before
        self._before = ratios, utilization, power
        busiest = max(ratios.values(), default=0.0)
        same = busiest > 0 and ratios == before
        if power is not None and power_before is not None:  # of the same interval, unlike utilisation
            changed = abs(power.share - power_before.share) >= POWER_STEP + power.late + power_before.late
        else:
            changed = None not in (utilization, utilization_before) and utilization != utilization_before
        # No work repeats itself to the last digit, shows no utilisation, and draws little power.
        unused = busiest >= STUCK_RATIO and utilization == 0 == utilization_before
        unused = unused and (power is None or power.share < IDLE_POWER_RATIO)
        self._frozen = same and (self._frozen or changed or unused)
        share, doubt = (0.0, 1.0) if power is None else (power.share, power.late + ENERGY_AGE_NS / ns)
        idle = share < IDLE_POWER_RATIO and (clock is None or clock >= RUNNING_CLOCK_RATIO)
        drew = utilization is not None and utilization >= ZERO_UTILIZATION_RATIO and share >= ZERO_POWER_RATIO
        nothing_ran = utilization == 0 and busiest >= ACTIVE_RATIO and (power is None or idle)
        self._without_utilization = self._without_utilization + 1 if nothing_ran else 0
        return (
            self._frozen
            or (idle and busiest - doubt >= ACTIVE_RATIO)  # the energy of the rest was perhaps not counted yet
            or (drew and not busiest)
            or self._without_utilization >= READS_WITHOUT_UTILIZATION
        )
