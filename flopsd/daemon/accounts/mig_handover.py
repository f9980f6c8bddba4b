"""A GPU that is listed as other devices than before: as MIG slices, as a whole again, or under another name.

The GPU's time is counted without a hole and without an overlap: a device that is no longer listed is accounted for up
to the moment at which its replacement begins.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.model import Device, DeviceUid, GapReason, Sweep
from flopsd.core.phases import ActivePhase
from flopsd.daemon.accounts.tracked_device import TrackedDevice


class MigChange(NamedTuple):
    """The devices of one GPU that a source no longer lists, and those that it lists instead."""

    removed: tuple[DeviceUid, ...]
    added: tuple[Device, ...]
    renamed: bool  # the same device under another name


def changes(
    before: Sequence[Device], after: Sequence[Device], renamed: Mapping[DeviceUid, Device], others: Container[DeviceUid]
) -> list[MigChange]:
    """Return the GPUs that a source now lists as other devices. `others`: devices that are or were other jobs'; they
    replace none of this job's."""

    def by_gpu(listed: Sequence[Device]) -> dict[DeviceUid, dict[DeviceUid, Device]]:
        found: dict[DeviceUid, dict[DeviceUid, Device]] = {}
        for device in listed:
            if device.uid not in others:
                known = renamed.get(device.uid, device)
                found.setdefault(known.parent or known.uid, {})[device.uid] = device
        return found

    old, new = by_gpu(before), by_gpu(after)
    return [
        MigChange(
            removed := tuple(uid for uid in old[gpu] if uid not in new[gpu]),
            tuple(device for uid, device in new[gpu].items() if uid not in old[gpu]),
            any(uid in renamed for uid in removed),
        )
        for gpu in old
        if gpu in new and old[gpu].keys() != new[gpu].keys()
    ]


def hand_over(
    changed: Iterable[MigChange], tracked: Mapping[DeviceUid, TrackedDevice], sweep: Sweep, at_ns: int,
    elsewhere: Callable[[DeviceEntry], GapReason | None], active_phase: ActivePhase,
) -> dict[DeviceUid, int]:  # fmt: skip
    """Close the accounts of removed devices. Return the time in ns at which each new device begins: the last reading of
    the whole GPU it replaces, or else the beginning of its own first reading; the earlier of the two if it replaces a
    slice, since that does not bound the work of a larger device. `elsewhere` returns why the time of a device that is
    no longer read is accounted for elsewhere."""
    begin_ns: dict[DeviceUid, int] = {}
    for change in changed:
        old = [tracked[uid] for uid in change.removed if uid in tracked]
        for one in old:
            one.give_up_held(active_phase)
        removed = [(one, reason) for one in old if (reason := elsewhere(one.entry)) is not None]
        added = {device.uid for device in change.added}
        first_ns = min((reading.begin_ns for reading in sweep.readings if reading.device in added), default=at_ns)
        until_ns = max((one.tally.watermark_ns for one, _ in removed), default=first_ns)
        for one, reason in removed:
            one.count_gap(until_ns, GapReason.DEVICE_MISSING, active_phase)
            one.count_gap(at_ns, reason, active_phase)
        if any(one.entry.device.parent is not None for one, _ in removed):
            until_ns = min(until_ns, first_ns)
        for device in change.added:
            if device.uid not in tracked:
                begin_ns[device.uid] = until_ns
            elif not change.renamed:  # it has come back; a renamed device was accounted for all along
                reason = GapReason.METERED_AS_MIG if device.parent is None else GapReason.REPLACED
                tracked[device.uid].count_gap(until_ns, reason, active_phase)
    return begin_ns
