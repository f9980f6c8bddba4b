"""What earlier incarnations of a run counted, and where a new one goes on from."""

from __future__ import annotations

from collections.abc import Container, Iterator

from flopsd.core.codec import DeviceEntry
from flopsd.core.figures import Rating
from flopsd.core.model import DeviceUid, Tally
from flopsd.core.peaks import PeakTable
from flopsd.core.rated import rating_of
from flopsd.core.records import History, Incarnation

Counted = tuple[tuple[Tally, Rating], ...]


class Past:
    """The incarnations before one that begins at `begin_ns` of this boot; `offset_ns` later on the wall clock."""

    def __init__(self, history: History, table: PeakTable, boot_id: str, begin_ns: int, offset_ns: int) -> None:
        self._incarnations, self._table, self._boot_id = history.incarnations, table, boot_id
        self._begin_ns, self._offset_ns = begin_ns, offset_ns
        # The last incarnation that watched a device.
        self._last = {uid: incarnation for incarnation in history.incarnations for uid in incarnation.tallies}

    def left_open(self, *, same_boot: bool) -> Iterator[tuple[DeviceUid, DeviceEntry]]:
        """Devices whose last incarnation was killed, on this boot or on others."""
        for uid, last in self._last.items():
            if last.end is None and (last.boot_id == self._boot_id) == same_boot:
                yield uid, next(entry for entry in last.devices.values() if entry.device.uid == uid)

    def left_off(self, uid: DeviceUid) -> Tally:
        """Where counting begins, with the absolute counters it goes on from.

        After a death on the same boot: where the dead incarnation stood. After another boot only the
        wall clock tells how long that was, and counters have begun anew. After a regular end, or for a
        new device: at this incarnation's beginning.
        """
        begin_ns, before = self._begin_ns, self._last.get(uid)
        if before is None or before.end is not None:
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
        then_wall_ns = tally.watermark_ns - before.begin["ns"] + before.begin["wall_ns"]
        begin_ns -= max(0, begin_ns + self._offset_ns - then_wall_ns)
        return Tally(begin_ns, begin_ns)

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
