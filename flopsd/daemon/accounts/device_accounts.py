"""The tallies of all devices of one daemon start: which devices are tracked, which source reads each, what is a gap.

Tallies change in memory only; `append` journals the records by which a later reader assigns tallies to devices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.ledger.device_records import DeviceEntry, device_record, evidence_record
from flopsd.core.ledger.rated_tally import RatedTally
from flopsd.core.model import UNIDENTIFIED, Device, DeviceUid, GapReason, Precision, Reading, Sweep
from flopsd.core.peaks import PeakTable
from flopsd.core.phases import NO_PHASE
from flopsd.core.rows import gap_ceiling_flop
from flopsd.core.tally import Tally
from flopsd.daemon.accounts.earlier_starts import EarlierStarts
from flopsd.daemon.accounts.mig_handover import MigChange, hand_over
from flopsd.daemon.accounts.source_tracker import Message, SourceTracker, not_ours_at
from flopsd.daemon.accounts.tracked_device import HOLD_NS, TrackedDevice, rate, settled_ns
from flopsd.daemon.sessions.tracker import SessionTracker
from flopsd.system.clock import Clock
from flopsd.telemetry.last_gap import not_read_yet, open_gap
from flopsd.telemetry.snapshot import DeviceState

log = logging.getLogger("flopsd")


class DeviceAccounts:
    """The devices of daemon start `incarnation`, which began at `begin_ns`. Not thread-safe: the writer owns it."""

    def __init__(
        self, incarnation: int, begin_ns: int, table: PeakTable, precision_of: Callable[[Device], Precision | None],
        sources: SourceTracker, sessions: SessionTracker, earlier: EarlierStarts,
        append: Callable[[Mapping[str, Any]], object], clock: Clock, *, starts_before: int, journal_lost: bool,
        interval_ns: int,
    ) -> None:  # fmt: skip
        """`starts_before`: the number of daemon starts of the run that are not in this journal.

        `precision_of`: the declared number format of a device. `append` journals one record. `journal_lost`: the
        content of the earlier journal is unknown. `interval_ns`: the time between two reads of a source."""
        self._hold_ns = HOLD_NS + 3 * interval_ns
        # Why earlier work is unknown: each device gets a gap with this reason and without a ceiling.
        unmetered = GapReason.END_UNKNOWN if earlier.has_unmetered_start else None
        self._unknown_before = GapReason.JOURNAL_REPLACED if journal_lost else unmetered
        self._incarnation, self._begin_ns, self._table = incarnation, begin_ns, table
        self._start = starts_before + incarnation
        self._precision_of, self._append, self._clock = precision_of, append, clock
        self._sources, self._sessions, self._earlier = sources, sessions, earlier
        self._tracked: dict[DeviceUid, TrackedDevice] = {}
        self._retired: set[DeviceUid] = set()  # of a machine that is gone: accounted for only up to `begin_ns`
        self._expected: set[DeviceUid] = set()  # of another boot, or of none: in place of devices not listed yet
        self.only_earlier = earlier.tallies_except(self._tracked)  # counted by earlier daemon starts, not tracked now

    @property
    def tracked(self) -> Sequence[TrackedDevice]:
        return tuple(self._tracked.values())

    def count(self, message: Message, sweep: Sweep) -> None:
        """Track the devices that a source lists and fold its readings in."""
        left_ns = not_ours_at(message, sweep)
        for uid in self._tracked.keys() & sweep.not_ours:
            tracked = self._tracked[uid]
            if tracked.entry.source == message.source and not self._sources.belongs_to_other_job(uid, message.source):
                # Work done since the device was last known to be this job's may belong to another job.
                tracked.held.clear()
                tracked.count_gap(left_ns, GapReason.MISSED_READING, self._sessions.active_phase)
        changes = self._sources.note_devices(message, sweep)
        if changes is not None:
            self._follow(message, sweep, changes)
            self.reassign()
        self._sources.note_sweep(message, sweep, self._count_readings(message.source, sweep))

    def count_outage(self, message: Message) -> None:
        """Count a gap up to `message` for the devices of its source, which sent a fault in place of readings."""
        sources = self._sources
        has_other_readers = sources.note_failure(message)
        for uid, tracked in self._tracked.items():
            is_read_here = tracked.entry.source == message.source and uid not in self._retired
            if is_read_here and sources.accounted_elsewhere(tracked.entry) is None:
                tracked.count_gap(message.at_ns, message.reason, self._sessions.active_phase)
        if has_other_readers:
            self.reassign()

    def fill(self, now_ns: int, tolerance_ns: int | None, otherwise: GapReason) -> None:
        """Turn silence of more than `tolerance_ns` into gaps; None: any silence, so that no time is left out."""
        if tolerance_ns is not None and self._sources.fell_silent(now_ns, tolerance_ns):
            self.reassign()
        for uid, tracked in self._tracked.items():
            if uid in self._retired:
                # No record of this journal says that the device is of another boot, so its time must be counted.
                if tolerance_ns is None and self._earlier.in_other_journal:
                    tracked.count_gap(now_ns, GapReason.REPLACED, self._sessions.active_phase)
                continue
            if tolerance_ns is None:  # no later answer will say which job had the device
                tracked.held.clear()
            elif now_ns - tracked.read_until_ns <= tolerance_ns + self._sources.patience_ns(tracked.entry.source):
                continue
            reason, until_ns = self._sources.why_unread(tracked.entry, otherwise), now_ns
            if reason is GapReason.OTHER_JOB:
                until_ns = min(now_ns, self._sources.other_jobs_until_ns(tracked.entry.source))
            elif tolerance_ns is not None and (
                reason is GapReason.METERED_AS_MIG or (reason is GapReason.REPLACED and tracked.entry.device.parent)
            ):
                # It may be back, and its source has not looked since.
                until_ns = self._gpu_read_until_ns(tracked.entry.device, now_ns) - self._hold_ns
            tracked.count_gap(until_ns, reason, self._sessions.active_phase)
            if tolerance_ns is None:  # since then the device may have been this job's again
                tracked.count_gap(now_ns, otherwise, self._sessions.active_phase)

    def _gpu_read_until_ns(self, device: Device, now_ns: int) -> int:
        """Return when the GPU of a device that others replaced was last read; `now_ns` if none of it is tracked."""
        gpu = device.parent or device.uid
        found = []
        for uid, one in self._tracked.items():
            if uid != device.uid and gpu in (uid, one.entry.device.parent):
                gap = open_gap(one.state.gap, one.tally.watermark_ns)
                found.append(one.tally.watermark_ns if gap is None else gap.since_ns)
        return max(found, default=now_ns)

    def resume(self, *, same_boot: bool) -> None:
        """Track the devices that killed daemon starts tracked. For a device of another boot that no source lists now,
        time after its last record is a gap until this daemon start began; then the device is retired."""
        for uid, entry in self._earlier.left_open(same_boot=same_boot):
            if uid in self._tracked:
                continue
            if not same_boot:
                self._retired.add(uid)
            self._track(entry.device, entry.source)

    def add_expected(self, *, at_end: bool = False) -> None:
        """If no device is listed, track those of the last daemon start, as a gap, in place of what there may be. For a
        vendor none of whose sources has opened, track its last devices; if there are none, one without a ceiling."""
        last = self._earlier.listed_last
        if self._tracked.keys() <= self._retired:
            self._retired.clear()
            self._track_expected(last)
        for vendor, source in self._sources.unresolved(at_end=at_end).items() if self._tracked else ():
            why = f"source {source} has not opened"
            unlisted = Device(_unlisted(source), 0, vendor, UNIDENTIFIED, evidence_reason=why)
            known = [entry for entry in last if entry.device.vendor == vendor or entry.source == source]
            self._track_expected(known or [DeviceEntry(unlisted, source, None, 0, None)])

    def _track_expected(self, entries: Sequence[DeviceEntry]) -> None:
        uids = {entry.device.uid for entry in entries}
        self._retired -= uids
        for entry in entries:
            if entry.device.uid not in self._tracked:
                self._track(entry.device, entry.source)
        self._expected |= self._earlier.of_other_boots & uids

    @property
    def has_open_gap(self) -> bool:
        """Whether a later reading may still show the work done in a gap: in the next segment it would fill no gap."""
        tallies = (one.tally for uid, one in self._tracked.items() if uid not in self._retired)
        return any(settled_ns(tally) < tally.watermark_ns for tally in tallies)

    def rotate(self, append: Callable[[Mapping[str, Any]], object]) -> None:
        """Continue in the next segment: each account from where it stands, with the counters last read."""
        self._incarnation, self._append = 1, append
        if self._tracked:  # their accounts contain the gap for unknown work
            self._unknown_before = None
        self._earlier.rotated(self._tracked.pop(uid).state.now for uid in self._retired & self._tracked.keys())
        for number, one in enumerate(self._tracked.values()):
            append(device_record(1, number, one.entry, one.rotate(number)))
        self.only_earlier = self._earlier.tallies_except(self._tracked)

    @property
    def of_journal(self) -> tuple[RatedTally, ...]:
        """The tallies of this journal, without those of earlier segments."""
        now = (replace(one.state.now, start=self._incarnation, tally=one.in_segment) for one in self.tracked)
        return (*self._earlier.of_journal, *now)

    def ceiling_flop(self, uid: DeviceUid, ns: int) -> int | None:
        """Return the most FLOP that a device can execute in `ns`; None if the device or its ceiling is unknown."""
        if (tracked := self._tracked.get(uid)) is None:
            return None
        return gap_ceiling_flop(ns, tracked.state.now.rating)

    def reassign(self) -> None:
        """Apply the arbitration: journal a record for each device whose source or expected evidence changed."""
        for uid, tracked in self._tracked.items():
            best = self._sources.arbiter.best(uid)
            if best is None:
                continue
            source, device = best
            if tracked.is_read_by(source, device):
                continue
            tracked.set_source(source, device, self._sources.log_rest)
            self._append(evidence_record(self._incarnation, tracked.number, self._clock.boottime_ns(), tracked.entry))

    def _follow(self, message: Message, sweep: Sweep, changes: Sequence[MigChange]) -> None:
        """Track the devices that a source lists now."""
        sources = self._sources
        for uid, device in sweep.renamed.items():
            if uid not in self._retired:
                self._identify(uid, device)
        since_ns = hand_over(
            changes, self._tracked, sweep, message.at_ns, sources.accounted_elsewhere, self._sessions.active_phase
        )
        for device in message.devices:
            if device.uid in self._retired | self._expected:
                self._unretire(device)
        if self._expected and message.devices:
            unresolved = sources.unresolved(at_end=True)
            came = {uid for uid in self._expected if self._tracked[uid].entry.device.vendor not in unresolved}
            sources.replaced(came.difference(device.uid for device in message.devices))
            self._expected -= came
            for uid in came:
                self._identify(uid, message.devices[0])
        for device in message.devices:
            self._identify(device.uid, device)
            self._drop_outgrown_ceiling(device)
            if device.uid in self._tracked or sources.arbiter.is_in_slices(device.uid):
                continue
            if device.uid in since_ns:
                self._track(device, message.source, since_ns[device.uid], GapReason.REPLACED)
            elif sources.belongs_to_other_job(device.uid, message.source):
                until_ns = sources.other_jobs_until_ns(message.source)
                self._track(device, message.source, max(self._begin_ns, until_ns))
            else:
                self._track(device, message.source)

    def _track(
        self, device: Device, source: str, since_ns: int | None = None, before: GapReason = GapReason.OTHER_JOB
    ) -> None:
        """Track a device from where its last daemon start left it, or else from the beginning of this one. Its time
        before `since_ns` is a gap with the reason `before`: it belonged to another job or device."""
        rating = rate(device, self._table, self._precision_of(device))
        is_here = device.uid not in self._retired
        tally = self._earlier.continued_tally(device, is_here=is_here, is_since_known=since_ns is not None)
        if since_ns is not None and tally.begin_ns == self._begin_ns:
            tally = Tally(since_ns, since_ns)
        part_id = None if rating.part is None else rating.part.id
        entry = DeviceEntry(device, source, part_id, tally.begin_ns, rating.precision)
        now = RatedTally(self._start, entry, tally, rating, self._sessions.declared.phase)
        state = DeviceState((*self._earlier.tallies_of(device.uid), now), before=now, gap=not_read_yet(tally))
        tracked = self._tracked[device.uid] = TrackedDevice(len(self._tracked), state, hold_ns=self._hold_ns)
        self.only_earlier = self._earlier.tallies_except(self._tracked)
        if device.uid == _unlisted(source):
            self._expected.add(device.uid)
        self._append(device_record(self._incarnation, tracked.number, entry, tally))
        if tally.begin_ns < self._begin_ns:
            is_known = self._earlier.is_length_known(device, is_here=is_here)
            is_bounded = is_known and not self._earlier.had_more_sms(device)
            why = GapReason.DAEMON_DOWN if is_bounded else GapReason.END_UNKNOWN
            tracked.count_gap(self._begin_ns, why, self._sessions.active_phase)
        missed = GapReason.END_UNKNOWN if self._earlier.is_missed(device) else None
        if (unknown := self._unknown_before or missed) is not None:
            tracked.count_gap(max(self._clock.boottime_ns(), tracked.tally.watermark_ns + 1), unknown, NO_PHASE)
        if since_ns is not None:
            tracked.count_gap(since_ns, before, self._sessions.active_phase)

    def _unretire(self, device: Device) -> None:
        """Account for a device that a source lists although it was taken for one of a machine that is gone."""
        self._retired.discard(device.uid)
        tracked = self._tracked.get(device.uid)  # None: its account is in an earlier segment, and a new one begins
        if tracked is not None and not self._earlier.is_length_known(device):
            until_ns = max(self._clock.boottime_ns(), tracked.tally.watermark_ns + 1)
            tracked.count_gap(until_ns, GapReason.END_UNKNOWN, NO_PHASE)

    def _identify(self, uid: DeviceUid, listed: Device) -> None:
        """Rate a tracked device of unknown model by `listed`, if that names the model, and journal this."""
        tracked = self._tracked.get(uid)
        if tracked is not None and tracked.identified_by(listed, self._table, self._precision_of(listed)):
            now_ns = self._clock.boottime_ns()
            self._append(evidence_record(self._incarnation, tracked.number, now_ns, tracked.entry, identified=True))

    def _drop_outgrown_ceiling(self, listed: Device) -> None:
        """Remove the ceiling of a device that is now listed as larger than in the journal: a MIG slice made anew can
        have the same UUID, and a second source can report a higher clock than the first did."""
        tracked = self._tracked.get(listed.uid)
        if tracked is None or not tracked.is_outgrown_by(listed) or GapReason.END_UNKNOWN in tracked.tally.gap_ns:
            return
        log.error(
            "device %d (%s) is now listed with %s SMs of at most %s MHz, more than at first: it was recreated with the "
            "same UUID, another source describes it differently, or it is faster than its driver states; this run no "
            "longer has an upper bound",
            listed.index,
            listed.uid,
            listed.sm_count,
            listed.sm_clock_max_mhz,
        )
        now_ns = max(self._clock.boottime_ns(), tracked.tally.watermark_ns + 1)
        tracked.count_gap(now_ns, GapReason.END_UNKNOWN, self._sessions.active_phase)

    def _count_readings(self, source: str, sweep: Sweep) -> list[Reading]:
        """Fold in and return the readings of devices that are assigned to this source. The other readings are of GPUs
        that are read in slices, or by a better source."""
        counted, ours_until_ns, active_phase = list[Reading](), sweep.ours_until_ns, self._sessions.active_phase
        for one in self._tracked.values():
            if one.held and one.entry.source == source:
                one.settle(ours_until_ns)
        for reading in sweep.readings:
            tracked = self._tracked.get(reading.device)
            if tracked is None:
                if not self._sources.arbiter.is_in_slices(reading.device):
                    log.error(
                        "source %s sent a reading of device %s, which it does not list; the reading is not counted; "
                        "report it to the author of the source",
                        source,
                        reading.device,
                    )
                continue
            best = self._sources.arbiter.best(reading.device)
            if best is not None and best[0] == source:
                take = tracked.count if ours_until_ns is None or reading.end_ns <= ours_until_ns else tracked.hold
                take(reading, active_phase, sweep.gauges.get(reading.device))
                counted.append(reading)
        return counted


def _unlisted(source: str) -> DeviceUid:
    """Return the UID of the device that stands for those of a source that has not opened."""
    return f"{source}-unlisted"
