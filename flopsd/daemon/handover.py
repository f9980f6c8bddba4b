"""Devices that stand in others' place: new slices of a GPU, a GPU without its slices, a device by its name.

The GPU's time goes on without a hole and without an overlap: what went is accounted for up to the moment at which what
came begins, and elsewhere from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flopsd.core.ledger.journal_codec import DeviceEntry
from flopsd.core.model import Device, DeviceUid, GapReason, Sweep
from flopsd.core.phases import ActivePhase
from flopsd.daemon.device_tracker import TrackedDevice


@dataclass(frozen=True, slots=True)
class MigChange:
    """What a source lists of one GPU in place of what it listed of it before."""

    gone: tuple[DeviceUid, ...]
    come: tuple[Device, ...]
    renamed: bool  # what went was only a name


def changes(
    before: Sequence[Device],
    after: Sequence[Device],
    renamed: Mapping[DeviceUid, Device],
    others: Container[DeviceUid],
) -> list[MigChange]:
    """The GPUs of which a source lists something else now. A device that is or was one of `others`, other jobs', has
    taken nobody's place."""

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
            gone := tuple(uid for uid in old[gpu] if uid not in new[gpu]),
            tuple(device for uid, device in new[gpu].items() if uid not in old[gpu]),
            any(uid in renamed for uid in gone),
        )
        for gpu in old
        if gpu in new and old[gpu].keys() != new[gpu].keys()
    ]


def hand_over(
    changed: Iterable[MigChange],
    watched: Mapping[DeviceUid, TrackedDevice],
    sweep: Sweep,
    at_ns: int,
    elsewhere: Callable[[DeviceEntry], GapReason | None],
    in_force: ActivePhase,
) -> dict[DeviceUid, int]:
    """Close what went, and say where each device begins that came: where the last of what went was read last, else
    where its own first reading begins. `elsewhere` says who accounts for a device that is not read any more."""
    begin_ns: dict[DeviceUid, int] = {}
    for change in changed:
        old = [watched[uid] for uid in change.gone if uid in watched]
        gone = [(one, reason) for one in old if (reason := elsewhere(one.entry)) is not None]
        come = {device.uid for device in change.come}
        first_ns = min((reading.begin_ns for reading in sweep.readings if reading.device in come), default=at_ns)
        until_ns = max((one.state.tally.watermark_ns for one, _ in gone), default=first_ns)
        for one, reason in gone:
            one.count_gap(until_ns, GapReason.DEVICE_MISSING, in_force)
            one.count_gap(at_ns, reason, in_force)
        for device in change.come:
            if device.uid not in watched:
                begin_ns[device.uid] = until_ns
            elif not change.renamed:  # it comes back; one that has got its name was accounted for by itself
                reason = GapReason.IN_SLICES if device.parent is None else GapReason.REPLACED
                watched[device.uid].count_gap(until_ns, reason, in_force)
    return begin_ns
