"""The one writer: hands what sources send to the device accounts, journals the totals, publishes snapshots.

Single-threaded on purpose: totals change only here and in what this module calls, in the order of arrival.
The daemon calls it from one thread; tests drive it with a clock that they step by hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flopsd.core.declarations import run_declarations
from flopsd.core.ledger.history import History
from flopsd.core.ledger.rated_tally import counted_in
from flopsd.core.ledger.run_view import whole_sessions
from flopsd.core.ledger.segments import Continued
from flopsd.core.ledger.start_notes import ROTATED
from flopsd.core.model import GapReason
from flopsd.core.notes import Note, note_of
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import declarations_of
from flopsd.core.policy.reconcile import NO_PROCESS, NO_WORK
from flopsd.core.session_protocol import Event
from flopsd.daemon.accounts.device_accounts import DeviceAccounts
from flopsd.daemon.accounts.earlier_starts import EarlierStarts, begins_with_loss
from flopsd.daemon.accounts.source_tracker import Message, SourceTracker
from flopsd.daemon.recovery.local_journal import RecoveredRun
from flopsd.daemon.sessions.segment_work import SegmentWork
from flopsd.daemon.sessions.tracker import SessionTracker
from flopsd.daemon.writing.publisher import Publisher
from flopsd.daemon.writing.records import Moment, StartRecords, checkpoint_record, end_record
from flopsd.daemon.writing.segment_journal import SegmentJournal
from flopsd.daemon.writing.write_queue import checkpoint_line
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.errors import JournalError, JournalReplacedError
from flopsd.journal.codes import CodeKey
from flopsd.journal.head import Head
from flopsd.journal.journal import Journal
from flopsd.journal.recovery import NOT_OURS, journal_lost, with_added_reason
from flopsd.journal.segments import ClosedSegment
from flopsd.settings.platform import Context
from flopsd.settings.words import ABSENT, REASONS, say, say_all
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.telemetry.snapshot import Snapshot

log = logging.getLogger("flopsd")
MOST_ABSENT_LOGGED = 16


class Writer:
    """All totals of one daemon start. Not thread-safe: one thread owns it, but any thread may read `snapshot`. Call
    `begin` before anything else."""

    snapshot: Snapshot

    def __init__(
        self, journal: Journal, table: PeakTable, settings: WriterSettings, context: Context, clock: Clock,
        emit: Callable[[str], None], report: Callable[[], None] = lambda: None,
        codes: Callable[[int], CodeKey] | None = None,
    ) -> None:  # fmt: skip
        """`emit` gets one checkpoint line each time a checkpoint is durable; `report` is called before and after each
        record. `codes` returns the key for a daemon start of a journal, by its number; None: records get no codes."""
        self._journal, self._table, self._settings = journal, table, settings
        self.segment = SegmentJournal(journal, clock, report, codes)
        self._context, self._clock, self._emit = context, clock, emit
        self._records = StartRecords(self.segment, settings, context, table.sha256)
        self._lost: tuple[int, Head] | None = None  # size and head of a lost journal that could not be replaced yet
        self._closed = False
        self._publisher = Publisher(table, settings, context, clock)
        self._logged_absent: set[tuple[Note, ...]] = {(NO_PROCESS,), (NO_WORK,)}  # not faults of a declaration

    def begin(self, run: str, found: RecoveredRun, *, job_began_ns: int | None = None) -> None:
        """Continue from what was `found`; time that the last daemon start left open becomes a gap. If that was of a
        closed segment, the next one begins now. `job_began_ns`: when the job began, if this is the first daemon start
        to meter it; its time until the first reading is a gap."""
        self._run, history = run, found.history
        if history.incarnations:
            self._publisher.job_nodes = max(self._publisher.job_nodes, len(history.place["jobNodes"]))
        self._publisher.replayed = history.replay is not None
        known = {session.id: session for session in whole_sessions(history)}
        starts = [*history.declared_before, *history.declared_by_starts, self._settings.run_declared]
        self._declared, self._records.declared = run_declarations(starts), tuple(dict.fromkeys(starts))
        for what, one in (("--recomputation", "recomputation"), ("--method", "method"), ("base models", "base")):
            if getattr(self._declared, one) is None is not getattr(self._settings.run_declared, one):
                log.warning(
                    "the daemon starts of this run have different %s: the ledger treats it as not declared; to correct "
                    "a mistake, use a new --run-id",
                    what,
                )
        begin_ns = self._begin_of(history, job_began_ns).ns
        self.sessions_since_ns = history.unstopped_since_ns(begin_ns, self._context.boot_id)
        self._sessions = SessionTracker(
            self._declared, known, self._clock.boottime_ns,
            lambda uid, ns: self._devices.ceiling_flop(uid, ns),
            SegmentWork(history.work_before, self._clock.boottime_ns), history.continues is not None,
            counts_since_ns=self.sessions_since_ns[0] if history.incarnations else None,
            was_lost=found.journal_lost or begins_with_loss(history),
        )  # fmt: skip
        self._counts_before = self._sessions.counts
        self._begin(found, job_began_ns)
        self._journal.state.mark_open(is_open=True)

    def _begin(self, found: RecoveredRun, job_began_ns: int | None = None) -> None:
        history, recovery, journal_lost, closed = found
        settings, now, starts = self._settings, self._begin_of(history, job_began_ns), history.incarnations
        self._incarnation = 1 if closed is not None else len(starts) + 1
        self._records.listed_seal = history.seals.newest if closed is None else None
        self._sources = SourceTracker(settings.sources, self._clock)
        self._computed_again_ns = 0
        self._compute_declarations()

        boot_id, offset_ns = self._context.boot_id, now.wall_ns - now.ns
        this_start = {"boot_id": boot_id, "ns": now.ns, "wall_ns": now.wall_ns}
        stops_ns = history.stops_ns(this_start)
        self._publisher.stops_by_wall_clock = history.stops_by_wall_clock(this_start)
        self._publisher.stops_ns = self._records.stops_ns = stops_ns
        self.run_key = self._records.run_key = history.run_key if starts else f"{boot_id}/{now.ns}"
        earlier = EarlierStarts(history, self._table, boot_id, now.ns, offset_ns, job_began_ns=job_began_ns)
        if unknown := earlier.unknown_time():
            log.warning("%s", say(REASONS, unknown))
            recovery = with_added_reason(recovery, unknown)
        if closed is None:
            utc = str(starts[0].begin["utc"]) if starts else now.utc
            self.segment.go_on(self._incarnation, history.continues, utc)
        else:
            records = closed.facts.records + (0 if history.continues is None else history.continues.records)
            daemon_starts = len(starts) + history.starts_before
            continues = Continued(closed.facts, records, daemon_starts, counted_in(earlier.rated))
            self.segment.begin_next(closed, continues, now.utc)
            self._sessions.rotated()
        isolation = settings.isolation if starts else replace(settings.isolation, continues=None)
        self._checkpointed_ns = now.ns
        self._records.begin(now, self._incarnation, self._run, isolation, recovery)
        self._devices = DeviceAccounts(
            self._incarnation, now.ns, self._table, settings.declared, self._sources, self._sessions, earlier,
            self.segment.append, self._clock, starts_before=self.segment.starts_before,
            journal_lost=journal_lost or earlier.has_unseen_loss, interval_ns=settings.interval_ns,
        )  # fmt: skip
        self._devices.resume(same_boot=True)
        self._settle()
        self._publish()

    def rotate(self) -> bool:
        """End the journal and go on in a new one, with no gap between them; return False if that cannot be done now.
        Every account stops where its device was last read, and the next journal goes on from there."""
        if self._closed or not self.segment.is_settled or not self.checkpoint(whole=True):
            return False
        view, records, segment = self.snapshot.view, self.snapshot.journal_records + 1, self.segment
        counted = counted_in(view.rated)
        facts = segment.close(end_record(self._now(), self._incarnation, ROTATED, None), counted)
        if facts is None:
            return False
        # The daemon is not restarted: `begin` number 1 of the new journal stands for the same daemon start.
        continues, now = Continued(facts, records, view.start - 1, counted), self._now()
        self._incarnation, self._records.listed_seal = 1, None
        segment.begin_next(ClosedSegment(facts, is_moved=False), continues, now.utc)
        self._sessions.rotated()
        self._checkpointed_ns = now.ns
        self._records.begin(now, 1, self._run, replace(self._settings.isolation, continues=None), None)
        self._devices.rotate(segment.append)
        self._settle()
        self._publish()
        return True

    def _settle(self) -> bool:
        """Return whether the file being written is the run's journal. The next segment's file becomes that once it
        holds everything that the segment begins with."""
        if not self.segment.is_settled:
            self._records.declarations(self._sessions)
        return self.segment.settle()

    @property
    def known_sessions(self) -> dict[str, int]:
        """The uid of each session of a training process of this run so far, by session id."""
        return {name: session.uid for name, session in self._sessions.known.items()}

    def awaited_processes(self, since_ns: int) -> list[int | None]:
        """See SessionTracker.awaited."""
        return self._sessions.awaited(since_ns)

    @property
    def has_open_gap(self) -> bool:
        """Whether a later reading may still show the work done in a gap of a device."""
        return self._devices.has_open_gap

    def _now(self) -> Moment:
        return Moment(self._clock.boottime_ns(), self._clock.wall_ns())

    def _begin_of(self, history: History, job_began_ns: int | None) -> Moment:
        """Return when this daemon start begins: with its job if that began earlier, but not before the last record of
        a daemon start on the same boot, since two daemon starts must not count the same time."""
        now, boot_id = self._now(), self._context.boot_id
        if job_began_ns is None:
            return now
        metered_ns = (start.last_ns for start in history.incarnations if start.boot_id == boot_id)
        begin_ns = min(now.ns, max([job_began_ns, *metered_ns]))
        return Moment(begin_ns, max(0, now.wall_ns - (now.ns - begin_ns)))

    def take(self, message: Message) -> None:
        """Fold in what a source sent and make the totals survive a kill."""
        self._sources.note_message(message)
        if message.opened is not None:
            self._records.opened(message.source, message.opened)
        if message.sweep is None:
            self._devices.count_outage(message)
        else:
            self._devices.count(message, message.sweep)
        # Later messages may already wait in the inbox: a slow disk must not turn their time into gaps.
        self._tick(message.at_ns)

    def take_event(self, event: Event) -> None:
        """Fold in a declaration of a training process."""
        self._sessions.apply(event)
        while self._sessions.models.unread:
            from flopsd.core.architecture import why_not_read

            if (fault := why_not_read(self._sessions.models.unread.pop())) is not None:
                self._log_absent((note_of(fault),), fault.hint)

    def _log_absent(self, reasons: tuple[Note, ...], hint: str = "") -> None:
        """Log once why a declared model gives no FLOP."""
        if reasons and reasons not in self._logged_absent and len(self._logged_absent) < MOST_ABSENT_LOGGED:
            self._logged_absent.add(reasons)
            words = "; ".join(filter(None, (say_all(ABSENT, reasons), hint)))
            log.warning("the FLOP of the model that a training process declares cannot be computed: %s", words)

    def tick(self) -> None:
        """Account for silence, journal, publish. Called when no message has come for a tick."""
        self._tick(self._clock.boottime_ns())

    def _tick(self, received_ns: int) -> None:
        """Like `tick`, but account for silence only up to `received_ns`."""
        now_ns = self._clock.boottime_ns()
        tolerance_ns = 2 * self._settings.interval_ns + NS_PER_S // 2
        self._devices.fill(min(received_ns, now_ns), tolerance_ns, GapReason.SOURCE_SILENT)
        self._records.declarations(self._sessions)
        if now_ns - self._checkpointed_ns >= self._settings.checkpoint_ns:
            self.checkpoint()
        elif self.segment.is_settled:
            self.segment.queue.note(self._record)
        if self.segment.queue.is_lost:
            self._begin_anew()
        self._settle()
        self._publisher.rates.note(now_ns, self.snapshot.view)
        self._publish()

    def checkpoint(self, now: Moment | None = None, *, whole: bool = False) -> bool:
        """Write the totals durably, as of `now`; return whether that succeeded. Only then is the checkpoint published
        and its line emitted. `whole`: write all counters of processes, even more than one checkpoint usually takes."""
        self._checkpointed_ns = self._clock.boottime_ns()
        self._publisher.note_wall_clock()
        self._devices.resume(same_boot=False)
        self._devices.add_expected()
        self._records.declarations(self._sessions)
        self._records.seal(self._journal.newest_seal())
        is_done = False
        while not is_done:  # counters of many processes do not fit one record
            record = self._record(now, whole=whole)
            if not self.segment.append(record) or not self._settle():
                return False
            for tracked in self._devices.tracked:
                tracked.gaps.clear()
            is_done = self._sessions.journalled(record.get("sessions", ()), whole=whole) or not whole
        self._compute_declarations()
        self._log_absent(self._declarations.absent)
        self._publish()
        self._emit(self._checkpoint_line())
        return True

    def prepare_seal(self) -> None:
        """Write the counters that the last checkpoint left out, before the journal is sealed."""
        if self._sessions.is_behind:
            self.checkpoint(whole=True)

    def _compute_declarations(self) -> None:
        """Compute what follows from declarations. It may block for seconds: wait 20 times as long before the next."""
        began_ns = self._clock.boottime_ns()
        if began_ns < self._computed_again_ns:
            return
        self._declarations = declarations_of(self._declared, list(self._sessions.known.values()))
        now_ns = self._clock.boottime_ns()
        self._computed_again_ns = now_ns + 20 * (now_ns - began_ns)

    def close(self, why: str, child_exit_code: int | None = None) -> bool:
        """Account for the time until now, write checkpoint and end; return whether both are durable."""
        if self._closed:
            return True
        now = self._now()  # every device is accounted for up to here, however long the disk takes
        self._devices.resume(same_boot=False)
        self._devices.add_expected(at_end=True)
        self._devices.fill(now.ns, None, GapReason.STOPPING)
        self._end(now, why, child_exit_code)
        if self._is_lost():
            self._begin_anew()
            self._end(self._now(), why, child_exit_code)
        self._publish()
        return self._closed

    def _end(self, now: Moment, why: str, child_exit_code: int | None) -> None:
        self._closed = self.checkpoint(now, whole=True) and self.segment.append(
            end_record(now, self._incarnation, why, child_exit_code)
        )
        if self._closed:
            self._journal.state.mark_open(is_open=False)

    def _is_lost(self) -> bool:
        """Whether another process has changed the journal irrevocably, even without changing its size."""
        try:
            self._journal.check_unchanged(whole=True)
        except JournalReplacedError:
            return True
        except (OSError, JournalError):
            pass  # it cannot be read now, and is checked again when it is sealed
        return self.segment.queue.is_lost

    def _begin_anew(self) -> None:
        """Go on in a new journal after another process replaced or altered the old one. Its content is now unknown."""
        self._lost = self._lost or (self._journal.size_bytes, self._journal.head)
        try:
            recovery = journal_lost(*self._lost, self._journal.put_aside(NOT_OURS))
        except OSError as fault:  # a full or read-only disk: tried again at the next reading
            self.segment.queue.is_lost = True
            log.error("the journal was replaced, and no new one can be started: %s; metering goes on", fault.strerror)
            return
        self._lost = None
        words = say_all(REASONS, recovery.reasons)
        log.error("%s; the run goes on in a new journal and has no upper bound", words)
        self._sessions.forget_journal()
        before = self._sources
        self._begin(RecoveredRun(History(continues=self.segment.continues), recovery, journal_lost=True))
        self._sources.continue_from(before)

    def _checkpoint_line(self) -> str:
        """Return the line for this segment alone: its figures must follow from the segment's journal."""
        own, segment = self.snapshot.view, None
        if self._settings.is_rotated or self.segment.continues is not None:
            counts = self._sessions.counts_of_journal
            own = replace(own, rated=self._devices.of_journal, start=self._incarnation, counts=counts)
            segment = self.segment.number
        return checkpoint_line(own, self._journal, segment)

    def _record(self, now: Moment | None = None, *, whole: bool = False) -> dict[str, Any]:
        return checkpoint_record(
            now or self._now(), self._incarnation, self._devices.tracked, self._sessions.new_work(whole=whole)
        )

    def _publish(self) -> None:
        self.snapshot = self._publisher.snapshot(
            self._run, self._incarnation, self._devices, self._sources, self.segment, self._declarations,
            self._sessions.counts, self._counts_before, ended=self._closed,
        )  # fmt: skip
