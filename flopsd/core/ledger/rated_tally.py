"""A tally with its FLOP, and groups of tallies that are reported together. Immutable and pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Phase, declared_from
from flopsd.core.figures import NO_FIGURES, Figures, sum_figures
from flopsd.core.lazy import lazy
from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.segments import RatedCount, sum_counts
from flopsd.core.model import PPM, UNDECLARED_PHASE, DeviceUid, Evidence, GapReason, Pipe
from flopsd.core.operator_count import ReadFigures
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import Phased
from flopsd.core.rows import Rating, Row, by_phase, gap_ceiling_flop, rows, total_of
from flopsd.core.tally import Tally
from flopsd.core.values import added, sum_if_all_known, sum_of_known


class CounterTotals(NamedTuple):
    """What a tally adds to counters of its device: measured FLOP by pipe (`all`: without regard to pipes), number
    format and evidence; measured integer operations by evidence, where there are any; and the most FLOP possible in
    intervals that were not measured as they passed, gaps included whose work was recovered later. None: not known."""

    flop: Mapping[tuple[str, str, str], int]
    integers: Mapping[str, int]
    not_measured: int | None


@dataclass(frozen=True)
class RatedTally:
    """One device's tally in one daemon start, with the rating that converts it into FLOP."""

    start: int  # number of the daemon start
    entry: DeviceEntry
    tally: Tally
    rating: Rating
    phase: Phase | None = None  # the job's phase by the settings of this daemon start

    @property
    def uid(self) -> DeviceUid:
        return self.entry.device.uid

    @lazy
    def rows(self) -> tuple[Row, ...]:
        """Disjoint rows; their sum is the tally's total."""
        return tuple(rows(self.tally, self.rating))

    @lazy
    def figures(self) -> Figures:
        return total_of(self.rows, self.tally)

    @lazy
    def integers(self) -> Figures:
        """Integer operations, which are not FLOP."""
        return total_of(self.rows, self.tally, integers=True)

    @lazy
    def counter_totals(self) -> CounterTotals:
        """The rows as the totals of counters, which never fall."""
        flop: dict[tuple[str, str, str], int] = {}
        integers: dict[str, int] = {}
        highs: list[int | None] = []
        for row in self.rows:
            evidence, pipe, (_, measured, high) = row.evidence, row.pipe, row.figures
            if measured is None:
                if evidence is Evidence.UTILIZATION or (evidence is Evidence.GAP and pipe is not None):
                    highs.append(high)
            elif pipe is not Pipe.TENSOR_IMMA:
                key = ("all" if pipe is None else pipe._value_, row.precision, evidence._value_)
                flop[key] = flop.get(key, 0) + measured
            if operations := row.integers.measured_flop:
                integers[evidence._value_] = integers.get(evidence._value_, 0) + operations
        tally = self.tally
        if tally.gap_ns and (gap_ns := tally.total_gap_ns - tally.elsewhere_ns):
            highs.append(gap_ceiling_flop(gap_ns, self.rating) if tally.is_bounded else None)
        return CounterTotals(flop, integers, sum_if_all_known(highs))

    @lazy
    def by_phase(self) -> Phased:
        if not self.tally.phases:
            return self._undeclared(self.figures)
        found = self._phased(by_phase(self.tally, self.rows), self.figures)
        claims: dict[tuple[str, str], Figures] = {}
        for row in self.rows:
            if any(claim := self._claim_of(row)):
                claims[claim] = claims.get(claim, NO_FIGURES) + row.figures
        if not claims:
            return found
        shares = by_phase(self.tally, self.rows, claimed=True)
        if self.phase is not None and UNDECLARED_PHASE in shares:
            left, known = shares.pop(UNDECLARED_PHASE), shares.get(self.phase.value, NO_FIGURES)
            shares[self.phase.value] = known + left
        return replace(found, claimed=shares, claims=claims)

    @lazy
    def integers_by_phase(self) -> Phased:
        if not self.tally.phases:
            return self._undeclared(self.integers)
        return self._phased(by_phase(self.tally, self.rows, integers=True), self.integers)

    def _undeclared(self, whole: Figures) -> Phased:
        """The figures by phase where no process declares a phase. They contain no claims."""
        recorded = {UNDECLARED_PHASE: whole} if self.rows or whole.measured_flop is not None else {}
        if self.phase is None:
            return Phased(recorded, recorded, recorded, recorded)
        return self._phased(recorded, whole)

    def _phased(self, recorded: Mapping[str, Figures], whole: Figures) -> Phased:
        name = UNDECLARED_PHASE if self.phase is None else self.phase.value
        settings: Mapping[str, Figures] = {name: whole} if recorded else {}  # a tally without time has no phase
        settings = recorded if recorded == settings else settings
        measured = recorded if self.phase is None else settings
        return Phased(recorded, settings, measured, measured)

    @lazy
    def read(self) -> ReadFigures:
        return ReadFigures.of(self.figures, self.by_phase.recorded, self.rows)

    @lazy
    def read_as_claimed(self) -> ReadFigures:
        """As `read`, under the phases and formats that processes claim."""
        claimed = self.by_phase.claimed
        rows = (row if row.claimed is None else row._replace(figures=row.claimed) for row in self.rows)
        return ReadFigures.of(sum_figures(claimed.values()), claimed, rows)

    def _claim_of(self, row: Row) -> tuple[str, str]:
        """The phase and format of a share as claimed by a process and not stated by the settings; "": none."""
        phase, _, label = row.bucket.partition("@")
        known = (UNDECLARED_PHASE, None if self.phase is None else self.phase.value)
        return "" if phase in known else phase, label if self.rating.precision is None else ""


@dataclass(frozen=True)
class RatedTallies:
    """Tallies that are reported together: those of one device or of a run, in the order of the daemon starts."""

    rated: tuple[RatedTally, ...]

    @property
    def tallies(self) -> tuple[Tally, ...]:
        return tuple([one.tally for one in self.rated])

    @property
    def operator_rows(self) -> tuple[Row, ...]:
        """The rows that follow from training processes' operator counts."""
        return ()

    @property
    def rows(self) -> list[Row]:
        return [*[row for one in self.rated for row in one.rows], *self.operator_rows]

    @lazy
    def figures(self) -> Figures:
        """The sum. Without any device no ceiling is known, since there may have been some."""
        if not self.rated:
            return Figures(0, None, None)
        return sum_figures([one.figures for one in self.rated] + [row.figures for row in self.operator_rows])

    @lazy
    def integers(self) -> Figures:
        return sum_figures([one.integers for one in self.rated]) if self.rated else Figures(0, None, None)

    @property
    def may_be_integer_flop(self) -> int:
        """The part of the measured FLOP that may be integer operations, which no counter distinguishes."""
        return sum([row.figures.measured_flop or 0 for row in self.rows if row.may_be_integer])

    # As in `Tally`, summed.
    observed_ns = lazy[int](lambda self: sum([one.tally.total_observed_ns for one in self.rated]))
    gap_ns = lazy[int](lambda self: sum([one.tally.total_gap_ns for one in self.rated]))
    recovered_ns = lazy[int](lambda self: sum([one.tally.total_recovered_ns for one in self.rated]))
    span_ns = lazy[int](lambda self: sum([one.tally.span_ns for one in self.rated]))
    job_ns = lazy[int](lambda self: sum([one.tally.job_ns for one in self.rated]))
    unknown_ns = lazy[int](lambda self: sum([one.tally.unknown_ns for one in self.rated]))

    @property
    def coverage_ppm(self) -> int | None:
        """The known share of the job's device time, rounded down; None where there is no such time."""
        return coverage_of(self.job_ns, self.unknown_ns)

    @property
    def observed_ns_by_evidence(self) -> dict[Evidence, int]:
        return added(*[one.tally.observed_ns for one in self.rated])

    @property
    def gap_ns_by_reason(self) -> dict[GapReason, int]:
        return added(*[one.tally.gap_ns for one in self.rated])

    @property
    def energy_mj(self) -> int | None:
        """Energy in mJ; None if no energy counter was ever read."""
        return sum_of_known([one.tally.energy_mj for one in self.rated])

    @property
    def energy_unknown_ns(self) -> int:
        """Device time of the job without a reading of energy, so that a partial sum is not taken for the whole. A
        tally's energy may cover time that an earlier one left open; only the sum cannot be negative."""
        return max(0, self.job_ns - sum([one.tally.energy_ns for one in self.rated]))


def rated_of_run(history: History, table: PeakTable) -> tuple[RatedTally, ...]:
    """Every tally of a run up to the end of a journal, as if the run were not rotated."""
    rated = rated_tallies(history, table)
    if not history.is_segment:
        return rated
    earlier = () if history.continues is None else history.continues.counted
    here = (replace(one, start=one.start + history.starts_before) for one in rated)
    return tuple(
        RatedTally(one.start, one.entry, one.tally, rating_of(one.entry, table), one.phase)
        for one in sum_counts((*earlier, *map(_counted, here)))
    )


def counted_in(rated: Iterable[RatedTally]) -> tuple[RatedCount, ...]:
    """The tallies that the next segment repeats."""
    return sum_counts(map(_counted, rated))


def _counted(rated: RatedTally) -> RatedCount:
    return RatedCount(rated.start, rated.entry, rated.tally, rated.phase)


def rated_tallies(history: History, table: PeakTable) -> tuple[RatedTally, ...]:
    """Every tally of a journal, rated by the peak table row that the journal names."""
    return tuple(one for start in history.incarnations for one in rated_start(start, table))


def rated_start(start: Incarnation, table: PeakTable) -> Iterator[RatedTally]:
    """The tallies of one daemon start."""
    phase = declared_from(start.begin.get("declared")).phase
    for entry in start.devices.values():
        tally = start.tallies[entry.device.uid]
        yield RatedTally(start.number, entry, tally, rating_of(entry, table), phase)


def coverage_of(job_ns: int, unknown_ns: int) -> int | None:
    """The known share of the job's device time in ppm, rounded down; None where there is no such time."""
    return (job_ns - unknown_ns) * PPM // job_ns if job_ns else None


def rating_of(entry: DeviceEntry, table: PeakTable) -> Rating:
    """The rating of a device by the peak table row that its entry names."""
    part = table.parts.get(entry.part_id or "")
    limits = table.limits(entry.device, part) if part is not None else None
    return Rating(part, limits, entry.precision, table)
