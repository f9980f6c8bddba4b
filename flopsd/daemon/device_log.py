"""What the log says of devices that are lost and of their return."""

from __future__ import annotations

import logging
from fractions import Fraction

from flopsd.core.model import DeviceUid, GapReason
from flopsd.core.rounding import format_duration
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.telemetry.last_gap import GapKind, open_gap
from flopsd.telemetry.snapshot import DeviceState, Snapshot

log = logging.getLogger("flopsd")
PATIENCE_SECONDS = 5  # a reading or two may fail: that is a gap, and no news
REST_SECONDS = 600  # a device that comes and goes is logged once in this time
OF_SOURCE = (GapReason.SOURCE_DOWN, GapReason.SOURCE_SILENT)  # the source's own line says it of all its devices


class DeviceLog:
    """Logs that a device is lost, once it lasts, and that it is read again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lost_since_ns: dict[DeviceUid, int] = {}  # of those that were logged
        self._rests_until_ns: dict[DeviceUid, int] = {}

    def each_tick(self, snapshot: Snapshot) -> None:
        for device in snapshot.devices:
            uid, up = device.entry.device.uid, device.is_up
            if up is False:
                self._lost(device)
            elif up and (since_ns := self._lost_since_ns.pop(uid, None)) is not None:
                until_ns = device.tally.watermark_ns if device.gap is None else device.gap.until_ns
                log.warning("%s: is read again, after %s", _name(device), _time(until_ns - since_ns))

    def _lost(self, device: DeviceState) -> None:
        uid, now_ns = device.entry.device.uid, self._clock.boottime_ns()
        gap = open_gap(device.gap, device.tally.watermark_ns)
        if gap is None or gap.kind is not GapKind.LOST or gap.reason in OF_SOURCE or uid in self._lost_since_ns:
            return
        lasts_ns = gap.until_ns - gap.since_ns
        if lasts_ns < PATIENCE_SECONDS * NS_PER_S or now_ns < self._rests_until_ns.get(uid, 0):
            return
        self._lost_since_ns[uid] = gap.since_ns
        self._rests_until_ns[uid] = now_ns + REST_SECONDS * NS_PER_S
        from flopsd.report.coverage import REASONS  # only where it is needed: a daemon keeps what it loads

        reason = gap.reason.value
        log.error(
            '%s: no reading for %s: %s (%s); this time is a gap, which "at most" counts at the device\'s full speed; '
            "docs/runbook.md says under FlopsdDevicesBlind what helps",
            _name(device),
            _time(lasts_ns),
            reason,
            REASONS.get(reason, reason),
        )


def _name(device: DeviceState) -> str:
    return f"device {device.entry.device.index} ({device.entry.device.uid})"


def _time(ns: int) -> str:
    return format_duration(Fraction(ns, NS_PER_S))
