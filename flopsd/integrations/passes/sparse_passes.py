"""Which passes are watched closely, which would take too long for each."""

from __future__ import annotations

import random

_ALL = 4


class SparsePasses:
    """Passes 1 to 4, then one each of 5 to 8, 9 to 16, 17 to 32, …, drawn at random: passes 8, 16, 32, … would never be
    the third of a step of three passes."""

    def __init__(self) -> None:
        self._draw = random.Random(0)  # not that of the training, and alike in each run
        self._passes = 0
        self._end = _ALL  # of the current range
        self._due = 0

    def next_is_due(self) -> bool:
        """Count a pass. Return whether to watch it."""
        self._passes += 1
        if self._passes <= _ALL:
            return True
        if self._passes > self._end:
            self._due, self._end = self._draw.randint(self._passes, 2 * self._end), 2 * self._end
        return self._passes == self._due
