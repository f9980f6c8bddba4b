"""The sources of one daemon start: their states, which source reads a device, and why a device is not read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.model import Device, DeviceUid, Gap, GapReason, Reading, Sweep
from flopsd.core.rounding import format_duration
from flopsd.daemon.accounts.mig_handover import MigChange, changes
from flopsd.errors import SourceUnavailableError
from flopsd.sources.arbitration import Arbiter
from flopsd.sources.registry import BUILT_IN, built_in, find
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.log_rest import LogRest
from flopsd.telemetry.health import REPLAYED
from flopsd.telemetry.snapshot import SourceState

log = logging.getLogger("flopsd")
OPENING_NS = 120 * NS_PER_S  # a source that is down is tried again each minute, and opening one may take long


class Message(NamedTuple):
    """What a source's thread sends to the writer: a sweep, or a fault in its place."""

    source: str
    at_ns: int
    devices: Sequence[Device] = ()
    sweep: Sweep | None = None
    fault: str = ""
    reason: GapReason = GapReason.SOURCE_DOWN
    absent: bool = False  # the source was only probed for, and this machine has no device of its kind
    none_here: bool = False  # this machine has none, whether or not the source was named
    read_seconds: float | None = None
    opened: Mapping[str, Any] | None = None  # facts of a source that was just opened, or that changed


def not_ours_at(message: Message, sweep: Sweep) -> int:
    """Return the time in ns as of which the devices of `sweep.not_ours` are another job's."""
    return message.at_ns if sweep.not_ours_at_ns is None else sweep.not_ours_at_ns


class SourceTracker:
    """What each source sent last. `note_failure`, `fell_silent`: whether another source may now read devices."""

    def __init__(self, names: Sequence[str], clock: Clock) -> None:
        self.states = {name: SourceState() for name in names}
        self.arbiter = Arbiter(names)
        self._clock = clock
        self._looked_ns: int | None = None  # when `fell_silent` was last called
        self._received_ns = dict.fromkeys(names, clock.boottime_ns())
        self.log_rest = LogRest(clock)
        self._silent: set[str] = set()  # sources whose silence was logged
        self._down: set[str] = set()  # sources whose failure was logged
        self._patience_ns: dict[str, int] = {}
        self._not_ours: dict[str, frozenset[DeviceUid]] = {}
        self._not_ours_at_ns: dict[str, int] = {}
        self._renamed: set[DeviceUid] = set()
        self._resolved: set[str] = set()  # sources that opened, or found that this machine has no device of their kind
        self._failed: set[str] = set()
        self._logged_no_device = False

    def continue_from(self, before: SourceTracker) -> None:
        """Continue from the tracker that this one replaces in the same daemon."""
        self._resolved |= before._resolved
        self.states |= {name: SourceState(replay=state.replay) for name, state in before.states.items()}

    def note_message(self, message: Message) -> None:
        """Note when a message came and whether its source is a replay, before the rest of it is read."""
        if message.source in self._silent:
            self._silent.remove(message.source)
            silent_ns = message.at_ns - self._received_ns[message.source]
            log.warning("source %s: answers again after %s", message.source, _time(silent_ns))
        self._received_ns[message.source] = message.at_ns
        if message.opened is not None:
            state, replay = self._state(message.source), bool(message.opened.get("replay"))
            if replay and not state.replay:
                log.warning("source %s: %s", message.source, REPLAYED)
            self.states[message.source] = replace(state, replay=replay)

    def note_devices(self, message: Message, sweep: Sweep) -> list[MigChange] | None:
        """Take in the list of a message. Return the GPUs listed as other devices than before; None: same list."""
        self._resolved.add(message.source)
        self._renamed |= sweep.renamed.keys()
        before = self.arbiter.offered(message.source)
        if not self.arbiter.offer(message.source, message.devices):
            return None
        others = sweep.not_ours | self._not_ours.get(message.source, frozenset())
        return changes(before, message.devices, sweep.renamed, others)

    def note_failure(self, message: Message) -> bool:
        """Note a message without a sweep."""
        (self._resolved if message.none_here else self._failed).add(message.source)
        state = self._state(message.source)
        is_logged = message.source in self._down and state.reason == message.fault
        if not is_logged and self.log_rest.is_due(message.source, message.fault):
            self._down.add(message.source)
            log.log(logging.DEBUG if message.absent else logging.ERROR, "source %s: %s", message.source, message.fault)
        self.states[message.source] = replace(
            state,
            up=False,
            absent=message.absent,
            reason=message.fault,
            errors=state.errors if message.absent else _with_errors(state.errors, [message.reason]),
            read_seconds=message.read_seconds,
        )
        if message.absent and not self._logged_no_device and all(other.absent for other in self.states.values()):
            self._logged_no_device = True
            log.error(
                "NOTHING IS METERED: no accelerator was found: %s; flopsd keeps looking; `flopsd doctor` shows how to "
                "fix each",
                "; ".join(other.reason for other in self.states.values()),
            )
        return self.arbiter.down(message.source)

    def note_sweep(self, message: Message, sweep: Sweep, counted: Sequence[Reading]) -> None:
        """Note a sweep and those of its readings that were counted."""
        state = self._state(message.source)
        self._failed.discard(message.source)
        if message.source in self._down:
            self._down.remove(message.source)
            log.log(logging.DEBUG if state.absent else logging.WARNING, "source %s: answers now", message.source)
        self._patience_ns[message.source] = sweep.patience_ns
        self._not_ours[message.source] = sweep.not_ours
        self._not_ours_at_ns[message.source] = not_ours_at(message, sweep)
        read = any(not isinstance(reading.work, Gap) for reading in sweep.readings)
        refused = [reading.work.reason for reading in counted if isinstance(reading.work, Gap)]
        self.states[message.source] = SourceState(  # constructed, not `replace`d, for speed: this runs for each sweep
            up=True,
            reason="",
            read_seconds=message.read_seconds,
            last_reading_ns=self._clock.boottime_ns() if read else state.last_reading_ns,
            errors=_with_errors(state.errors, [reason for reason in refused if reason is not GapReason.STARTING]),
            replay=state.replay,
            absent=False,
            child=sweep.child or state.child,
        )

    def unresolved(self, *, at_end: bool) -> dict[str, str]:
        """Return, by vendor, a source that has not opened, if no source of the vendor has opened or found that this
        machine has no such device: there may be unlisted ones. `at_end`: also take sources that are still opening."""
        waits_ns, now_ns = 0 if at_end else OPENING_NS, self._clock.boottime_ns()
        silent = [name for name in self.states if name not in self._resolved]
        silent = [one for one in silent if one in self._failed or now_ns - self._received_ns[one] >= waits_ns]
        resolved = {_vendor(name) for name in self._resolved} if silent else set()
        return {vendor: name for name in silent if (vendor := _vendor(name)) not in resolved}

    def fell_silent(self, now_ns: int, tolerance_ns: int) -> bool:
        """Mark sources as down that sent nothing for more than `tolerance_ns`. A call that does not return is logged
        once, even for a source that is down, unless the daemon itself stood still for more than that."""
        changed, stood_ns = False, 0 if self._looked_ns is None else now_ns - self._looked_ns
        self._looked_ns, stood_still = now_ns, stood_ns > tolerance_ns
        if stood_still:
            log.warning(
                "flopsd stood still for %s: it was stopped, or the machine was suspended or overloaded; what the "
                "counters do not cover of that time is a gap",
                _time(stood_ns),
            )
        for name, state in self.states.items():
            if stood_still and not state.up:
                self._received_ns[name] = now_ns  # it could not be retried meanwhile
            silent_ns = now_ns - self._received_ns.get(name, now_ns)
            is_silent = not stood_still and silent_ns > (tolerance_ns if state.up else OPENING_NS)
            if is_silent and name not in self._silent and self.log_rest.is_due(name):
                self._silent.add(name)
                log.error(
                    "source %s: no answer for %s: a call of its driver or server has not returned; the time of devices "
                    "that no other source reads is a gap until it does",
                    name,
                    _time(silent_ns),
                )
            if state.up and silent_ns > tolerance_ns:
                self.states[name] = replace(state, up=False, reason=GapReason.SOURCE_SILENT.value)
                changed = self.arbiter.down(name) or changed
        return changed

    def patience_ns(self, source: str) -> int:
        """Return how many ns after the end of an interval the source may report it."""
        return self._patience_ns.get(source, 0)

    def belongs_to_other_job(self, uid: DeviceUid, source: str) -> bool:
        """Whether the device was another job's when `source` last looked."""
        return uid in self._not_ours.get(source, ())

    def other_jobs_until_ns(self, source: str) -> int:
        """Return the time in ns until which the devices of other jobs are known to be theirs."""
        return self._not_ours_at_ns[source]

    def replaced(self, uids: Iterable[DeviceUid]) -> None:
        """Note that other devices are listed in place of these."""
        self._renamed.update(uids)

    def accounted_elsewhere(self, entry: DeviceEntry) -> GapReason | None:
        """Return why the time of an unread device is accounted for elsewhere, as of the newest sweep. None: the device
        is read, or its time is lost."""
        uid, parent = entry.device.uid, entry.device.parent
        if self.arbiter.is_in_slices(uid):
            return GapReason.METERED_AS_MIG
        if self.arbiter.best(uid) is not None or self.belongs_to_other_job(uid, entry.source):
            return None
        gpu_is_read = parent is not None and (
            self.arbiter.is_in_slices(parent) or self.arbiter.best(parent) is not None
        )
        return GapReason.REPLACED if gpu_is_read or uid in self._renamed else None

    def why_unread(self, entry: DeviceEntry, otherwise: GapReason) -> GapReason:
        """Return why there is no reading of a device; `otherwise` if its source is up and lists it."""
        if (reason := self.accounted_elsewhere(entry)) is not None:
            return reason
        uid, state = entry.device.uid, self.states.get(entry.source)
        if state is None or not state.up:
            silent = state is not None and state.reason == GapReason.SOURCE_SILENT.value
            return GapReason.SOURCE_SILENT if silent else GapReason.SOURCE_DOWN
        if self.arbiter.best(uid) is not None:
            return otherwise
        return GapReason.OTHER_JOB if self.belongs_to_other_job(uid, entry.source) else GapReason.DEVICE_MISSING

    def _state(self, name: str) -> SourceState:
        return self.states.get(name, SourceState())


def _vendor(source: str) -> str:
    try:
        return (built_in if source in BUILT_IN else find)(source).vendor or source
    except SourceUnavailableError:
        return source


def _time(ns: int) -> str:
    return format_duration(Fraction(ns, NS_PER_S))


def _with_errors(errors: Mapping[str, int], reasons: Sequence[GapReason]) -> dict[str, int]:
    found = dict(errors)
    for reason in reasons:
        found[reason.value] = found.get(reason.value, 0) + 1
    return found
