"""Which source reads which device, where more than one can.

An A100 is seen by NVML, which bounds it, and by a dcgm-exporter, which measures it. One of them counts:
the one with the strongest evidence of those that answer, at equal strength the one named first.
"""

from __future__ import annotations

from collections.abc import Sequence

from flopsd.core.model import Device, DeviceUid, Evidence

_STRENGTH = {evidence: rank for rank, evidence in enumerate(Evidence)}


class Arbiter:
    """What each source offers, and which offer is taken for each device."""

    def __init__(self, order: Sequence[str]) -> None:
        self._order = {name: at for at, name in enumerate(order)}
        self._offers: dict[str, tuple[Device, ...]] = {}
        self._of_device: dict[DeviceUid, dict[str, Device]] = {}
        self._down: set[str] = set()
        self._parents: set[DeviceUid] = set()

    def offer(self, source: str, devices: Sequence[Device]) -> bool:
        """Replace what a source listed before by what it lists now; whether anything changed."""
        was_down = source in self._down
        self._down.discard(source)
        offered = tuple(devices)
        if not was_down and self._offers.get(source) == offered:
            return False
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
        """Whether MIG slices of the device are offered: they are read, and the whole never beside them."""
        return uid in self._parents

    def down(self, source: str) -> bool:
        """The source does not answer: any other that offers its devices comes first. Whether it was up until now."""
        if source in self._down:
            return False
        self._down.add(source)
        return True

    def best(self, uid: DeviceUid) -> tuple[str, Device] | None:
        """The source that a device is read from, with the device as it describes it; None: no source lists it, or
        its slices are read."""
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
