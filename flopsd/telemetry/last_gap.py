"""The newest gap of a device: since when, for which reason, and the state that this implies. Pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from flopsd.core.model import ACCOUNTED_ELSEWHERE, GapReason
from flopsd.core.tally import Tally


class GapKind(Enum):
    """The state of a device that a gap implies."""

    LOST, UNKNOWN, STARTING, ELSEWHERE = range(4)


_KINDS = {
    **dict.fromkeys(ACCOUNTED_ELSEWHERE, GapKind.ELSEWHERE),
    **dict.fromkeys(
        (GapReason.STARTING, GapReason.STOPPING, GapReason.DAEMON_DOWN, GapReason.JOURNAL_REPLACED), GapKind.STARTING
    ),
    GapReason.UNKNOWN_DEVICE: GapKind.UNKNOWN,
}


def kind_of(reason: GapReason) -> GapKind:
    return _KINDS.get(reason, GapKind.LOST)


class LastGap(NamedTuple):
    """The newest gap of a device, joined with the adjacent earlier gaps of the same kind. Times are boot time."""

    since_ns: int
    until_ns: int
    reason: GapReason

    @property
    def kind(self) -> GapKind:
        return kind_of(self.reason)


def not_read_yet(tally: Tally) -> LastGap:
    """The gap of a device before its first reading."""
    return LastGap(tally.begin_ns, tally.begin_ns, GapReason.STARTING)


def open_gap(gap: LastGap | None, watermark_ns: int) -> LastGap | None:
    """The gap if it reaches to `watermark_ns`, the end of the device's last reading; None: that reading was no gap."""
    return gap if gap is not None and gap.until_ns == watermark_ns else None


def last_gap(before: LastGap | None, begin_ns: int, end_ns: int, reason: GapReason) -> LastGap:
    """The newest gap after one more: it extends `before` if that is of the same kind and no reading lies between."""
    new = LastGap(begin_ns, end_ns, reason)
    if before is None or before.until_ns != begin_ns or before.kind is not new.kind:
        return new
    return LastGap(before.since_ns, end_ns, reason)
