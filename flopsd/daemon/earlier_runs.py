"""What earlier incarnations of a run counted, and where a new one goes on from."""

from __future__ import annotations

from collections.abc import Container, Iterator

from flopsd.core.figures import Rating
from flopsd.core.ledger.devices import rating_of
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.journal_codec import DeviceEntry
from flopsd.core.model import DeviceUid, GapReason, Tally
from flopsd.core.peaks import PeakTable
from flopsd.system.clock import NS_PER_S, wall_ns_of

_TAKEN_OVER = (GapReason.IN_SLICES, GapReason.REPLACED)
Counted = tuple[tuple[Tally, Rating], ...]


class EarlierStarts:
    """The incarnations before one that begins at `begin_ns` of this boot; `offset_ns` later on the wall clock."""

    def __init__(self, history: History, table: PeakTable, boot_id: str, begin_ns: int, offset_ns: int) -> None:
        self._incarnations, self._table, self._boot_id = history.incarnations, table, boot_id
        self._begin_ns, self._offset_ns = begin_ns, offset_ns
        self._last_gap = {(gap.incarnation, gap.device): gap for gap in history.gaps}
        # The last incarnation that watched a device.
        self._last = {uid: incarnation for incarnation in history.incarnations for uid in incarnation.tallies}

    def left_open(self, *, same_boot: bool) -> Iterator[tuple[DeviceUid, DeviceEntry]]:
        """Devices whose last incarnation was killed, on this boot or on others."""
        for uid, last in self._last.items():
            of_this_boot = last.boot_id == self._boot_id
            if of_this_boot == same_boot and not self._is_closed(uid, last) and not self._had_parted(uid, last):
                yield uid, next(entry for entry in last.devices.values() if entry.device.uid == uid)

    def left_off(self, uid: DeviceUid) -> Tally:
        """Where counting begins, with the absolute counters it goes on from.

        After a death on the same boot: where the dead incarnation stood. After another boot only the
        wall clock tells how long that was, and counters have begun anew; where it fell, what is known
        is the time since the boot. After a regular end, for a new device, and for one that others stood in place of:
        at this incarnation's beginning.
        """
        begin_ns, before = self._begin_ns, self._last.get(uid)
        if before is None or self._is_closed(uid, before):
            return Tally(begin_ns, begin_ns)
        tally = before.tallies[uid]
        if before.boot_id == self._boot_id:
            begin_ns = min(tally.watermark_ns, begin_ns)
            return Tally(
                begin_ns,
                begin_ns,
                energy_at_ns=tally.energy_at_ns,
                counters=tally.counters,
                totals=tally.totals,
                totals_ns=tally.totals_ns,
            )
        passed_ns = self._passed_ns(before)
        begin_ns = 0 if passed_ns < 0 else begin_ns - passed_ns - (before.last_ns - tally.watermark_ns)
        return Tally(begin_ns, begin_ns)

    def not_known(self) -> str:
        """What nobody can know of the time before this incarnation, in words; empty: nothing is missing."""
        open_since = {last.number: last for uid, last in self._last.items() if not self._is_closed(uid, last)}
        fell_ns = [
            -passed_ns
            for last in open_since.values()
            if last.boot_id != self._boot_id and (passed_ns := self._passed_ns(last)) < 0
        ]
        if not fell_ns:
            return ""
        return (
            f"the wall clock stands {max(fell_ns) / NS_PER_S:.1f} s before the last record of another boot: how long "
            "nobody metered is not known, the gap tells of the time since this boot only"
        )

    def _is_closed(self, uid: DeviceUid, last: Incarnation) -> bool:
        """Whether nothing of a device was left open: the incarnation ended, or others were metered in its place."""
        gap = self._last_gap.get((last.number, uid))
        taken_over = gap is not None and gap.reason in _TAKEN_OVER and gap.end_ns == last.tallies[uid].watermark_ns
        return last.end is not None or taken_over

    def _had_parted(self, uid: DeviceUid, last: Incarnation) -> bool:
        """Whether its last incarnation only closed a device's account: it is of a machine that was gone by then."""
        if not last.checkpoints or last.tallies[uid].watermark_ns > last.begin["ns"]:
            return False
        boots = [incarnation.boot_id for incarnation in self._incarnations if uid in incarnation.tallies]
        return len(boots) > 1 and boots[-2] != last.boot_id

    def _passed_ns(self, before: Incarnation) -> int:
        """By the wall clock, from the last record of an incarnation on another boot to this one's beginning."""
        try:
            then_ns = wall_ns_of(before.last_utc)
        except ValueError:
            then_ns = before.begin["wall_ns"] + before.last_ns - before.begin["ns"]
        return self._begin_ns + self._offset_ns - then_ns

    def of(self, uid: DeviceUid) -> Counted:
        """What was counted of a device, an incarnation each."""
        return tuple(
            (found.tallies[uid], self._rating(found, uid)) for found in self._incarnations if uid in found.tallies
        )

    def without(self, watched: Container[DeviceUid]) -> Counted:
        """What was counted of devices that are not watched now: it is the run's all the same."""
        return tuple(
            (tally, self._rating(found, uid))
            for found in self._incarnations
            for uid, tally in found.tallies.items()
            if uid not in watched
        )

    def _rating(self, incarnation: Incarnation, uid: DeviceUid) -> Rating:
        return rating_of(incarnation, uid, self._table)
