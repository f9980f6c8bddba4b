"""The tallies of a run's earlier daemon starts, and where a new daemon start continues each device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from itertools import takewhile

from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.open_accounts import has_ended, is_taken_over, last_gaps, left_open, read_until_ns
from flopsd.core.ledger.rated_tally import RatedTally, rated_of_run, rated_tallies
from flopsd.core.ledger.start_notes import LOSSES
from flopsd.core.model import Device, DeviceUid, GapReason
from flopsd.core.notes import Note, note
from flopsd.core.peaks import PeakTable
from flopsd.core.tally import TALLY_ABSOLUTES, Tally
from flopsd.core.values import seconds, utc_ns
from flopsd.daemon.accounts.tracked_device import HOLD_NS, without_open_counters


class EarlierStarts:
    """The daemon starts before the one that began at `begin_ns` since boot. The wall clock is `offset_ns` ahead."""

    def __init__(
        self, history: History, table: PeakTable, boot_id: str, begin_ns: int, offset_ns: int, *,
        job_began_ns: int | None,
    ) -> None:  # fmt: skip
        """`job_began_ns`: when the job that is metered now began; not after `begin_ns`."""
        self._incarnations, self._boot_id = history.incarnations, boot_id
        self.rated = rated_of_run(history, table)
        self.in_other_journal = history.is_rotated
        self.has_unseen_loss = not history.is_rotated and begins_with_loss(history) and not _has_lost_time(history)
        self.of_journal = () if history.is_rotated else rated_tallies(history, table)  # of the continued journal
        self._begin_ns, self._offset_ns = begin_ns, offset_ns
        self._killed_ns = _killed_since_ns(history, boot_id, begin_ns)
        self._left_behind = _left_behind(history, boot_id, self._killed_ns)
        self._last_gap, self._open = last_gaps(history), left_open(history)
        self._read_until_ns = read_until_ns(history)
        self._settled: set[DeviceUid] = set()  # devices whose time before this start is in an earlier segment
        # The last daemon start that tracked a device.
        self._last = {uid: incarnation for incarnation in history.incarnations for uid in incarnation.tallies}
        deviceless = list(takewhile(lambda start: not start.tallies, reversed(history.incarnations)))
        # Whether the last daemon starts had no device, and time that the devices of this start cannot account for.
        self.has_unmetered_start = any(has_ended(start) or start.boot_id != boot_id for start in deviceless)
        self._job_began_ns = begin_ns if job_began_ns is None else job_began_ns
        self.of_other_boots = {uid for uid, last in self._last.items() if last.boot_id != boot_id}
        self.listed_last = self._listed_by(history.incarnations[-len(deviceless) - 1]) if self._last else []

    def _listed_by(self, start: Incarnation) -> list[DeviceEntry]:
        """Return the devices of a daemon start, except those that others replaced, each with its last source."""
        entries = {entry.device.uid: entry for entry in start.devices.values()}
        gaps = {uid: self._last_gap.get((start.number, uid)) for uid in entries}
        return [one for uid, one in entries.items() if not is_taken_over(gaps[uid], start.tallies[uid])]

    def left_open(self, *, same_boot: bool) -> Iterator[tuple[DeviceUid, DeviceEntry]]:
        """Yield the devices whose last daemon start was killed, on this boot or on another one."""
        for uid, last in self._open.items():
            if (last.boot_id == self._boot_id) == same_boot:
                yield uid, next(entry for entry in last.devices.values() if entry.device.uid == uid)

    def continued_tally(self, device: Device, *, is_here: bool, is_since_known: bool) -> Tally:
        """Return the tally that counting continues from, with the counter values last read.

        If the last daemon start was killed on this boot, it is that start's last tally. If it was killed on another
        boot, hardware counters have restarted, and only the wall clock says how long ago that was; if the wall clock
        went back, only the time since this boot is known, and the gap has no ceiling. `is_here`: this machine has the
        device, not one that is gone. After a regular end, and for a device metered as other devices since, it is an
        empty tally. The device may have worked since the first of the daemon starts killed right before, or since its
        GPU was last read, whole or in slices: the tally begins there, or with this daemon start if `is_since_known`.
        """
        begin_ns, uid = self._begin_ns, device.uid
        before = self._last.get(uid)
        if before is None or uid in self._settled or self._is_closed(uid, before):
            if not is_since_known and uid not in self._settled:
                begin_ns = min(begin_ns, max([self._killed_ns, *self._gpu_known_until_ns(device)]))
            return Tally(begin_ns, begin_ns)
        tally = before.tallies[uid]
        if before.boot_id == self._boot_id:
            begin_ns = min(tally.watermark_ns, begin_ns)
            absolute = {name: getattr(tally, name) for name in TALLY_ABSOLUTES}
            continued = Tally(begin_ns, begin_ns, **absolute)
            return without_open_counters(continued) if self.in_other_journal else continued
        passed_ns = self._passed_ns(before, device if is_here else None)
        begin_ns = 0 if passed_ns < 0 else begin_ns - passed_ns - (before.last_ns - tally.watermark_ns)
        return Tally(begin_ns, begin_ns)

    def _gpu_known_until_ns(self, device: Device) -> Iterator[int]:
        """Yield times on this boot before which this was no device of its GPU, or is accounted for. A source looks
        rarely for new slices, and a gap since the GPU was last read has the ceiling of those that there were then."""
        if device.uid in self._left_behind:
            yield int(self._incarnations[0].begin["ns"])
        for start in self._incarnations:
            for known in (entry.device for entry in start.devices.values()):
                if start.boot_id == self._boot_id and (device.parent or device.uid) in (known.uid, known.parent):
                    until_ns, tally = self._read_until_ns[start.number, known.uid], start.tallies[known.uid]
                    if known.uid == device.uid:
                        yield tally.watermark_ns
                    elif until_ns > tally.begin_ns:
                        yield until_ns - HOLD_NS

    def is_length_known(self, device: Device, *, is_here: bool = True) -> bool:
        """Whether it is known for how long a device was not metered before now. `is_here`: see `continued_tally`."""
        last = self._last.get(device.uid)
        if last is None or last.boot_id == self._boot_id or self._is_closed(device.uid, last):
            return True
        return self._passed_ns(last, device if is_here else None) >= 0

    def is_missed(self, device: Device) -> bool:
        """Whether the job may have used a device in time before this daemon start that is not accounted for: the last
        daemon start did not meter it, or an earlier segment may have counted too little of that time."""
        uid = device.uid
        if uid in self._settled and not self.is_length_known(device):
            return True
        if uid in self._left_behind and len([*self._gpu_known_until_ns(device)]) == 1:
            return True
        if self._job_began_ns >= self._begin_ns:
            return False
        tally = self._incarnations[-1].tallies.get(uid)
        return tally is None or tally.begin_ns > self._job_began_ns

    def had_more_sms(self, device: Device) -> bool:
        """Whether a device of this UUID had more SMs when it was last metered: a MIG slice may have been made anew."""
        last = self._last.get(device.uid)
        if last is None or device.sm_count is None:
            return False
        known = (one.device.sm_count for one in last.devices.values() if one.device.uid == device.uid)
        return any(count is not None and count > device.sm_count for count in known)

    def unknown_time(self) -> Note | None:
        """Return a note if the length of the gap before this daemon start is unknown; None if it is known."""
        open_since = {last.number: last for uid, last in self._last.items() if not self._is_closed(uid, last)}
        others = (last for last in open_since.values() if last.boot_id != self._boot_id)
        fell_ns = max((-self._passed_ns(last) for last in others), default=0)
        return note("time_not_known", seconds=seconds(fell_ns)) if fell_ns > 0 else None

    def _is_closed(self, uid: DeviceUid, last: Incarnation) -> bool:
        """Whether the account of a device was completed: by a regular end, or when it was metered as other devices."""
        return has_ended(last) or is_taken_over(self._last_gap.get((last.number, uid)), last.tallies[uid])

    def _passed_ns(self, before: Incarnation, here: Device | None = None) -> int:
        """Return the wall-clock ns from the last record of a daemon start on another boot to the beginning of this one;
        negative if the wall clock was set back. `here`: a device of that start that this machine has. The machine then
        booted after that record, so that at least the time since its boot must have passed."""
        passed_ns = self._begin_ns + self._offset_ns - utc_ns(before.last_utc)
        was_booted = before.boot_id.partition("+")[0] != self._boot_id.partition("+")[0]  # not `on_own_boot`
        is_same = here is not None and here.unique_name("") == here.uid
        return passed_ns - self._begin_ns if is_same and was_booted and passed_ns < self._begin_ns else passed_ns

    def rotated(self, retired: Iterable[RatedTally]) -> None:
        """Note that a new journal begins. `retired`: the tallies of devices that it does not continue."""
        gone = tuple(retired)
        self.rated, self.of_journal, self._open = (*self.rated, *gone), (), {}
        self._settled |= {one.uid for one in gone}

    def tallies_of(self, uid: DeviceUid) -> tuple[RatedTally, ...]:
        """Return the tallies of a device, one for each daemon start."""
        return tuple(one for one in self.rated if one.uid == uid)

    def tallies_except(self, tracked: Container[DeviceUid]) -> tuple[RatedTally, ...]:
        """Return the tallies of devices that are not tracked now. They belong to the run all the same."""
        return tuple(one for one in self.rated if one.uid not in tracked)


def begins_with_loss(history: History) -> bool:
    """Whether the journal was begun in place of one that was lost."""
    first = history.incarnations[0].begin if history.incarnations else {}
    recovered = first.get("recovered")
    if recovered is None:
        return False
    is_kept = recovered["keptAs"] is not None and history.continues is None  # else kept by an earlier segment
    return is_kept or any(reason["code"] in LOSSES for reason in recovered["reasons"])


def _has_lost_time(history: History) -> bool:
    """Whether a device has a gap for what was lost: there may have been no device yet."""
    tallies = (tally for start in history.incarnations for tally in start.tallies.values())
    return any(GapReason.JOURNAL_REPLACED in tally.gap_ns for tally in tallies)


def _left_behind(history: History, boot_id: str, killed_ns: int) -> set[DeviceUid]:
    """Return the devices of earlier segments that this journal does not have. Since when they are not accounted for is
    not known, if the daemon starts since `killed_ns` began in such a segment."""
    if history.continues is None or not history.incarnations:
        return set()
    first = history.incarnations[0]
    if first.boot_id != boot_id or killed_ns >= first.begin["ns"]:
        return set()
    here = {uid for start in history.incarnations for uid in start.tallies}
    return {one.entry.device.uid for one in history.continues.counted} - here


def _killed_since_ns(history: History, boot_id: str, begin_ns: int) -> int:
    """Return when the series of daemon starts began that were killed on this boot right before `begin_ns`."""
    for start in reversed(history.incarnations):
        if has_ended(start) or start.boot_id != boot_id:
            return begin_ns
        begin_ns = int(start.begin["ns"])
    if history.continues is None or not history.incarnations:
        return begin_ns
    # The killed starts began in an earlier segment, of which only the lengths of accounts are known.
    spans: Counter[DeviceUid] = Counter()
    for one in history.continues.counted:
        spans[one.entry.device.uid] += one.tally.span_ns
    known = history.incarnations[0].tallies.items()
    return max(0, min([begin_ns, *(tally.begin_ns - spans[uid] for uid, tally in known if uid in spans)]))
