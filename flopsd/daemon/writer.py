"""The one writer: folds what sources send into tallies, journals them, publishes snapshots.

Single-threaded on purpose: everything that changes a total happens here, in the order of arrival.
The daemon calls it from one thread; tests drive it with a clock that they step by hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flopsd import __version__
from flopsd.core.declarations import NOTHING_DECLARED, OperatorDeclarations
from flopsd.core.ledger.history import FORMAT, History
from flopsd.core.ledger.journal_codec import (
    DeviceEntry,
    device_record,
    evidence_record,
    precision_record,
    tally_record,
)
from flopsd.core.model import Device, DeviceUid, GapReason, Precision, Reading, Sweep, Tally
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import NO_DECLARATIONS, told
from flopsd.core.policy.evaluate import Policy
from flopsd.core.session_protocol import Event
from flopsd.daemon.device_tracker import TrackedDevice, rate
from flopsd.daemon.earlier_runs import Counted, EarlierStarts
from flopsd.daemon.handover import MigChange, hand_over
from flopsd.daemon.session_tracker import Sessions
from flopsd.daemon.source_tracker import Message, SourceTracker
from flopsd.daemon.write_queue import WriteQueue, checkpoint_line
from flopsd.journal.journal import Journal, Recovery, also
from flopsd.settings.platform import Context
from flopsd.system.clock import NS_PER_S, Clock, rfc3339
from flopsd.telemetry.snapshot import DeviceState, Snapshot

log = logging.getLogger("flopsd")
STEP_TOLERANCE_NS = NS_PER_S


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """What the writer needs of the settings."""

    interval_ns: int
    checkpoint_ns: int
    config_sha256: str
    precision: Precision | None  # declared for the run
    sources: Sequence[str]
    device_precision: Mapping[str, Precision] = field(default_factory=dict)  # by UUID or index
    run_declared: OperatorDeclarations = NOTHING_DECLARED
    policies: Sequence[Policy] = ()

    def declared(self, device: Device) -> Precision | None:
        """The number format declared for a device: its own, else the run's."""
        by_index = self.device_precision.get(str(device.index), self.precision)
        return self.device_precision.get(device.uid, by_index)


class Writer:
    """All totals of one incarnation. Not thread-safe: one thread owns it; `snapshot` may be read by any."""

    def __init__(
        self,
        journal: Journal,
        table: PeakTable,
        settings: WriterSettings,
        context: Context,
        clock: Clock,
        emit: Callable[[str], None],
    ) -> None:
        """`emit` gets one checkpoint line each time a checkpoint is durable."""
        self._journal, self._table, self._settings = journal, table, settings
        self._outbox = WriteQueue(journal, clock)
        self._context, self._clock, self._emit = context, clock, emit
        self._watched: dict[DeviceUid, TrackedDevice] = {}
        self._parted: set[DeviceUid] = set()  # of a machine that is gone: watched until this incarnation began
        self._hearing = SourceTracker(settings.sources, clock)
        self._past = EarlierStarts(History(), table, context.boot_id, 0, 0)
        self._sessions = Sessions(settings.run_declared, {}, clock.boottime_ns)
        self._gone: Counted = ()
        self._incarnation, self._begin_ns, self._run = 0, 0, ""
        self._offset_ns = 0
        self._checkpointed_ns = 0
        self._closed = False
        self._told = NO_DECLARATIONS
        self.snapshot: Snapshot

    def begin(self, run: str, history: History, recovery: Recovery | None) -> None:
        """Start an incarnation behind `history`; what the last one left open becomes a gap."""
        clock = self._clock
        self._run, self._incarnation = run, len(history.incarnations) + 1
        self._sessions = Sessions(self._settings.run_declared, history.sessions, clock.boottime_ns)
        self._told = told(self._settings.run_declared, list(history.sessions.values()))
        self._begin_ns = self._checkpointed_ns = clock.boottime_ns()
        wall_ns = clock.wall_ns()
        self._offset_ns = wall_ns - self._begin_ns
        self._past = EarlierStarts(history, self._table, self._context.boot_id, self._begin_ns, self._offset_ns)
        if not_known := self._past.not_known():
            log.warning("%s", not_known)
            recovery = also(recovery, not_known)
        self._outbox.append(
            {
                "kind": "begin",
                "format": FORMAT,
                "incarnation": self._incarnation,
                "run": run,
                "node": self._context.node,
                "boot_id": self._context.boot_id,
                "ns": self._begin_ns,
                "wall_ns": wall_ns,
                "utc": rfc3339(wall_ns),
                "flopsd": __version__,
                "peaks_sha256": self._table.sha256,
                "config_sha256": self._settings.config_sha256,
                "interval_ns": self._settings.interval_ns,
                "context": self._context.for_journal(),
                "precision": precision_record(self._settings.precision),
                "recovered": None if recovery is None else recovery.for_journal(),
                "declared": self._settings.run_declared.for_journal(),
                "policies": [{"id": policy.id, "sha256": policy.sha256} for policy in self._settings.policies],
            }
        )
        self._gone = self._past.without(self._watched)
        self._go_on(same_boot=True)
        self._publish()

    def take(self, message: Message) -> None:
        """Fold one message in and make its totals survive a kill."""
        name, hearing = message.source, self._hearing
        hearing.heard(message)
        if message.opened is not None:
            self._outbox.append(
                {"kind": "source", "incarnation": self._incarnation, "name": name, "facts": dict(message.opened)}
            )
        if message.sweep is None:
            reassign = hearing.failed(message)
            for watched in self._of_source(name):
                watched.count_gap(
                    message.at_ns, hearing.elsewhere(watched.entry) or message.reason, self._sessions.in_force
                )
            if reassign:
                self._reassign()
        else:
            changes = hearing.changes(message, message.sweep)
            if hearing.roster.offer(name, message.devices):
                self._take_up(message, message.sweep, changes)
                self._reassign()
            hearing.swept(message, message.sweep, self._count(name, message.sweep))
        self._tick(message.at_ns)  # those behind it may wait since then: a slow disk must not make gaps of them

    def hear(self, event: Event) -> None:
        """Take in what a training process declares."""
        self._sessions.hear(event)

    def tick(self) -> None:
        """Account for silence, journal, publish. Called once an interval in which no message came."""
        self._tick(self._clock.boottime_ns())

    def _tick(self, heard_ns: int) -> None:
        """The same, with silence up to `heard_ns`."""
        now_ns = self._clock.boottime_ns()
        self._fill(min(heard_ns, now_ns), 2 * self._settings.interval_ns + NS_PER_S // 2, GapReason.SOURCE_SILENT)
        if now_ns - self._checkpointed_ns >= self._settings.checkpoint_ns:
            self.checkpoint()
        else:
            self._outbox.note(self._record)
        self._publish()

    def checkpoint(self) -> bool:
        """Write the totals durably; true if they are. A checkpoint is told to nobody before that."""
        self._checkpointed_ns = self._clock.boottime_ns()
        self._watch_wall_clock()
        self._go_on(same_boot=False)
        if not self._outbox.append(self._record()):
            return False
        for watched in self._watched.values():
            watched.gaps.clear()
        self._sessions.settled()
        self._told = told(self._settings.run_declared, list(self._sessions.known.values()))
        self._publish()
        self._emit(checkpoint_line(self.snapshot, self._journal))
        return True

    def close(self, why: str, child_exit_code: int | None = None) -> bool:
        """Account for the time until now, write checkpoint and end; true if both are durable."""
        if self._closed:
            return True
        self._fill(self._clock.boottime_ns(), None, GapReason.STOPPING)
        durable = self.checkpoint()
        now_ns, wall_ns = self._clock.boottime_ns(), self._clock.wall_ns()
        end = {
            "kind": "end",
            "incarnation": self._incarnation,
            "ns": now_ns,
            "utc": rfc3339(wall_ns),
            "why": why,
            "child_exit_code": child_exit_code,
        }
        self._closed = durable and self._outbox.append(end)
        self._publish()
        return self._closed

    def _take_up(self, message: Message, sweep: Sweep, changes: Sequence[MigChange]) -> None:
        """Follow what a source lists now."""
        hearing, in_force = self._hearing, self._sessions.in_force
        for uid, device in sweep.renamed.items():
            if uid not in self._parted:
                self._identify(uid, device)
        since_ns = hand_over(changes, self._watched, sweep, message.at_ns, hearing.elsewhere, in_force)
        for device in message.devices:
            self._parted.discard(device.uid)
            self._identify(device.uid, device)
            if device.uid in self._watched or hearing.roster.is_in_slices(device.uid):
                continue
            if device.uid in since_ns:
                self._watch(device, message.source, since_ns[device.uid], GapReason.REPLACED)
            elif hearing.is_anothers(device.uid, message.source):
                self._watch(device, message.source, message.at_ns)
            else:
                self._watch(device, message.source)

    def _watch(
        self, device: Device, source: str, since_ns: int | None = None, before: GapReason = GapReason.NOT_OURS
    ) -> None:
        """Take up a device where its last incarnation left it, else at this one's beginning; one whose time was
        another's until `since_ns`, as `before` says, then."""
        rating = rate(device, self._table, self._settings.declared(device))
        tally = self._past.left_off(device.uid)
        if since_ns is not None and tally.begin_ns == self._begin_ns:
            tally = Tally(since_ns, since_ns)
        part_id = None if rating.part is None else rating.part.id
        entry = DeviceEntry(device, source, part_id, tally.begin_ns, rating.precision)
        state = DeviceState(device, source, part_id, rating, tally, tally, self._past.of(device.uid))
        watched = self._watched[device.uid] = TrackedDevice(len(self._watched), entry, state)
        self._gone = self._past.without(self._watched)
        self._outbox.append(device_record(self._incarnation, watched.number, entry, tally))
        if tally.begin_ns < self._begin_ns:
            watched.count_gap(self._begin_ns, GapReason.DAEMON_DOWN, self._sessions.in_force)
        if since_ns is not None:
            watched.count_gap(since_ns, before, self._sessions.in_force)

    def _identify(self, uid: DeviceUid, told: Device) -> None:
        """Let `told` say what a watched device is, where that was not known; the journal says so too."""
        watched = self._watched.get(uid)
        if watched is not None and watched.identified_by(told, self._table, self._settings.declared(told)):
            now_ns = self._clock.boottime_ns()
            self._outbox.append(
                evidence_record(self._incarnation, watched.number, now_ns, watched.entry, identified=True)
            )

    def _reassign(self) -> None:
        """Follow the roster: a device whose source or expected evidence changed says so in the journal."""
        for uid, watched in self._watched.items():
            best = self._hearing.roster.best(uid)
            if best is None:
                continue
            source, device = best
            if watched.is_read_by(source, device):
                continue
            watched.read_by(source, device)
            self._outbox.append(
                evidence_record(self._incarnation, watched.number, self._clock.boottime_ns(), watched.entry)
            )

    def _go_on(self, *, same_boot: bool) -> None:
        """Take up what killed incarnations watched. What one on another boot watched, and no source lists here, did
        something after its last record that none tells: until this incarnation began it is a gap, and no longer."""
        for uid, entry in self._past.left_open(same_boot=same_boot):
            if uid in self._watched:
                continue
            if not same_boot:
                self._parted.add(uid)
            self._watch(entry.device, entry.source)

    def _count(self, source: str, sweep: Sweep) -> list[Reading]:
        """Fold a sweep's readings in; those that were: another source may read a device better, or its slices are."""
        counted, now_ns = [], self._clock.boottime_ns()
        for reading in sweep.readings:
            watched = self._watched.get(reading.device)
            if watched is None:
                if not self._hearing.roster.is_in_slices(reading.device):
                    log.error("source %s sent a reading of %s, which it does not list", source, reading.device)
                continue
            best = self._hearing.roster.best(reading.device)
            if best is not None and best[0] == source:
                reading = watched.in_time(reading, now_ns)
                watched.count(reading, self._sessions.in_force, sweep.gauges.get(reading.device))
                counted.append(reading)
        return counted

    def _fill(self, now_ns: int, tolerance_ns: int | None, otherwise: GapReason) -> None:
        """Turn silence of more than `tolerance_ns` into gaps, or all of it, so that no time is left out."""
        if tolerance_ns is not None and self._hearing.fell_silent(now_ns, tolerance_ns):
            self._reassign()
        for uid, watched in self._watched.items():
            if uid in self._parted:
                continue
            allowed_ns = 0 if tolerance_ns is None else tolerance_ns + self._hearing.patience_ns(watched.entry.source)
            if now_ns - watched.state.tally.watermark_ns > allowed_ns:
                watched.count_gap(now_ns, self._hearing.why_unread(watched.entry, otherwise), self._sessions.in_force)

    def _of_source(self, name: str) -> list[TrackedDevice]:
        found = ((uid, watched) for uid, watched in self._watched.items() if watched.entry.source == name)
        return [watched for uid, watched in found if uid not in self._parted]

    def _watch_wall_clock(self) -> None:
        offset_ns = self._clock.wall_ns() - self._clock.boottime_ns()
        if abs(offset_ns - self._offset_ns) > STEP_TOLERANCE_NS:
            log.warning(
                "the wall clock stepped by %.1f s; durations are not affected", (offset_ns - self._offset_ns) / NS_PER_S
            )
        self._offset_ns = offset_ns

    def _record(self) -> dict[str, Any]:
        told = self._sessions.for_journal()
        return {
            "kind": "checkpoint",
            "incarnation": self._incarnation,
            "ns": self._clock.boottime_ns(),
            "utc": rfc3339(self._clock.wall_ns()),
            "devices": [tally_record(watched.number, watched.state.tally) for watched in self._watched.values()],
            "gaps": [
                [watched.number, begin_ns, end_ns, reason.value]
                for watched in self._watched.values()
                for begin_ns, end_ns, reason in watched.gaps
            ],
            **({"sessions": told} if told else {}),
        }

    def _publish(self) -> None:
        self.snapshot = Snapshot(
            run=self._run,
            node=self._context.node,
            platform=self._context.platform,
            incarnation=self._incarnation,
            table=self._table,
            devices=tuple(watched.state for watched in self._watched.values()),
            sources=dict(self._hearing.states),
            journal_records=self._journal.records,
            journal_last_append_wall_ns=self._outbox.last_append_wall_ns,
            journal_fault=self._outbox.fault,
            earlier=self._gone,
            told=self._told,
            policies=tuple(self._settings.policies),
            is_whole=len(self._context.roster) <= 1,
        )
