"""The times in a ledger: refuse malformed ones, and report those that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from flopsd.core.values import utc_ns
from flopsd.system.clock import NS_PER_S, rfc3339

TOLERANCE_NS = 60 * NS_PER_S  # clocks synchronized by NTP differ by less
_NOT_TRUE = "or the time of the seal is not true"


def refuse_malformed_times(predicate: Mapping[str, Any]) -> None:
    """Raises ValueError, LookupError or TypeError if a time of the ledger cannot be read. The statement repeats the
    times of the journal's records."""
    for time in _times(predicate):
        utc_ns(time)


def _times(predicate: Mapping[str, Any]) -> Iterator[Any]:
    method = predicate["method"]
    yield method["sealedAt"]
    if predicate["kind"] == "node":
        yield method["journal"]["lastRecordAt"]
        spans = predicate["incarnations"]
        if not isinstance(spans, list):
            raise ValueError("incarnations is not a list")
    else:
        spans = chain([predicate], predicate["children"])
    for span in spans:
        yield span["startedAt"]
        yield span["lastRecordAt"]


def seal_time_doubts(predicate: Mapping[str, Any], now_ns: int | None = None) -> list[str]:
    """The reasons to doubt the time of the seal. None of them makes a ledger invalid, since wall clocks step and may be
    wrong, the verifier's too. `now_ns`: Unix nanoseconds of the verifier's clock; None: do not compare. Raises
    ValueError or LookupError for a malformed ledger."""
    sealed_ns = utc_ns(predicate["method"]["sealedAt"])
    spans = predicate["incarnations"] if predicate["kind"] == "node" else [predicate]
    begin_ns = min((utc_ns(span["startedAt"]) for span in spans), default=sealed_ns)
    last_ns = max((utc_ns(span["lastRecordAt"]) for span in spans), default=sealed_ns)
    sealed = f"the seal is of {short_utc(sealed_ns)}"
    doubts = []
    if now_ns is not None and sealed_ns > now_ns + TOLERANCE_NS:
        doubts.append(f"{sealed}, and here it is {short_utc(now_ns)}: one of the two clocks is wrong, {_NOT_TRUE}")
    for name, record_ns in (("first", begin_ns), ("last", last_ns)):
        if sealed_ns < record_ns - TOLERANCE_NS:
            record = f"the {name} record of {short_utc(record_ns)}"
            doubts.append(f"{sealed}, and {record}: a clock was wrong or was set back, {_NOT_TRUE}")
            break
    return doubts


def short_utc(wall_ns: int) -> str:
    """Unix nanoseconds as RFC 3339, rounded down to a second."""
    return f"{rfc3339(wall_ns)[:19]}Z"
