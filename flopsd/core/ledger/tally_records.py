"""Conversion of tallies to plain JSON (ints and strings only) and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

from flopsd.core.ledger.steady import DEPTH
from flopsd.core.model import READ, Evidence, GapReason, Pipe, Totals
from flopsd.core.phases import split_bucket
from flopsd.core.tally import Tally
from flopsd.core.values import shown

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
Record = Mapping[str, Any]
# Looked up by value: a journal has millions of them, and calling the enumeration takes five times as long.
EVIDENCE: Mapping[str, Evidence] = {one.value: one for one in Evidence if one in READ}
_OF_TALLY = {name: one for name, one in EVIDENCE.items() if one is not Evidence.GAP}
_REASON = {one.value: one for one in GapReason}
_PIPE = {one.value: one for one in Pipe}
_BY_KEY: Mapping[str, Mapping[str, Any]] = {  # same names in record and tally, with the enumeration of their keys
    "observed_ns": _OF_TALLY,
    "gap_ns": _REASON,
    "recovered_ns": _OF_TALLY,
    "unread_ns": _PIPE,
}
_BY_EVIDENCE = {
    "sm_cycles": "active_sm_cycles",
    "uncertainty_sm_cycles": "uncertainty_sm_cycles",
    "square_sum": "square_sum",
}
_NOT_ZERO = ("busy_sm_cycles", "sampled_busy_sm_cycles", "clocked_sm_cycles", "clocked_square_sum", "energy_ns")
_AMOUNTS = {*_NOT_ZERO, "counted_flop", "energy_mj"}
_OF_TALLIES = {*_BY_KEY, *_BY_EVIDENCE, *_AMOUNTS, "counters", "running", "phases"}


def tally_columns(tallies: Sequence[Tally]) -> dict[str, Any]:
    """Running totals as JSON: the record of one tally, with each amount replaced by a list of one value for each of
    `tallies`, None where a tally lacks the amount. Each member is thus named once for all devices."""
    found: dict[str, Any] = {"to_ns": [tally.watermark_ns for tally in tallies]}
    for name in _BY_KEY:
        if any(maps := [getattr(tally, name) for tally in tallies]):
            found[name] = _by_key(maps)  # text, as all enumerations are
    for name, field in _BY_EVIDENCE.items():
        if any(maps := [getattr(tally, field) for tally in tallies]):
            by_evidence = found[name] = {}
            for (evidence, pipe), column in _by_key(maps).items():
                by_evidence.setdefault(evidence, {})[pipe] = column
    for name in _NOT_ZERO:
        if any(amounts := [getattr(tally, name) for tally in tallies]):
            found[name] = amounts
    counted = [tally.counted_flop for tally in tallies]
    if any(counted) or Evidence.COUNT in found.get("observed_ns", ()):
        found["counted_flop"] = counted
    energy = [tally.energy_mj for tally in tallies]
    if energy.count(None) < len(energy):
        found["energy_mj"] = energy
    if any(counters := [tally.counters for tally in tallies]):
        found["counters"] = _by_key(counters)
    energy_at_ns = [
        tally.energy_at_ns if tally.energy_at_ns != tally.watermark_ns and "energy_mj" in tally.counters else None
        for tally in tallies
    ]
    if energy_at_ns.count(None) < len(energy_at_ns):
        found["energy_at_ns"] = energy_at_ns
    if running := _running(tallies):
        found["running"] = running
    if any(phases := [tally.phases for tally in tallies]):
        found["phases"] = {name: _shares(shares) for name, shares in _by_key(phases).items()}
    return found


def _by_key(maps: Sequence[Mapping[K, T]]) -> dict[K, list[T | None]]:
    """For each key of any of `maps`, its value in each."""
    keys: dict[K, T] = {}
    for one in maps:
        keys.update(one)
    return {key: [one.get(key) for one in maps] for key in keys}


def _running(tallies: Sequence[Tally]) -> dict[str, Any]:
    """By origin: the time of reading, elapsed cycles, and each pipe."""
    read = [tally.totals for tally in tallies]
    found: dict[str, Any] = {}
    for origin in dict.fromkeys([one.origin for one in read if one is not None]):
        here = [one if one is not None and one.origin == origin else None for one in read]
        found[origin] = {
            "ns": [None if one is None else tally.totals_ns for tally, one in zip(tallies, here, strict=True)],
            "elapsed": [None if one is None else one.elapsed_sm_cycles for one in here],
            **_by_key([{} if one is None else one.sm_cycles for one in here]),
        }
    return found


def _shares(shares: Sequence[Tally | None]) -> dict[str, Any]:
    """The columns of one phase, in which not every tally has a share."""
    columns = tally_columns([share for share in shares if share is not None])
    return _spread(columns, [share is not None for share in shares]) if None in shares else columns


def _spread(columns: Record, has_one: Sequence[bool]) -> dict[str, Any]:
    return {
        name: _spread(column, has_one)
        if isinstance(column, dict)
        else [next(values) if has else None for values in [iter(column)] for has in has_one]
        for name, column in columns.items()
    }


def tally_rows(columns: Record, rows: int, depth: int = 0) -> list[dict[str, Any]]:
    """The inverse of `tally_columns`: a record for each tally. Raises ValueError or AttributeError on anything but
    columns; `tally_from_record` checks that the records are tallies."""
    found: list[dict[str, Any]] = [{} for _ in range(rows)]
    if depth > DEPTH:
        raise ValueError("a tally is nested too deeply")
    for name, column in columns.items():
        if isinstance(column, list):
            if len(column) != rows:
                raise ValueError(f"{name!r:.80} has {len(column)} values for {rows} devices")
            for row, value in zip(found, column, strict=True):
                if value is not None:
                    row[name] = value
        else:
            for row, part in zip(found, tally_rows(column, rows, depth + 1), strict=True):
                if part:
                    row[name] = part
    return found


def tally_record(tally: Tally) -> dict[str, Any]:
    """One device's running totals as JSON."""
    return tally_rows(tally_columns([tally]), 1)[0]


def tally_from_record(record: Record, begin_ns: int) -> Tally:
    """A tally from its record. Raises KeyError, TypeError, ValueError or AttributeError on anything else."""
    found: dict[str, Any] = {}
    for name in [name for name in record if name in _OF_TALLIES]:
        value = record[name]
        if (keys := _BY_KEY.get(name)) is not None:
            found[name] = {keys[key]: ns for key, amount in value.items() if (ns := count(amount)) or key not in keys}
        elif (field := _BY_EVIDENCE.get(name)) is not None:
            found[field] = _from_evidence(value, rows=name == "sm_cycles")
        elif name in _AMOUNTS:
            found[name] = count(value)
        elif name == "counters":
            found[name] = {key: count(amount) for key, amount in value.items()}
        elif name == "running":
            found["totals"], found["totals_ns"] = _totals(value)
        elif name == "phases":
            found[name] = {phase: _share_from(phase, share) for phase, share in value.items()}
    if "energy_mj" in found.get("counters", ()):
        found["energy_at_ns"] = count(record.get("energy_at_ns", record["to_ns"]), signed=True)
    # A gap that began before the boot has a negative time.
    return Tally(begin_ns, count(record["to_ns"], signed=True), **found)


def _share_from(name: str, record: Record) -> Tally:
    split_bucket(name)
    if {"phases", "running", "counters", "energy_at_ns", "number"} & record.keys():
        raise ValueError(f"phase {name!r:.80} has members that only a device's totals may have")
    return tally_from_record(record, 0)


def _from_evidence(record: Record, *, rows: bool) -> dict[tuple[Evidence, Pipe], int]:
    """`rows`: keep amounts of 0 too."""
    return {
        (_OF_TALLY[evidence], _PIPE[pipe]): cycles
        for evidence, pipes in record.items()
        for pipe, amount in pipes.items()
        if (cycles := count(amount)) or rows or evidence not in _OF_TALLY or pipe not in _PIPE
    }


def _totals(record: Record) -> tuple[Totals, int]:
    """Running counters and the time of their reading."""
    if len(record) != 1:
        raise ValueError("running counters need one origin")
    ((origin, read),) = record.items()
    cycles = {_PIPE[name]: count(amount) for name, amount in read.items() if name not in ("ns", "elapsed")}
    return Totals(origin, count(read["elapsed"]), cycles), count(read["ns"], signed=True)


def count(value: object, *, signed: bool = False) -> int:
    """`value`, if it is a whole number and not negative unless `signed`. Raises ValueError."""
    if type(value) is not int or (value < 0 and not signed):  # called for every number of a journal; excludes bool
        raise ValueError(f"{shown(value)} is not a count")
    return value


def text(value: object) -> str:
    """`value`, if it is text. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text")
    return value
