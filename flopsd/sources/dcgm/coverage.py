"""The time that a collection's averages cover, if only the read that found it says when it was made. Pure.

The averages cover one collection interval, which ends between that read and the previous read. A reading goes from one
such moment to the next. From this follows how much of a reading no collection can cover, and how much work the unknown
moments may move in or out: at a boundary between two readings the difference of their activity, at the last one all.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import Limits, Pipe

_JITTER = 20  # a collection may be late by a 20th of its interval
_RECENT = 3  # distances between collections: their interval is at most the least


class CollectionCoverage:
    """The coverage of one GPU. A stretch is time that collections cover without a gap between them."""

    def __init__(self, interval_ns: int) -> None:
        """`interval_ns`: the collection interval of the exporter, or a longer one."""
        self._interval_ns, self._stated_ns, self._apart_ns = interval_ns, interval_ns, deque[int](maxlen=_RECENT)
        self._behind_ns = self._edge_ns = 0
        self._ratios: Mapping[Pipe, float] | None = None  # of the reading before; None: a stretch begins

    def followed(self, apart_ns: int) -> None:
        """Note that a collection came at most `apart_ns` after another."""
        self._apart_ns.append(apart_ns)
        self._interval_ns = min(self._stated_ns, *self._apart_ns)

    def interrupt(self, behind_ns: int = 0) -> None:
        """Note a gap before the next reading. `behind_ns`: as `uncovered_ns` returned it."""
        self._behind_ns, self._edge_ns, self._ratios = behind_ns, 0, None

    def uncovered_ns(self, duration_ns: int, lag_ns: int) -> tuple[int, int]:
        """Return how much of a reading of `duration_ns`, whose end was found within `lag_ns`, no collection covers, and
        by how much the readings are then longer than their collections."""
        lag_ns = min(lag_ns, self._interval_ns)  # the newest collection is not older than that
        longer_ns = duration_ns - self._interval_ns
        self._behind_ns = max(self._behind_ns + longer_ns, -lag_ns)
        missed_ns = self._behind_ns - lag_ns
        if missed_ns <= self._interval_ns // _JITTER:
            return 0, self._behind_ns
        missed_ns = min(duration_ns, max(missed_ns, longer_ns))
        return missed_ns, self._behind_ns - missed_ns

    def shifted(self, ratios: Mapping[Pipe, float], lag_ns: int, limits: Limits) -> dict[Pipe, int]:
        """Return by how many SM-cycles each pipe of a counted reading may be off, since its moments are not known."""
        edge_ns = max(self._edge_ns, min(lag_ns, self._interval_ns))
        before, before_ns = self._ratios, self._edge_ns
        self._ratios, self._edge_ns = ratios, edge_ns
        found = {}
        for pipe, ratio in ratios.items():
            ns = ratio * edge_ns
            if before is not None:
                earlier = before.get(pipe, 0.0)
                ns = abs(ratio - earlier) * edge_ns + max(0.0, ns - earlier * before_ns)
            if ns:
                found[pipe] = max_sm_cycles(limits, math.ceil(ns))
        return found
