"""Decides which source reads a device that more than one can read.

Both NVML and a dcgm-exporter list an A100: the first only bounds its work, the second measures it. One source counts:
of those that answer, the one with the strongest evidence; at equal strength, the one named first.
"""

from __future__ import annotations

from collections.abc import Sequence

from flopsd.core.model import Device, DeviceUid, Evidence

_STRENGTH = {evidence: rank for rank, evidence in enumerate(Evidence)}


class Arbiter:
    """The devices that each source offers, and the offer that is taken for each device."""

    def __init__(self, order: Sequence[str]) -> None:
        self._order = {name: at for at, name in enumerate(order)}
        self._offers: dict[str, tuple[Device, ...]] = {}
        self._of_device: dict[DeviceUid, dict[str, Device]] = {}
        self._down: set[str] = set()
        self._parents: set[DeviceUid] = set()
        self._best: dict[DeviceUid, tuple[str, Device] | None] = {}  # as found since an offer or a fault changed any

    def offer(self, source: str, devices: Sequence[Device]) -> bool:
        """Replace the devices that a source listed before by those it lists now; return whether anything changed."""
        was_down = source in self._down
        self._down.discard(source)
        offered = tuple(devices)
        if not was_down and self._offers.get(source) == offered:
            return False
        self._best.clear()
        for earlier in self._offers.get(source, ()):
            self._of_device[earlier.uid].pop(source, None)
        for device in offered:
            self._of_device.setdefault(device.uid, {})[source] = device
        self._offers[source] = offered
        self._parents = {device.parent for offers in self._offers.values() for device in offers if device.parent}
        return True

    def offered(self, source: str) -> tuple[Device, ...]:
        return self._offers.get(source, ())

    def is_in_slices(self, uid: DeviceUid) -> bool:
        """Whether MIG slices of the device are offered: then they are read, and never the whole device."""
        return uid in self._parents

    def down(self, source: str) -> bool:
        """Prefer any other source for the devices of one that does not answer; return whether it was up until now."""
        if source in self._down:
            return False
        self._down.add(source)
        self._best.clear()
        return True

    def best(self, uid: DeviceUid) -> tuple[str, Device] | None:
        """Return the source that a device is read from, and the device as that source describes it. None: no source
        lists it, or its slices are read."""
        if uid not in self._best:
            self._best[uid] = self._find_best(uid)
        return self._best[uid]

    def _find_best(self, uid: DeviceUid) -> tuple[str, Device] | None:
        offers = self._of_device.get(uid)
        if not offers or uid in self._parents:
            return None
        return min(
            offers.items(),
            key=lambda offer: (
                offer[0] in self._down,
                _STRENGTH[offer[1].evidence],
                self._order.get(offer[0], len(self._order)),
            ),
        )
