"""The one writer: hands what sources send to the device accounts, journals the totals, publishes snapshots.

Single-threaded on purpose: everything that changes a total happens below this module, in the order of arrival.
The daemon calls it from one thread; tests drive it with a clock that they step by hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flopsd import __version__
from flopsd.core.architecture import why_not_read
from flopsd.core.ledger.history import FORMAT, History
from flopsd.core.ledger.journal_codec import precision_record, tally_record
from flopsd.core.ledger.run_view import RunView
from flopsd.core.model import GapReason
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import NO_PROCESS, NO_WORK, declarations_of
from flopsd.core.session_protocol import Event, FactsDeclared
from flopsd.daemon.device_accounts import DeviceAccounts
from flopsd.daemon.earlier_starts import EarlierStarts
from flopsd.daemon.session_tracker import SessionTracker
from flopsd.daemon.source_tracker import Message, SourceTracker
from flopsd.daemon.write_queue import WriteQueue, checkpoint_line
from flopsd.daemon.writer_settings import WriterSettings
from flopsd.errors import JournalReplacedError
from flopsd.journal.codes import CodeKey
from flopsd.journal.head import Head
from flopsd.journal.journal import Journal
from flopsd.journal.recovery import NOT_OURS, Recovery, also, journal_lost
from flopsd.settings.platform import Context
from flopsd.system.clock import NS_PER_S, Clock, rfc3339
from flopsd.telemetry.rate_history import RateHistory
from flopsd.telemetry.snapshot import Snapshot

log = logging.getLogger("flopsd")
STEP_TOLERANCE_NS = NS_PER_S
MOST_ABSENT_LOGGED = 16


class Writer:
    """All totals of one daemon start. Not thread-safe: one thread owns it; `snapshot` may be read by any.

    `begin` comes first; nothing else works before it.
    """

    snapshot: Snapshot

    def __init__(
        self,
        journal: Journal,
        table: PeakTable,
        settings: WriterSettings,
        context: Context,
        clock: Clock,
        emit: Callable[[str], None],
        written: Callable[[], None] = lambda: None,
        codes: Callable[[int], CodeKey] | None = None,
    ) -> None:
        """`emit` gets one checkpoint line each time a checkpoint is durable; `written` is called after each record.
        `codes` gives the key of a daemon start in a journal; None: its records get no codes."""
        self._journal, self._table, self._settings = journal, table, settings
        self._written, self._codes = written, codes
        self._context, self._clock, self._emit = context, clock, emit
        self._opened: dict[str, Mapping[str, Any]] = {}  # the facts of sources that were opened
        self._lost: tuple[int, Head] | None = None  # size and head of a journal in whose place none could be begun yet
        self._closed = False
        self._rates = RateHistory(settings.checkpoint_ns)
        self._logged_absent = {NO_PROCESS, NO_WORK}  # which are no faults of a declaration

    def begin(self, run: str, history: History, recovery: Recovery | None, *, journal_lost: bool = False) -> None:
        """Start behind `history`; what the last daemon start left open becomes a gap.

        `journal_lost`: there was a journal of this run before, which another process replaced.
        """
        self._run = run
        self._sessions = SessionTracker(self._settings.run_declared, history.sessions, self._clock.boottime_ns)
        self._begin(history, recovery, journal_lost)

    def _begin(self, history: History, recovery: Recovery | None, journal_lost: bool) -> None:
        clock, settings = self._clock, self._settings
        self._incarnation = len(history.incarnations) + 1
        key = None if self._codes is None else self._codes(self._incarnation)
        self._journal.authenticate(key)
        self._listed_seal = history.seals.newest
        self._queue = WriteQueue(self._journal, clock, self._written)
        self._sources = SourceTracker(settings.sources, clock)
        self._declarations = declarations_of(settings.run_declared, list(self._sessions.known.values()))
        begin_ns = self._checkpointed_ns = clock.boottime_ns()
        wall_ns = clock.wall_ns()
        self._offset_ns = wall_ns - begin_ns
        earlier = EarlierStarts(history, self._table, self._context.boot_id, begin_ns, self._offset_ns)
        if unknown := earlier.unknown_time():
            log.warning("%s", unknown)
            recovery = also(recovery, unknown)
        isolation = settings.isolation if history.incarnations else replace(settings.isolation, continues=None)
        self._queue.append(
            {
                "kind": "begin",
                "format": FORMAT,
                "incarnation": self._incarnation,
                "run": self._run,
                "node": self._context.node,
                "boot_id": self._context.boot_id,
                "ns": begin_ns,
                "wall_ns": wall_ns,
                "utc": rfc3339(wall_ns),
                "flopsd_version": __version__,
                "peak_table_sha256": self._table.sha256,
                "config_sha256": settings.config_sha256,
                "interval_ns": settings.interval_ns,
                "checkpoint_ns": settings.checkpoint_ns,
                "context": self._context.for_journal(),
                "precision": precision_record(settings.precision),
                "recovered": None if recovery is None else recovery.for_journal(),
                "isolation": isolation.for_journal(),
                "declared": settings.run_declared.for_journal(),
                "policies": [{"id": policy.id, "sha256": policy.sha256} for policy in settings.policies],
                "code_secret_sha256": None if key is None else key.secret_sha256,
            }
        )
        for name, facts in self._opened.items():
            self._note_opened(name, facts)
        self._devices = DeviceAccounts(
            self._incarnation,
            begin_ns,
            self._table,
            settings.declared,
            self._sources,
            self._sessions,
            earlier,
            self._queue.append,
            clock,
            journal_lost=journal_lost,
        )
        self._devices.resume(same_boot=True)
        self._publish()

    def take(self, message: Message) -> None:
        """Fold in what a source sent and make the totals survive a kill."""
        self._sources.received(message)
        if message.opened is not None:
            self._note_opened(message.source, message.opened)
        if message.sweep is None:
            self._devices.count_outage(message)
        else:
            self._devices.count(message, message.sweep)
        # Later messages may have waited since this one was sent: a slow disk must not turn their time into gaps.
        self._tick(message.at_ns)

    def _note_opened(self, name: str, facts: Mapping[str, Any]) -> None:
        self._opened[name] = facts
        self._queue.append({"kind": "source", "name": name, "facts": dict(facts), "incarnation": self._incarnation})

    def take_event(self, event: Event) -> None:
        """Fold in what a training process declared."""
        self._sessions.apply(event)
        if isinstance(event, FactsDeclared) and "model_config" in event.facts:
            self._log_absent(why_not_read(event.facts["model_config"]))

    def _log_absent(self, reason: str) -> None:
        """Log once why what was declared of a model gives no FLOP."""
        if reason and reason not in self._logged_absent and len(self._logged_absent) < MOST_ABSENT_LOGGED:
            self._logged_absent.add(reason)
            log.warning("no FLOP by the model that a training process declares: %s", reason)

    def tick(self) -> None:
        """Account for silence, journal, publish. Called once an interval in which no message came."""
        self._tick(self._clock.boottime_ns())

    def _tick(self, received_ns: int) -> None:
        """As `tick`, with silence up to `received_ns`."""
        now_ns = self._clock.boottime_ns()
        tolerance_ns = 2 * self._settings.interval_ns + NS_PER_S // 2
        self._devices.fill(min(received_ns, now_ns), tolerance_ns, GapReason.SOURCE_SILENT)
        self._declare()
        if now_ns - self._checkpointed_ns >= self._settings.checkpoint_ns:
            self.checkpoint()
        else:
            self._queue.note(self._record)
        if self._queue.is_lost:
            self._begin_anew()
        self._rates.note(now_ns, self.snapshot.view)
        self._publish()

    def checkpoint(self) -> bool:
        """Write the totals durably; true if they are. Only then is the checkpoint published and its line emitted."""
        self._checkpointed_ns = self._clock.boottime_ns()
        self._check_wall_clock()
        self._devices.resume(same_boot=False)
        self._declare()
        self._list_seal()
        if not self._queue.append(self._record()):
            return False
        for tracked in self._devices.tracked:
            tracked.gaps.clear()
        self._sessions.journalled()
        self._declarations = declarations_of(self._settings.run_declared, list(self._sessions.known.values()))
        self._log_absent(self._declarations.absent)
        self._publish()
        self._emit(checkpoint_line(self.snapshot, self._journal))
        return True

    def close(self, why: str, child_exit_code: int | None = None) -> bool:
        """Account for the time until now, write checkpoint and end; true if both are durable."""
        if self._closed:
            return True
        self._devices.fill(self._clock.boottime_ns(), None, GapReason.STOPPING)
        self._end(why, child_exit_code)
        if self._is_lost():
            self._begin_anew()
            self._end(why, child_exit_code)
        self._publish()
        return self._closed

    def _end(self, why: str, child_exit_code: int | None) -> None:
        durable = self.checkpoint()
        now_ns, wall_ns = self._clock.boottime_ns(), self._clock.wall_ns()
        end = {
            "kind": "end",
            "incarnation": self._incarnation,
            "ns": now_ns,
            "utc": rfc3339(wall_ns),
            "reason": why,
            "child_exit_code": child_exit_code,
        }
        self._closed = durable and self._queue.append(end)

    def _is_lost(self) -> bool:
        """Whether another process changed the journal for good, be it without a change of its size."""
        try:
            self._journal.check_unchanged(whole=True)
        except JournalReplacedError:
            return True
        except OSError:
            pass  # it cannot be read now, and is checked again when it is sealed
        return self._queue.is_lost

    def _begin_anew(self) -> None:
        """Go on with another journal, in place of one that another process replaced or altered: what was in it is not
        known any more."""
        self._lost = self._lost or (self._journal.size_bytes, self._journal.head)
        try:
            recovery = journal_lost(*self._lost, self._journal.put_aside(NOT_OURS))
        except OSError as fault:  # a full or read-only disk: tried again at the next reading
            self._queue.is_lost = True
            log.error("the journal was replaced, and no other can be begun: %s; metering goes on", fault.strerror)
            return
        self._lost = None
        log.error("%s; the run goes on in a new journal, without an upper bound", recovery.reason)
        self._sessions.forget_journal()
        self._begin(History(), recovery, journal_lost=True)

    def _check_wall_clock(self) -> None:
        offset_ns = self._clock.wall_ns() - self._clock.boottime_ns()
        if abs(offset_ns - self._offset_ns) > STEP_TOLERANCE_NS:
            log.warning(
                "the wall clock stepped by %.1f s; durations are not affected, they come from another clock",
                (offset_ns - self._offset_ns) / NS_PER_S,
            )
        self._offset_ns = offset_ns

    def _list_seal(self) -> None:
        """Journal the newest seal, so that every later one names it."""
        seal = self._journal.newest_seal()
        if seal is not None and seal != self._listed_seal:
            self._listed_seal = seal
            self._queue.append(seal.for_journal(self._incarnation))

    def _declare(self) -> None:
        """Journal what processes declared, in records of their own: no declaration keeps a checkpoint out."""
        for sessions in self._sessions.new_declarations():
            self._queue.append({"kind": "declaration", "incarnation": self._incarnation, "sessions": sessions})

    def _record(self) -> dict[str, Any]:
        sessions, tracked = self._sessions.new_work(), self._devices.tracked
        return {
            "kind": "checkpoint",
            "incarnation": self._incarnation,
            "ns": self._clock.boottime_ns(),
            "utc": rfc3339(self._clock.wall_ns()),
            "devices": [tally_record(one.number, one.tally) for one in tracked],
            "gaps": [
                [one.number, begin_ns, end_ns, reason.value] for one in tracked for begin_ns, end_ns, reason in one.gaps
            ],
            **({"sessions": sessions} if sessions else {}),
        }

    def _publish(self) -> None:
        devices = tuple(tracked.state for tracked in self._devices.tracked)
        view = RunView(
            (*self._devices.only_earlier, *(one for device in devices for one in device.rated)),
            self._run,
            self._context.node,
            self._incarnation,
            self._declarations,
            tuple(self._settings.policies),
            len(self._context.job_nodes) <= 1,
        )
        self.snapshot = Snapshot(
            view=view,
            platform=self._context.platform,
            table=self._table,
            devices=devices,
            sources=dict(self._sources.states),
            journal_records=self._journal.records,
            journal_last_append_wall_ns=self._queue.last_append_wall_ns,
            journal_fault=self._queue.fault,
            wall_offset_ns=self._offset_ns,
            rates=self._rates.points,
            ended=self._closed,
        )
