"""Logs the loss and the return of devices, and declarations for devices that are not here."""

from __future__ import annotations

import logging
from collections.abc import Collection
from fractions import Fraction

from flopsd.core.model import DeviceUid, GapReason
from flopsd.core.rounding import format_duration
from flopsd.daemon.writing.writer_settings import device_names
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.log_rest import LogRest
from flopsd.telemetry.last_gap import GapKind, LastGap, open_gap
from flopsd.telemetry.snapshot import DeviceState, Snapshot

log = logging.getLogger("flopsd")
PATIENCE_SECONDS = 5  # a failed reading or two is a gap, but not worth a log line
# Other log lines name the cause: of the source, for all its devices; of `--devices`, or of a wall clock that was set.
LOGGED_ELSEWHERE = (GapReason.SOURCE_DOWN, GapReason.SOURCE_SILENT, GapReason.MISSED_READING)


class DeviceLog:
    """Logs that a device is lost, once that has lasted, and that it is read again. Also logs once which names in
    `declared` (--device-precision) no device here has: a typing error would leave a device with another format."""

    def __init__(self, clock: Clock, declared: Collection[str] = ()) -> None:
        self._clock, self._declared = clock, declared
        self._due_ns = clock.boottime_ns() + PATIENCE_SECONDS * NS_PER_S
        self._lost: dict[DeviceUid, LastGap] = {}  # the logged gaps of devices that are not read again yet
        self._rest = LogRest(clock)

    def each_tick(self, snapshot: Snapshot) -> None:
        if self._declared and snapshot.devices and self._clock.boottime_ns() >= self._due_ns:
            here = [state.entry.device for state in snapshot.devices]
            known = {name for device in here for name in device_names(device)}
            if absent := [name for name in self._declared if name.casefold() not in known]:
                log.warning(
                    "--device-precision: no device here is called %s; devices here: %s",
                    ", ".join(absent),
                    ", ".join(f"{device.index} ({device.uid})" for device in here),
                )
            self._declared = ()
        for device in snapshot.devices:
            gap = open_gap(device.gap, device.tally.watermark_ns)
            if gap is None:
                if self._lost and (lost := self._lost.pop(device.entry.device.uid, None)) is not None:
                    log.warning("%s: is read again after %s", _name(device), _time(lost))
            elif gap.kind is GapKind.LOST and gap.reason not in LOGGED_ELSEWHERE:
                self._note(device, gap)

    def _note(self, device: DeviceState, gap: LastGap) -> None:
        uid = device.entry.device.uid
        if uid not in self._lost:
            if gap.until_ns - gap.since_ns < PATIENCE_SECONDS * NS_PER_S or not self._rest.is_due(uid):
                return
            self._log(device, gap)
        self._lost[uid] = gap

    def _log(self, device: DeviceState, gap: LastGap) -> None:
        from flopsd.report.contents.coverage import REASONS  # only when needed: the daemon keeps it in memory

        reason = gap.reason.value
        is_known = device.entry.part_id is not None
        log.error(
            "%s: no reading for %s: %s (%s); this time is a gap, %s; for what helps see FlopsdDevicesBlind in "
            "docs/runbook.md",
            _name(device),
            _time(gap),
            reason,
            REASONS.get(reason, reason),
            'for which "at most" takes the device\'s full speed' if is_known else "which has no upper bound",
        )


def _name(device: DeviceState) -> str:
    return f"device {device.entry.device.index} ({device.entry.device.uid})"


def _time(gap: LastGap) -> str:
    return format_duration(Fraction(gap.until_ns - gap.since_ns, NS_PER_S))
