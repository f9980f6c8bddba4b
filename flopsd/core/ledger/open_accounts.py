"""Devices whose account a killed daemon start left open. A later start continues it, leaving no time out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from flopsd.core.ledger.history import GapInterval, History, Incarnation
from flopsd.core.ledger.start_notes import ROTATED
from flopsd.core.model import DeviceUid, GapReason
from flopsd.core.tally import Tally
from flopsd.core.values import seconds, utc_ns
from flopsd.errors import JournalDamagedError

TAKEN_OVER = (GapReason.METERED_AS_MIG, GapReason.REPLACED)


class _Account(NamedTuple):
    """A device in one daemon start. `before` is the start that left its account open. `retired`: its machine is gone,
    and the device was accounted for only up to this start."""

    uid: DeviceUid
    start: Incarnation
    before: Incarnation | None
    retired: bool
    is_open: bool


def _accounts(history: History) -> Iterator[_Account]:
    """The devices of each daemon start, in order."""
    gaps, boots, left = last_gaps(history), dict[DeviceUid, str](), dict[DeviceUid, Incarnation]()
    for start in history.incarnations:
        number, boot_id, ended = start.number, start.boot_id, has_ended(start)
        for uid, tally in start.tallies.items():
            before = left.pop(uid, None)
            moved = boots.get(uid, boot_id) != boot_id
            retired = bool(start.checkpoints) and moved and tally.watermark_ns <= start.begin["ns"]
            is_open = not (ended or retired or is_taken_over(gaps.get((number, uid)), tally))
            boots[uid] = boot_id
            if is_open:
                left[uid] = start
            yield _Account(uid, start, before, retired, is_open)


def has_ended(start: Incarnation) -> bool:
    """Whether the daemon start ended, rather than only its segment."""
    return start.end is not None and start.end["reason"] != ROTATED


def is_taken_over(gap: GapInterval | None, tally: Tally) -> bool:
    """Whether a device ended as metered under other devices; `gap` is its last gap."""
    return gap is not None and gap.reason in TAKEN_OVER and gap.end_ns == tally.watermark_ns


def last_gaps(history: History) -> dict[tuple[int, DeviceUid], GapInterval]:
    """The last gap of each device in each daemon start."""
    return {(gap.incarnation, gap.device): gap for gap in history.gaps}


def read_until_ns(history: History) -> dict[tuple[int, DeviceUid], int]:
    """When each device in each daemon start was last read, or known to be metered under other devices."""
    starts = history.incarnations
    until = {(one.number, uid): tally.watermark_ns for one in starts for uid, tally in one.tallies.items()}
    for gap in reversed(history.gaps):
        key = gap.incarnation, gap.device
        if gap.end_ns == until[key] and gap.reason not in TAKEN_OVER:
            until[key] = gap.begin_ns
    return until


def left_open(history: History) -> Mapping[DeviceUid, Incarnation]:
    """The devices that are not accounted for to the end, each with the last daemon start that tracked it."""
    found: dict[DeviceUid, Incarnation] = {}
    for account in _accounts(history):
        found.pop(account.uid, None)  # keeps the order of their starts
        if account.is_open:
            found[account.uid] = account.start
    return found


def refuse_missing_time(history: History) -> None:
    """Raise JournalDamagedError if the journal leaves out time of a device: before an end, or between a killed daemon
    start and the next one with the device."""
    for uid, start, before, retired, _ in _accounts(history):
        tally, end = start.tallies[uid], start.end
        since_ns = None if before is None else _continues_at_ns(before, uid, start)
        if since_ns is not None and tally.begin_ns > since_ns:
            raise _left_out(uid, f"before daemon start {start.number}", tally.begin_ns - since_ns)
        if end is not None and has_ended(start) and not retired and tally.watermark_ns < end["ns"]:
            raise _left_out(uid, f"at the end of daemon start {start.number}", end["ns"] - tally.watermark_ns)


def _left_out(uid: DeviceUid, where: str, ns: int) -> JournalDamagedError:
    return JournalDamagedError(f"device {uid}: {seconds(ns)} s {where} are not accounted for", code="law_16")


def _continues_at_ns(before: Incarnation, uid: DeviceUid, start: Incarnation) -> int | None:
    """Where `start` must continue the account that `before` left open, on the clock of `start`; None: not recorded."""
    until_ns = before.tallies[uid].watermark_ns
    if before.boot_id == start.boot_id:
        return until_ns
    try:
        passed_ns = int(start.begin["wall_ns"]) - utc_ns(before.last_utc) // 1000 * 1000
    except ValueError:
        return None
    return 0 if passed_ns < 0 else int(start.begin["ns"]) - passed_ns - (before.last_ns - until_ns)
