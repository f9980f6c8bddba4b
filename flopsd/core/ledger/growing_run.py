"""Figures of a run at many of its records. Each daemon start, of which there may be thousands, is rated once. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from flopsd.core.dataclass import dataclass
from flopsd.core.figures import NO_FIGURES, Figures, sum_by_key, sum_figures
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.rated_tally import coverage_of, rated_start
from flopsd.core.ledger.run_view import RunView
from flopsd.core.model import UNDECLARED_PHASE, DeviceUid
from flopsd.core.operator_count import ReadFigures, exceeds, rows_of
from flopsd.core.peaks import PeakTable
from flopsd.core.rows import Row
from flopsd.core.values import added

_NOT_KNOWN = Figures(0, None, None)  # while there has been no device


@dataclass(frozen=True, slots=True)
class RunSums:
    """The sums over some daemon starts, and whether any of them had a device."""

    figures: Figures = NO_FIGURES
    by_phase: Mapping[str, Figures] = field(default_factory=dict)
    times_ns: Mapping[str, int] = field(default_factory=dict)
    devices: bool = False

    def __add__(self, other: RunSums) -> RunSums:
        return RunSums(
            self.figures + other.figures,
            sum_by_key((self.by_phase, other.by_phase)),
            added(self.times_ns, other.times_ns),
            self.devices or other.devices,
        )

    @property
    def coverage_ppm(self) -> int | None:
        return coverage_of(self.times_ns.get("job", 0), self.times_ns.get("unknown", 0))


class GrowingRun:
    """Follows a history to which records are added; each result equals that of `view_of`."""

    def __init__(self, table: PeakTable) -> None:
        self._table, self._starts, self._before = table, 0, RunSums()
        self._read: dict[DeviceUid, ReadFigures] = {}  # of the daemon starts in `_before`, by device

    def figures(self, history: History) -> Figures:
        last = self._last(history)
        found = self._before.figures + last.figures if last.rated else self._before.figures
        found = found if self._before.devices else last.figures
        return sum_figures([found, *(row.figures for row in self._counted(history, last))])

    def sums(self, history: History) -> RunSums:
        view = self._last(history)
        whole = self._before + _sums(view)
        if not whole.devices:
            return RunSums(_NOT_KNOWN, {UNDECLARED_PHASE: _NOT_KNOWN})
        for row in self._counted(history, view):
            whole += RunSums(row.figures, {row.phase: row.figures})
        return whole

    def _counted(self, history: History, last: RunView) -> Iterator[Row]:
        """The rows of training processes' operator counts, which cover all daemon starts together."""
        if not history.has_counts:
            return
        now = {one.uid: one.read for one in last.rated}
        for uid, count in history.counts.by_device.items():
            if uid in now or uid in self._read:
                read = self._read.get(uid, ReadFigures()) + now.get(uid, ReadFigures())
                yield from () if exceeds(count, read) else rows_of(count, read)

    def _last(self, history: History) -> RunView:
        """The view of the last daemon start. Earlier ones no longer grow and are added up once."""
        while self._starts < len(history.incarnations) - 1:
            earlier = self._view(history.incarnations[self._starts])
            self._before += _sums(earlier)
            for one in earlier.rated:  # later operator counts cover all daemon starts
                self._read[one.uid] = self._read.get(one.uid, ReadFigures()) + one.read
            self._starts += 1
        return self._view(history.incarnations[-1])

    def _view(self, start: Incarnation) -> RunView:
        return RunView(tuple(rated_start(start, self._table)), "", "", start.number)


def _sums(view: RunView) -> RunSums:
    if not view.rated:
        return RunSums()
    return RunSums(view.figures, view.bases.by_phase, {"job": view.job_ns, "unknown": view.unknown_ns}, devices=True)
