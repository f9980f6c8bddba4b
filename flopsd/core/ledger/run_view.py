"""One run, rated: every tally with its FLOP, and everything derived from them. Immutable and pure.

The running daemon builds a view from its snapshot, everything else builds it from a journal's `History`. Metrics,
status, page, report and ledger read only the view, so each rule exists once. A tally is converted into rows on first
use, and only once: those of earlier daemon starts are never converted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field, replace

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import run_declarations
from flopsd.core.figures import sum_figures
from flopsd.core.lazy import lazy
from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.ledger.history import History
from flopsd.core.ledger.rated_tally import RatedTallies, RatedTally, rated_of_run, rated_tallies
from flopsd.core.ledger.segments import added_work
from flopsd.core.model import UNDECLARED_PHASE, Device, DeviceUid
from flopsd.core.operator_count import (
    NO_COUNTS,
    DeviceCount,
    OperatorCounts,
    ReadFigures,
    as_claimed,
    counts_of,
    exceeds,
    rows_of,
)
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import NO_DECLARATIONS, Bases, Declarations, Phased, declarations_of, run_bases
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.finding import Finding
from flopsd.core.policy.policy_file import Policy
from flopsd.core.rows import Row
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.unused_count import Unused, UnusedCount


@dataclass(frozen=True)
class DeviceView(RatedTallies):
    """One device over all its daemon starts. `count` is the operator count of its training processes."""

    count: DeviceCount | None = field(default=None, kw_only=True)

    @lazy
    def read(self) -> ReadFigures:
        """The figures of all its readings."""
        return sum((one.read for one in self.rated), ReadFigures())

    @lazy
    def operator_rows(self) -> tuple[Row, ...]:
        return () if self.count is None or exceeds(self.count, self.read) else rows_of(self.count, self.read)

    @property
    def unused(self) -> Iterator[UnusedCount]:
        """The counts of its sessions, if together they are more than the device can have executed."""
        if self.count is not None and exceeds(self.count, self.read):
            for session in self.count.sessions:
                most = self.read.whole.high_flop
                reason = Unused.COUNT_EXCEEDS_CEILING
                yield UnusedCount(reason, session, self.device.uid, self.count.total_flop, most)

    @property
    def counted_by_phase(self) -> Phased:
        """The figures of `operator_rows` by phase. The settings' phase is used if all daemon starts share it."""
        assert self.count is not None
        recorded = {row.phase: row.figures for row in self.operator_rows}
        by_claims = as_claimed(self.count, sum((one.read_as_claimed for one in self.rated), ReadFigures()))
        claimed = {phase: by_claims[phase] for phase in recorded}
        phases = {one.phase for one in self.rated}
        phase = phases.pop() if len(phases) == 1 else None
        name = UNDECLARED_PHASE if phase is None else phase.value
        settings = {name: sum_figures(recorded.values())} if recorded else {}
        claims = {(bucket, ""): figures for bucket, figures in recorded.items() if bucket != name}
        return Phased(recorded, settings, recorded if phase is None else settings, claimed, claims)

    @property
    def now(self) -> RatedTally:
        """The tally of the last of these daemon starts."""
        return self.rated[-1]

    @property
    def entry(self) -> DeviceEntry:
        """The device as the last of these daemon starts describes it."""
        return self.rated[-1].entry

    @property
    def device(self) -> Device:
        return self.rated[-1].entry.device


@dataclass(frozen=True)
class RunView(RatedTallies):
    """One run on one node, up to daemon start number `start`."""

    run: str
    node: str
    start: int
    declarations: Declarations = NO_DECLARATIONS
    policies: tuple[Policy, ...] = ()
    counts: OperatorCounts = NO_COUNTS  # operator counts of training processes
    counts_before: OperatorCounts = NO_COUNTS  # the same when this daemon start began
    is_whole: bool = True  # false: the job has other nodes too, or the run other segments
    rank: int | None = None  # of the node in its job; None: not known, or the job has one node
    job_nodes: int = 0  # number of listed nodes; 0: not listed

    @lazy
    def bases(self) -> Bases:
        """The figures by phase, and the bases derived from them."""
        flop, integers = [one.by_phase for one in self.rated], [one.integers_by_phase for one in self.rated]
        counted = [one.counted_by_phase for one in self.devices if one.operator_rows] if self.counts.by_device else []
        return run_bases(flop, integers, self.figures, self.declarations, counted)

    @lazy
    def operator_rows(self) -> tuple[Row, ...]:
        return tuple(row for one in self.devices for row in one.operator_rows) if self.counts.by_device else ()

    @lazy
    def unused(self) -> tuple[UnusedCount, ...]:
        """The operator counts of training processes that no figure includes."""
        if not self.counts.by_device:
            return self.counts.refused
        metered = {one.device.uid for one in self.devices}
        elsewhere = (
            UnusedCount(Unused.DEVICE_NOT_METERED, session, uid, count.total_flop)
            for uid, count in self.counts.by_device.items()
            if uid not in metered
            for session in count.sessions
        )
        exceeding = (one for device in self.devices for one in device.unused)
        return (*self.counts.refused, *exceeding, *elsewhere)

    @lazy
    def findings(self) -> tuple[Finding, ...]:
        """The run compared with the thresholds of every policy, in their order."""
        bases, settings = self.bases, self.declarations.settings
        case = Case(
            bases.guidelines,
            settings.method,
            settings.base,
            self.is_whole,
            integers=bases.integers,
            claimed=None if bases.claimed is None else bases.claimed.counted,
        )
        return tuple(finding for policy in self.policies for finding in findings(policy, case))

    @lazy
    def devices(self) -> tuple[DeviceView, ...]:
        """The devices, sorted by the driver's index, then by UUID."""
        found: dict[DeviceUid, list[RatedTally]] = {}
        for one in self.rated:
            found.setdefault(one.entry.device.uid, []).append(one)
        counts = self.counts.by_device
        placed = sorted([(rated[-1].entry.device.index, uid) for uid, rated in found.items()])
        return tuple([DeviceView(tuple(found[uid]), count=counts.get(uid)) for _, uid in placed])

    def before(self, start: int) -> RunView:
        """The run as it stood when daemon start number `start` began."""
        earlier = tuple(one for one in self.rated if one.start < start)
        return replace(self, rated=earlier, start=start - 1, counts=self.counts_before)


def view_of(history: History, table: PeakTable, policies: Iterable[Policy] = (), *, whole_run: bool = False) -> RunView:
    """The run that a journal records; an empty history has empty names. `whole_run` includes what the journal repeats
    of earlier segments, which no verifier can check."""
    starts = history.incarnations
    sessions = whole_sessions(history) if whole_run else list(history.sessions.values())
    declared = history.declared_before if whole_run else []
    before = starts[-1].counts_before if starts else NO_COUNTS
    if whole_run and history.has_counts:
        earlier = (replace(one, work=history.work_before.get(one.id, {})) for one in history.sessions.values())
        before += counts_of(earlier)
    node = history.place if starts else {"rank": None, "jobNodes": []}
    job_nodes = len(node["jobNodes"])
    return RunView(
        rated_of_run(history, table) if whole_run else rated_tallies(history, table),
        history.run if starts else "",
        history.node if starts else "",
        len(starts) + (history.starts_before if whole_run else 0),
        declarations_of(run_declarations([*declared, *history.declared_by_starts]), sessions)
        if starts
        else NO_DECLARATIONS,
        tuple(policies),
        counts_of(sessions) if history.has_counts else NO_COUNTS,
        before,
        job_nodes <= 1 and (whole_run or not history.is_segment),
        node["rank"],
        job_nodes,
    )


def whole_sessions(history: History) -> list[DeclaredSession]:
    """The sessions of a journal, including their work in earlier segments."""
    before = history.work_before
    return [
        replace(session, work=added_work(session.work, before[session.id])) if session.id in before else session
        for session in history.sessions.values()
    ]
