"""A journal without an end, as of the moment of its seal: what came after its last record is a gap. Pure."""

from __future__ import annotations

import re
from calendar import timegm
from dataclasses import replace

from flopsd.core.ledger.history import GapInterval, History
from flopsd.core.meter import advance
from flopsd.core.model import Gap, GapReason, Reading, Tally
from flopsd.errors import JournalDamagedError

_UTC = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})Z", re.ASCII)
_MAX_CHECKPOINTS = 2  # a running daemon's journal is never older


def as_of(history: History, sealed_at: str) -> History:
    """`history` with the time from its last record to the seal as a gap of every device of the last daemon start.

    Where that is no more than a running daemon leaves, the gap has a ceiling. Where it is more, or the clock went back,
    nobody knows when the run ended: the gap has none.
    """
    if history.ended or not history.incarnations:
        return history
    last = history.incarnations[-1]
    age_ns = _ns_between(last.last_utc, sealed_at)
    is_known = 0 <= age_ns <= _MAX_CHECKPOINTS * int(last.begin["checkpoint_ns"])
    reason = GapReason.NOT_JOURNALLED if is_known else GapReason.END_UNKNOWN
    tallies, gaps = dict(last.tallies), list(history.gaps)
    for entry in last.devices.values():
        uid = entry.device.uid
        before = tallies[uid]
        tallies[uid] = after = _with_gap(before, max(age_ns, 1000), reason)
        gaps.append(GapInterval(last.number, uid, before.watermark_ns, after.watermark_ns, reason))
    return replace(history, incarnations=[*history.incarnations[:-1], replace(last, tallies=tallies)], gaps=gaps)


def _with_gap(tally: Tally, ns: int, reason: GapReason) -> Tally:
    return advance(tally, Reading("", tally.watermark_ns, tally.watermark_ns + ns, Gap(reason)), None)


def _ns_between(before: str, after: str) -> int:
    """Between two times such as 2026-11-26T09:05:00.000001Z. Raises JournalDamagedError for another form."""
    return _unix_ns(after) - _unix_ns(before)


def _unix_ns(text: str) -> int:
    match = _UTC.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        *date, microseconds = map(int, match.groups())
        return (timegm((*date, 0, 0, 0)) * 1_000_000 + microseconds) * 1000
    except ValueError as fault:
        raise JournalDamagedError(f"{text!r:.60} is no time in UTC with microseconds") from fault
