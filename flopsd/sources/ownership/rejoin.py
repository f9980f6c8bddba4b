"""Keeps what a device did while it was not this job's out of counters that ran on meanwhile."""

from __future__ import annotations

from dataclasses import replace

from flopsd.core.model import DeviceUid, Gap, GapReason, Growth, Reading

_ENERGY = "energy_mj"


class Rejoin:
    """Corrects the readings of devices that come and go. An absence is a gap, and its energy is not counted."""

    def __init__(self) -> None:
        self._fresh: set[DeviceUid] = set()
        self._energy_mj: dict[DeviceUid, int] = {}  # as last read while it was this job's
        self._not_ours_mj: dict[DeviceUid, int] = {}

    def joined(self, uid: DeviceUid) -> None:
        """The device is this job's from now on, and may not have been so before."""
        self._fresh.add(uid)

    def corrected(self, reading: Reading) -> Reading:
        """What may be counted of `reading`."""
        uid, fresh = reading.device, reading.device in self._fresh
        self._fresh.discard(uid)
        if fresh and isinstance(reading.work, Growth):
            # Its totals grew by others' work too: they are only where counting begins.
            reading = replace(reading, work=Gap(GapReason.DEVICE_MISSING))
        energy_mj = reading.counters.get(_ENERGY)
        if energy_mj is None:
            return reading
        before_mj = self._energy_mj.get(uid)
        self._energy_mj[uid] = energy_mj
        if before_mj is not None and energy_mj < before_mj:
            self._not_ours_mj.pop(uid, None)  # the counter began anew
        elif before_mj is not None and fresh:
            self._not_ours_mj[uid] = energy_mj  # from zero: a counter that fell tells nothing of the time before
        left_mj = energy_mj - self._not_ours_mj.get(uid, 0)
        return replace(reading, counters={**reading.counters, _ENERGY: left_mj})
