"""Makes the immutable snapshot that the writer publishes after each reading; any thread may read it."""

from __future__ import annotations

import logging
from dataclasses import replace

from flopsd.core.ledger.run_view import RunView
from flopsd.core.operator_count import OperatorCounts
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import Declarations
from flopsd.daemon.accounts.device_accounts import DeviceAccounts
from flopsd.daemon.accounts.source_tracker import SourceTracker
from flopsd.daemon.writing.segment_journal import SegmentJournal
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.settings.platform import Context
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.telemetry.rate_history import RateHistory
from flopsd.telemetry.snapshot import Snapshot

log = logging.getLogger("flopsd")


class Publisher:
    """Makes snapshots, and keeps for them the history of the rate and the offset of the wall clock from boot time."""

    def __init__(self, table: PeakTable, settings: WriterSettings, context: Context, clock: Clock) -> None:
        self._table, self._policies, self._context = table, tuple(settings.policies), context
        self._clock, self._wall_offset_ns = clock, clock.wall_ns() - clock.boottime_ns()
        self.rates = RateHistory(settings.checkpoint_ns)
        self.job_nodes = len(context.job_nodes)  # the highest number that a daemon start of this run lists
        self.replayed = False  # whether an earlier daemon start of this run read a recording
        self.stops_ns: tuple[int, ...] = ()  # see History.stops_ns
        self.stops_by_wall_clock: bool | None = False  # see History.stops_by_wall_clock

    def note_wall_clock(self) -> None:
        """Take over the offset of the wall clock, and log a step of more than a second."""
        before_ns, self._wall_offset_ns = self._wall_offset_ns, self._clock.wall_ns() - self._clock.boottime_ns()
        if abs(self._wall_offset_ns - before_ns) > NS_PER_S:
            log.warning(
                "the wall clock stepped by %.1f s; durations are not affected, they come from another clock",
                (self._wall_offset_ns - before_ns) / NS_PER_S,
            )

    def snapshot(
        self, run: str, incarnation: int, devices: DeviceAccounts, sources: SourceTracker, segment: SegmentJournal,
        declarations: Declarations, counts: OperatorCounts, counts_before: OperatorCounts, *, ended: bool,
    ) -> Snapshot:  # fmt: skip
        states = tuple(tracked.state for tracked in devices.tracked)
        if by_device := counts.by_device:
            states = tuple(replace(state, count=by_device.get(state.device.uid)) for state in states)
        view = RunView(
            (*devices.only_earlier, *(one for state in states for one in state.rated)),
            run,
            self._context.node,
            segment.starts_before + incarnation,
            declarations,
            self._policies,
            counts,
            counts_before,
            self.job_nodes <= 1,
            self._context.rank,
            self.job_nodes,
        )
        return Snapshot(
            view=view,
            platform=self._context.platform,
            table=self._table,
            devices=states,
            sources=dict(sources.states),
            journal_records=segment.journal.records + segment.records_before,
            journal_last_append_ns=segment.queue.last_append_ns,
            journal_fault=segment.queue.fault,
            journal_put_back=segment.journal.put_back,
            wall_offset_ns=self._wall_offset_ns,
            rates=self.rates.points,
            ended=ended,
            replayed=self.replayed,
            stops_ns=self.stops_ns,
            stops_by_wall_clock=self.stops_by_wall_clock,
        )
