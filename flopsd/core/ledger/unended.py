"""A journal without an end, as of its seal: the time after its last record is a gap. Pure."""

from __future__ import annotations

from dataclasses import replace

from flopsd.core.ledger.history import GapInterval, History, Incarnation
from flopsd.core.ledger.open_accounts import has_ended, left_open
from flopsd.core.meter import advance
from flopsd.core.model import Gap, GapReason, Reading
from flopsd.core.values import utc_ns

_MAX_CHECKPOINTS = 2  # a running daemon's journal is never older


def as_of(history: History, sealed_at: str) -> History:
    """`history` with the time from its last record to the seal as a gap of every device of the last daemon start. For a
    device that an earlier start left open, that start's last record is used. Up to the time that a running daemon
    leaves between records, the gap has a ceiling. If it is longer, or the clock went back, the end of the run is
    unknown and the gap has no ceiling. Raises ValueError for anything but a time."""
    if all(map(has_ended, history.incarnations)):
        return history
    last = history.incarnations[-1]
    open_since = {uid: start for uid, start in left_open(history).items() if start.end is None}
    open_since |= dict.fromkeys([] if history.ended else last.tallies, last)
    if not open_since:
        return history
    starts = {start.number: (start, dict(start.tallies)) for start in history.incarnations}
    gaps = list(history.gaps)
    for uid, start in sorted(open_since.items(), key=lambda one: one[1].number):
        tallies, (reason, ns) = starts[start.number][1], _unknown_since(start, sealed_at)
        before = tallies[uid]
        gap = Reading("", before.watermark_ns, before.watermark_ns + ns, Gap(reason))
        tallies[uid] = after = advance(before, gap, None)
        gaps.append(GapInterval(start.number, uid, before.watermark_ns, after.watermark_ns, reason))
    return replace(
        history, incarnations=[replace(start, read=read, is_read=True) for start, read in starts.values()], gaps=gaps
    )


def _unknown_since(start: Incarnation, sealed_at: str) -> tuple[GapReason, int]:
    """The reason and length of the time after the last record of a daemon start."""
    age_ns = (utc_ns(sealed_at) // 1000 - utc_ns(start.last_utc) // 1000) * 1000
    is_known = 0 <= age_ns <= _MAX_CHECKPOINTS * int(start.begin["checkpoint_ns"])
    return GapReason.NOT_JOURNALLED if is_known else GapReason.END_UNKNOWN, max(age_ns, 1000)
