"""One run, rated: every tally with its FLOP, and all that follows from them. Immutable and pure.

The running daemon builds a view from its snapshot, everything else from a journal's `History`. Metrics, status, page,
report and ledger read nothing else, so each rule stands here once. A tally is turned into rows on first use, once:
that of an earlier daemon start never again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from flopsd.core.declarations import Phase, declared_from
from flopsd.core.figures import Rating, Row, added_up, by_phase, rows, sum_figures, total_of
from flopsd.core.lazy import lazy
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.journal_codec import DeviceEntry
from flopsd.core.ledger.segments import Counted, added_work
from flopsd.core.ledger.segments import added_up as added_up_counted
from flopsd.core.model import NO_FIGURES, PPM, UNDECLARED_PHASE, Device, DeviceUid, Evidence, Figures, GapReason, Tally
from flopsd.core.operator_count import NO_COUNTS, DeviceCount, OperatorCounts, ReadFigures, counts_of, exceeds, rows_of
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import NO_DECLARATIONS, Bases, Declarations, Phased, declarations_of, run_bases
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.finding import Finding
from flopsd.core.policy.policy_file import Policy
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.unused_count import Unused, UnusedCount
from flopsd.core.values import added


@dataclass(frozen=True)
class RatedTally:
    """One device's tally in one daemon start, and what turns it into FLOP."""

    start: int  # number of the daemon start
    entry: DeviceEntry
    tally: Tally
    rating: Rating
    table: PeakTable
    phase: Phase | None = None  # what the settings of this daemon start say that the job does

    @property
    def uid(self) -> DeviceUid:
        return self.entry.device.uid

    @lazy
    def rows(self) -> tuple[Row, ...]:
        """Disjoint; their sum is the tally's total."""
        return tuple(rows(self.tally, self.rating, self.table))

    @lazy
    def figures(self) -> Figures:
        return total_of(self.rows, self.tally)

    @lazy
    def integers(self) -> Figures:
        """Integer operations, which are no FLOP."""
        return total_of(self.rows, self.tally, integers=True)

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
        """The figures by phase where no process declares one. They claim nothing."""
        recorded = {UNDECLARED_PHASE: whole} if self.rows or whole.measured_flop is not None else {}
        return self._phased(recorded, whole)

    def _phased(self, recorded: Mapping[str, Figures], whole: Figures) -> Phased:
        name = UNDECLARED_PHASE if self.phase is None else self.phase.value
        settings: Mapping[str, Figures] = {name: whole} if recorded else {}  # a tally without time is of no phase
        settings = recorded if recorded == settings else settings
        measured = recorded if self.phase is None else settings
        return Phased(recorded, settings, measured, measured)

    @lazy
    def read(self) -> ReadFigures:
        return ReadFigures.of(self.figures, self.by_phase.recorded, self.rows)

    def _claim_of(self, row: Row) -> tuple[str, str]:
        """The phase and the format of a share that a process claims and the settings do not say; "": none."""
        phase, _, label = row.bucket.partition("@")
        known = (UNDECLARED_PHASE, None if self.phase is None else self.phase.value)
        return "" if phase in known else phase, label if self.rating.precision is None else ""


@dataclass(frozen=True)
class RatedTallies:
    """Tallies that are reported together: those of one device or of a run, in the order of the daemon starts."""

    rated: tuple[RatedTally, ...]

    @property
    def tallies(self) -> tuple[Tally, ...]:
        return tuple(one.tally for one in self.rated)

    @property
    def operator_rows(self) -> tuple[Row, ...]:
        """The rows that follow from what training processes count of operators."""
        return ()

    @property
    def rows(self) -> Iterable[Row]:
        return chain((row for one in self.rated for row in one.rows), self.operator_rows)

    @lazy
    def figures(self) -> Figures:
        """Without any device no ceiling is known: there may have been some."""
        if not self.rated:
            return Figures(0, None, None)
        return sum_figures([*(one.figures for one in self.rated), *(row.figures for row in self.operator_rows)])

    @lazy
    def integers(self) -> Figures:
        return sum_figures(one.integers for one in self.rated) if self.rated else Figures(0, None, None)

    @property
    def may_be_integer_flop(self) -> int:
        """How much of the measured FLOP may be integer operations, since no counter tells them apart."""
        return sum(row.figures.measured_flop or 0 for row in self.rows if row.may_be_integer)

    @property
    def observed_ns(self) -> int:
        return sum([one.tally.total_observed_ns for one in self.rated])

    @property
    def gap_ns(self) -> int:
        return sum([one.tally.total_gap_ns for one in self.rated])

    @property
    def recovered_ns(self) -> int:
        return sum([one.tally.total_recovered_ns for one in self.rated])

    @property
    def span_ns(self) -> int:
        return sum([one.tally.span_ns for one in self.rated])

    @property
    def job_ns(self) -> int:
        return sum([one.tally.job_ns for one in self.rated])

    @property
    def unknown_ns(self) -> int:
        return sum([one.tally.unknown_ns for one in self.rated])

    @property
    def coverage_ppm(self) -> int | None:
        """The known share of the job's device time, rounded down; None where there is no such time."""
        return coverage_of(self.job_ns, self.unknown_ns)

    @property
    def observed_ns_by_evidence(self) -> dict[Evidence, int]:
        return added(*(one.tally.observed_ns for one in self.rated))

    @property
    def gap_ns_by_reason(self) -> dict[GapReason, int]:
        return added(*(one.tally.gap_ns for one in self.rated))

    @property
    def energy_mj(self) -> int | None:
        """None where no energy counter was ever read."""
        known = [one.tally.energy_mj for one in self.rated if one.tally.energy_mj is not None]
        return sum(known) if known else None

    @property
    def energy_unknown_ns(self) -> int:
        """The job's device time whose energy no counter gave, so that a partial sum is never taken for the whole.

        A tally's energy can be of time that an earlier one left open, so only the sum is not below zero.
        """
        return max(0, self.job_ns - sum([one.tally.energy_ns for one in self.rated]))


@dataclass(frozen=True)
class DeviceView(RatedTallies):
    """One device in all its daemon starts. `count`: what training processes count of it."""

    count: DeviceCount | None = field(default=None, kw_only=True)

    @lazy
    def read(self) -> ReadFigures:
        """What was read of it."""
        return sum((one.read for one in self.rated), ReadFigures())

    @lazy
    def operator_rows(self) -> tuple[Row, ...]:
        return () if self.count is None or exceeds(self.count, self.read) else rows_of(self.count, self.read)

    @property
    def unused(self) -> Iterator[UnusedCount]:
        """The counts of its sessions, where they are together more than it can have executed."""
        if self.count is not None and exceeds(self.count, self.read):
            for session in self.count.sessions:
                most = self.read.whole.high_flop
                reason = Unused.COUNT_EXCEEDS_CEILING
                yield UnusedCount(reason, session, self.device.uid, self.count.total_flop, most)

    @property
    def counted_by_phase(self) -> Phased:
        """The figures of `operator_rows` by phase. The settings' one is taken where all daemon starts have it."""
        recorded = added_up({row.phase: row.figures} for row in self.operator_rows)
        phases = {one.phase for one in self.rated}
        phase = phases.pop() if len(phases) == 1 else None
        name = UNDECLARED_PHASE if phase is None else phase.value
        settings = {name: sum_figures(recorded.values())} if recorded else {}
        claims = {(claimed, ""): figures for claimed, figures in recorded.items() if claimed != name}
        return Phased(recorded, settings, recorded if phase is None else settings, recorded, claims)

    @property
    def entry(self) -> DeviceEntry:
        """The device as the last of these daemon starts describes it."""
        return self.rated[-1].entry

    @property
    def device(self) -> Device:
        return self.entry.device


@dataclass(frozen=True)
class RunView(RatedTallies):
    """One run on one node, up to daemon start number `start`."""

    run: str
    node: str
    start: int
    declarations: Declarations = NO_DECLARATIONS
    policies: tuple[Policy, ...] = ()
    counts: OperatorCounts = NO_COUNTS  # what training processes count of operators
    counts_before: OperatorCounts = NO_COUNTS  # the same when this daemon start began
    is_whole: bool = True  # false: the job has other nodes too, or the run other segments

    @lazy
    def bases(self) -> Bases:
        """The figures by phase, and what counts of them."""
        flop, integers = [one.by_phase for one in self.rated], [one.integers_by_phase for one in self.rated]
        counted = [one.counted_by_phase for one in self.devices if one.operator_rows] if self.counts.by_device else []
        return run_bases(flop, integers, self.figures, self.declarations, counted)

    @lazy
    def operator_rows(self) -> tuple[Row, ...]:
        return tuple(row for one in self.devices for row in one.operator_rows) if self.counts.by_device else ()

    @lazy
    def unused(self) -> tuple[UnusedCount, ...]:
        """What training processes count of operators and no figure has, by session."""
        metered = {one.device.uid for one in self.devices} if self.counts.by_device else set()
        elsewhere = (
            UnusedCount(Unused.DEVICE_NOT_METERED, session, uid, count.total_flop)
            for uid, count in self.counts.by_device.items()
            if uid not in metered
            for session in count.sessions
        )
        exceeding = (one for device in self.devices for one in device.unused)
        return tuple(sorted((*self.counts.refused, *exceeding, *elsewhere), key=lambda one: one.session))

    @lazy
    def findings(self) -> tuple[Finding, ...]:
        """The run held against the thresholds of every policy, in their order."""
        counted, claimed, settings = self.bases.guidelines, self.bases.claimed, self.declarations.settings
        case = Case(
            counted.updates,
            counted.cumulative,
            settings.method,
            settings.base,
            self.is_whole,
            integers=self.bases.integers,
            claimed=None if claimed is None else claimed.counted,
            by_operators=counted.by_operators,
        )
        return tuple(finding for policy in self.policies for finding in findings(policy, case))

    @lazy
    def devices(self) -> tuple[DeviceView, ...]:
        """In the order of the drivers' index, then the UUID."""
        found: dict[DeviceUid, list[RatedTally]] = {}
        for one in self.rated:
            found.setdefault(one.uid, []).append(one)
        counts = self.counts.by_device
        views = (DeviceView(tuple(rated), count=counts.get(uid)) for uid, rated in found.items())
        return tuple(sorted(views, key=lambda view: (view.device.index, view.device.uid)))

    def before(self, start: int) -> RunView:
        """The run as it stood when daemon start number `start` began."""
        earlier = tuple(one for one in self.rated if one.start < start)
        return replace(self, rated=earlier, start=start - 1, counts=self.counts_before)


def view_of(history: History, table: PeakTable, policies: Iterable[Policy] = (), *, whole_run: bool = False) -> RunView:
    """The run that a journal records. Of an empty history the names are empty. `whole_run`: with what the journal says
    of earlier segments, which no verifier can check."""
    starts = history.incarnations
    sessions = whole_sessions(history) if whole_run else list(history.sessions.values())
    before = starts[-1].counts_before if starts else NO_COUNTS
    one_node = not starts or len(starts[0].begin["context"]["node"]["jobNodes"]) <= 1
    return RunView(
        rated_of_run(history, table) if whole_run else rated_tallies(history, table),
        history.run if starts else "",
        history.node if starts else "",
        len(starts) + (history.starts_before if whole_run else 0),
        declarations_of(history.declared, sessions) if starts else NO_DECLARATIONS,
        tuple(policies),
        counts_of(sessions) if history.has_counts else NO_COUNTS,
        before,
        one_node and (whole_run or not history.is_segment),
    )


def whole_sessions(history: History) -> list[DeclaredSession]:
    """The sessions of a journal with the work that they did in earlier segments too."""
    before = history.work_before
    return [
        replace(session, work=added_work(session.work, before[session.id])) if session.id in before else session
        for session in history.sessions.values()
    ]


def rated_of_run(history: History, table: PeakTable) -> tuple[RatedTally, ...]:
    """Every tally of a run up to the end of a journal, as it would be if the run were not rotated."""
    rated = rated_tallies(history, table)
    if not history.is_segment:
        return rated
    earlier = () if history.continues is None else history.continues.counted
    here = (replace(one, start=one.start + history.starts_before) for one in rated)
    return rated_as(added_up_counted((*earlier, *map(_counted, here))), table)


def rated_as(counted: Iterable[Counted], table: PeakTable) -> tuple[RatedTally, ...]:
    return tuple(
        RatedTally(one.start, one.entry, one.tally, rating_of(one.entry, table), table, one.phase) for one in counted
    )


def counted_in(rated: Iterable[RatedTally]) -> tuple[Counted, ...]:
    """The inverse of `rated_as`: what the next segment repeats of `rated`."""
    return added_up_counted(map(_counted, rated))


def _counted(rated: RatedTally) -> Counted:
    return Counted(rated.start, rated.entry, rated.tally, rated.phase)


def rated_tallies(history: History, table: PeakTable) -> tuple[RatedTally, ...]:
    """Every tally of a journal, rated by the row that the journal names."""
    return tuple(one for start in history.incarnations for one in rated_start(start, table))


def rated_start(start: Incarnation, table: PeakTable) -> Iterator[RatedTally]:
    """The tallies of one daemon start."""
    phase = declared_from(start.begin.get("declared")).phase
    for entry in start.devices.values():
        tally = start.tallies[entry.device.uid]
        yield RatedTally(start.number, entry, tally, rating_of(entry, table), table, phase)


def coverage_of(job_ns: int, unknown_ns: int) -> int | None:
    """The known share of the job's device time in ppm, rounded down; None where there is no such time."""
    return (job_ns - unknown_ns) * PPM // job_ns if job_ns else None


def rating_of(entry: DeviceEntry, table: PeakTable) -> Rating:
    """How a device is rated: by the row of the peak table that its entry names."""
    part = table.parts.get(entry.part_id or "")
    limits = table.limits(entry.device, part) if part is not None else None
    return Rating(part, limits, entry.precision)
