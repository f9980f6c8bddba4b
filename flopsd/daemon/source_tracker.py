"""The sources of one incarnation: how each stands, which of them reads a device, and why a device is not read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flopsd.core.ledger.journal_codec import DeviceEntry
from flopsd.core.model import Device, DeviceUid, Gap, GapReason, Reading, Sweep
from flopsd.daemon.handover import MigChange, changes
from flopsd.sources.arbitration import Arbiter
from flopsd.system.clock import Clock
from flopsd.telemetry.snapshot import SourceState

log = logging.getLogger("flopsd")


@dataclass(frozen=True, slots=True)
class Message:
    """What a pump sends: a sweep, or the reason why there is none."""

    source: str
    at_ns: int
    devices: Sequence[Device] = ()
    sweep: Sweep | None = None
    fault: str = ""
    reason: GapReason = GapReason.SOURCE_DOWN
    absent: bool = False  # nothing of the source's kind is on this machine
    read_seconds: float | None = None
    opened: Mapping[str, Any] | None = None  # facts of a source that was just opened


class SourceTracker:
    """What each source sent last. Where a method gives a bool: whether devices may have another reader now."""

    def __init__(self, names: Sequence[str], clock: Clock) -> None:
        self.states = {name: SourceState() for name in names}
        self.roster = Arbiter(names)
        self._clock = clock
        self._heard_ns: dict[str, int] = {}
        self._patience_ns: dict[str, int] = {}
        self._not_ours: dict[str, frozenset[DeviceUid]] = {}
        self._renamed: set[DeviceUid] = set()
        self._told_nothing = False

    def heard(self, message: Message) -> None:
        """Anything came, before it is looked at."""
        self._heard_ns[message.source] = message.at_ns
        if message.opened is not None:
            state = self._state(message.source)
            self.states[message.source] = replace(state, replay=bool(message.opened.get("replay")))

    def changes(self, message: Message, sweep: Sweep) -> list[MigChange]:
        """What the message lists in others' place, before the roster hears of it."""
        self._renamed |= sweep.renamed.keys()
        others = sweep.not_ours | self._not_ours.get(message.source, frozenset())
        return changes(self.roster.offered(message.source), message.devices, sweep.renamed, others)

    def failed(self, message: Message) -> bool:
        """There is no sweep."""
        state = self._state(message.source)
        if state.reason != message.fault:
            log.log(logging.DEBUG if message.absent else logging.ERROR, "source %s: %s", message.source, message.fault)
        self.states[message.source] = replace(
            state,
            up=False,
            absent=message.absent,
            reason=message.fault,
            errors=state.errors if message.absent else _more(state.errors, [message.reason]),
            read_seconds=message.read_seconds,
        )
        if message.absent and not self._told_nothing and all(other.absent for other in self.states.values()):
            self._told_nothing = True
            told = "; ".join(other.reason for other in self.states.values())
            log.error(
                "NOTHING IS METERED: no accelerator is found here: %s; `flopsd doctor` says what to do about each", told
            )
        return self.roster.down(message.source)

    def swept(self, message: Message, sweep: Sweep, counted: Sequence[Reading]) -> None:
        """There is a sweep; `counted` are the readings of it that were taken."""
        state = self._state(message.source)
        self._patience_ns[message.source] = sweep.patience_ns
        self._not_ours[message.source] = sweep.not_ours
        read = any(not isinstance(reading.work, Gap) for reading in sweep.readings)
        refused = [reading.work.reason for reading in counted if isinstance(reading.work, Gap)]
        self.states[message.source] = replace(
            state,
            up=True,
            absent=False,
            reason="",
            errors=_more(state.errors, [reason for reason in refused if reason is not GapReason.STARTING]),
            read_seconds=message.read_seconds,
            last_reading_wall_ns=self._clock.wall_ns() if read else state.last_reading_wall_ns,
        )

    def fell_silent(self, now_ns: int, tolerance_ns: int) -> bool:
        """Take sources for down that sent nothing for more than `tolerance_ns`."""
        news = False
        for name, state in self.states.items():
            if state.up and now_ns - self._heard_ns.get(name, now_ns) > tolerance_ns:
                self.states[name] = replace(state, up=False, reason=GapReason.SOURCE_SILENT.value)
                news = self.roster.down(name) or news
        return news

    def patience_ns(self, source: str) -> int:
        """How much later than others a source may tell of a device."""
        return self._patience_ns.get(source, 0)

    def is_anothers(self, uid: DeviceUid, source: str) -> bool:
        """Whether the device was another job's when `source` last looked."""
        return uid in self._not_ours.get(source, ())

    def elsewhere(self, entry: DeviceEntry) -> GapReason | None:
        """Why nothing of a device's time is missing though it is not read, as far as was last told; None: it is."""
        uid, parent = entry.device.uid, entry.device.parent
        if self.roster.is_in_slices(uid):
            return GapReason.IN_SLICES
        if self.roster.best(uid) is not None or self.is_anothers(uid, entry.source):
            return None
        gpu_is_read = parent is not None and (self.roster.is_in_slices(parent) or self.roster.best(parent) is not None)
        return GapReason.REPLACED if gpu_is_read or uid in self._renamed else None

    def why_unread(self, entry: DeviceEntry, otherwise: GapReason) -> GapReason:
        """Why nobody tells of a device; `otherwise` where its source is up and lists it."""
        if (reason := self.elsewhere(entry)) is not None:
            return reason
        uid, state = entry.device.uid, self.states.get(entry.source)
        if state is None or not state.up:
            silent = state is not None and state.reason == GapReason.SOURCE_SILENT.value
            return GapReason.SOURCE_SILENT if silent else GapReason.SOURCE_DOWN
        if self.roster.best(uid) is not None:
            return otherwise
        return GapReason.NOT_OURS if self.is_anothers(uid, entry.source) else GapReason.DEVICE_MISSING

    def _state(self, name: str) -> SourceState:
        return self.states.get(name, SourceState())


def _more(errors: Mapping[str, int], reasons: Sequence[GapReason]) -> dict[str, int]:
    found = dict(errors)
    for reason in reasons:
        found[reason.value] = found.get(reason.value, 0) + 1
    return found
