"""The times that a ledger states: that they are times at all, and which of them cannot all be true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from flopsd.core.values import utc_ns
from flopsd.system.clock import NS_PER_S, rfc3339

TOLERANCE_NS = 60 * NS_PER_S  # clocks that are kept by NTP differ by less
_NOT_TRUE = "or the time of the seal is not true"


def refuse_malformed_times(predicate: Mapping[str, Any]) -> None:
    """Raises ValueError, LookupError or TypeError if a time of the ledger is none. The statement repeats what the
    journal's records say."""
    for time in _times(predicate):
        utc_ns(time)


def _times(predicate: Mapping[str, Any]) -> Iterator[Any]:
    method = predicate["method"]
    yield method["sealedAt"]
    if predicate["kind"] == "node":
        yield method["journal"]["lastRecordAt"]
        spans = predicate["incarnations"]
        if not isinstance(spans, list):
            raise TypeError("incarnations is not a list")
    else:
        spans = chain([predicate], predicate["children"])
    for span in spans:
        yield span["startedAt"]
        yield span["lastRecordAt"]


def seal_time_doubts(predicate: Mapping[str, Any], now_ns: int | None = None) -> list[str]:
    """Why the time of the seal is not to be relied on; empty if nothing speaks against it. Wall clocks step and may be
    wrong, here too, so that none of this makes a ledger invalid. `now_ns`: the verifier's time; None: do not compare.
    Raises ValueError or LookupError for a malformed ledger."""
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
    """A time as RFC 3339, to the second below."""
    return f"{rfc3339(wall_ns)[:19]}Z"
