"""The measured rate over the whole run so far, in few points: for a chart, not for the record."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from flopsd.core.ledger.run_view import RunView
from flopsd.core.model import Evidence
from flopsd.core.values import NS_PER_S

POINTS = 32  # three numbers each, 768 bytes; beyond that every second point is dropped
_NOT_MEASURED = (Evidence.UTILIZATION, Evidence.GAP)
_EACH = 3


class RateHistory:
    """Totals at increasing intervals, so that the whole daemon start fits. `points` is replaced, never changed; each
    point is three numbers: seconds of boot time, measured FLOP, measured device seconds."""

    def __init__(self, every_ns: int) -> None:
        self.points = array("d")
        self._every_s = every_ns / NS_PER_S

    def note(self, now_ns: int, view: RunView) -> None:
        """Add the totals of `view` if a point is due at `now_ns`, boot time."""
        now_s, points = now_ns / NS_PER_S, self.points
        if points and now_s < points[-_EACH] + self._every_s:
            return
        measured = float(view.figures.measured_flop or 0)
        seen_ns = sum(ns for evidence, ns in view.observed_ns_by_evidence.items() if evidence not in _NOT_MEASURED)
        if points and measured < points[-2]:  # another process replaced the journal: the totals start over
            points = array("d")
        points = points + array("d", (now_s, measured, seen_ns / NS_PER_S))
        if len(points) > POINTS * _EACH:
            points = array("d", (points[at] for at in range(len(points)) if at // _EACH % 2 == 0))
            self._every_s *= 2
        self.points = points


def rates(points: array[float]) -> Iterator[tuple[float, float, float | None]]:
    """The start and end of each interval in seconds, and its mean measured FLOP/s; None if nothing was measured."""
    for at in range(0, len(points) - _EACH, _EACH):
        begin_s, before, seen_before, end_s, after, seen = points[at : at + 2 * _EACH]
        yield begin_s, end_s, (after - before) / (end_s - begin_s) if seen > seen_before else None
