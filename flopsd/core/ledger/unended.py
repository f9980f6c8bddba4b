"""A journal without an end, as of the moment of its seal: what came after its last record is a gap. Pure."""

from __future__ import annotations

from dataclasses import replace

from flopsd.core.ledger.history import GapInterval, History
from flopsd.core.meter import advance
from flopsd.core.model import Gap, GapReason, Reading, Tally
from flopsd.core.values import utc_ns

_MAX_CHECKPOINTS = 2  # a running daemon's journal is never older


def as_of(history: History, sealed_at: str) -> History:
    """`history` with the time from its last record to the seal as a gap of every device of the last daemon start. Where
    that is no more than a running daemon leaves, the gap has a ceiling. Where it is more, or the clock went back,
    nobody knows when the run ended: the gap has none. Raises ValueError for what is not a time."""
    if history.ended or not history.incarnations:
        return history
    last = history.incarnations[-1]
    age_ns = (utc_ns(sealed_at) - utc_ns(last.last_utc)) // 1000 * 1000
    is_known = 0 <= age_ns <= _MAX_CHECKPOINTS * int(last.begin["checkpoint_ns"])
    reason = GapReason.NOT_JOURNALLED if is_known else GapReason.END_UNKNOWN
    tallies, gaps = dict(last.tallies), list(history.gaps)
    for entry in last.devices.values():
        uid = entry.device.uid
        before = tallies[uid]
        tallies[uid] = after = _with_gap(before, max(age_ns, 1000), reason)
        gaps.append(GapInterval(last.number, uid, before.watermark_ns, after.watermark_ns, reason))
    return replace(
        history, incarnations=[*history.incarnations[:-1], replace(last, read=tallies, is_read=True)], gaps=gaps
    )


def _with_gap(tally: Tally, ns: int, reason: GapReason) -> Tally:
    return advance(tally, Reading("", tally.watermark_ns, tally.watermark_ns + ns, Gap(reason)), None)
