"""Checks for records that no daemon writes: work before the first reading, falling totals, time in the future. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter, le
from typing import Any, TypeVar

from flopsd.core.ledger.tally_records import count, text
from flopsd.core.tally import TALLY_ABSOLUTES, TALLY_AMOUNTS, TALLY_MAPPINGS, Tally
from flopsd.errors import JournalDamagedError

K = TypeVar("K")
_amounts_of, _mappings_of = attrgetter(*TALLY_AMOUNTS), attrgetter(*TALLY_MAPPINGS)
_counted_of = attrgetter(
    *(one.name for one in fields(Tally) if one.name not in (*TALLY_ABSOLUTES, "begin_ns", "watermark_ns"))
)
_NOTHING = _counted_of(Tally(0, 0))
# How far in the future a reading may end: a source that timestamps its own readings has its own clock.
LEAD_NS = 1_000_000_000


def refuse_counted(start: Tally, since_ns: int | None) -> None:
    """Raise JournalDamagedError if a device's first record counts anything: it holds only the values from which
    counting continues. `since_ns` is when the first of the killed starts on this boot directly before this one began;
    None if an earlier start tracked the device."""
    if _counted_of(start) != _NOTHING:
        raise JournalDamagedError("a device has counts before its first reading", code="law_12")
    if since_ns is not None and start.begin_ns < since_ns:
        raise JournalDamagedError("a device's account begins before the first daemon start", code="law_12")


def refuse_time(before_ns: int, at_ns: int, *tallies: Tally) -> None:
    """Raise JournalDamagedError if time runs back from `before_ns` to a record's `at_ns`, or a tally is beyond it."""
    if at_ns < before_ns:
        raise JournalDamagedError(
            f"time runs backwards: the record is {before_ns - at_ns} ns before the previous one", code="law_13"
        )
    if any(tally.watermark_ns > at_ns + LEAD_NS for tally in tallies):
        raise JournalDamagedError("a device's account ends after the time of its record", code="law_13")


def refuse_context(context: Mapping[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError for anything that `Context.for_journal` does not write."""
    run, node = context["run"], context["node"]
    if (
        context.keys() != {"run", "node", "attempt"}
        or run.keys() != {"platform", "jobName", "jobArn"}
        or node.keys() != {"rank", "jobNodes", "instanceType"}
    ):
        raise ValueError("the context, its run or its node lacks a member or has an unknown one")
    if not isinstance(node["jobNodes"], list):
        raise ValueError("jobNodes must be a list")
    for value in (context["attempt"], run["platform"], *node["jobNodes"]):
        text(value)
    for value in (run["jobName"], run["jobArn"], node["instanceType"]):
        text("" if value is None else value)
    count(0 if node["rank"] is None else node["rank"])


def grew_from(before: Tally, after: Tally) -> bool:
    """Whether `after` can be a later state of the counter `before`."""
    return (
        before.begin_ns == after.begin_ns
        and before.watermark_ns <= after.watermark_ns
        and all(map(le, _amounts_of(before), _amounts_of(after)))
        and all(map(_grew, _mappings_of(before), _mappings_of(after)))
        and (before.energy_mj is None or (after.energy_mj is not None and before.energy_mj <= after.energy_mj))
        and all(name in after.phases and grew_from(share, after.phases[name]) for name, share in before.phases.items())
        and (before.watermark_ns < after.watermark_ns or before.recovered_ns != after.recovered_ns or before == after)
    )


def _grew(before: Mapping[K, int], after: Mapping[K, int]) -> bool:
    return not before or all(after.get(key, 0) >= value for key, value in before.items())
