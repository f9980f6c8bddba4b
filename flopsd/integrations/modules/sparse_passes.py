"""Which passes are watched closely, which would take too long for each."""

from __future__ import annotations

import random


class SparsePasses:
    """The first passes, 1 to 4 unless others are given (a power of 2), then one each of 5 to 8, 9 to 16, 17 to 32, …,
    drawn at random: passes 8, 16, 32, … would never be the third of a step of three passes."""

    __slots__ = ("_due", "_end", "_first", "_passes")

    def __init__(self, first: int = 4) -> None:
        self._first = self._end = first  # `_end` of the current range
        self._passes = self._due = 0

    def next_is_due(self) -> bool:
        """Count a pass. Return whether to watch it."""
        self._passes += 1
        if self._passes <= self._first:
            return True
        if self._passes > self._end:
            self._end *= 2
            # A generator apart from the training's, and alike in each run.
            self._due = random.Random(self._passes).randint(self._passes, self._end)
        return self._passes == self._due
