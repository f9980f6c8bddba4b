"""The parts missing from a merge, and the architecture basis of a sum."""

import json
from typing import Any

J = dict[str, Any]
SILENT = ("no_process", "no_work")


def missing(predicate: J, entries: list[J]) -> list[J]:
    """The notes of `completeness.missing`."""
    if predicate["kind"] == "lineage":
        return [{**note, "job": entry["run"]} for entry in entries for note in entry["completeness"]["missing"]]
    holes = _nodes(predicate, entries) or _attempts(predicate, entries)
    holes += _segments([entry for entry in entries if entry["segment"]])
    open_ones = [entry for entry in entries if entry["ended"] is False]
    return holes + [
        {"code": "no_end", **_place(entry), "ledger": entry["name"], "after": entry["lastRecordAt"]}
        for entry in open_ones
    ]


def _place(entry: J) -> J:
    rank = {} if entry["rank"] is None else {"rank": str(entry["rank"])}
    return rank if entry["node"] is None else {**rank, "node": entry["node"]}


def _slots(entries: list[J]) -> list[J]:
    ranked = all(entry["rank"] is not None for entry in entries)
    found: dict[Any, J] = {}
    for entry in entries:
        key = entry["rank"] if ranked else entry["node"]
        slot = found.setdefault(
            key, {"rank": entry["rank"] if ranked else None, "node": entry["node"], "attempts": set()}
        )
        slot["node"] = min(slot["node"], entry["node"])
        slot["attempts"] |= {period["attempt"] for period in entry["periods"]}
    return [found[key] for key in sorted(found)]


def _nodes(predicate: J, entries: list[J]) -> list[J]:
    slots, nodes, stated = _slots(entries), predicate["jobNodes"], predicate["completeness"]["declaredNodes"]
    if nodes:
        here = {entry["node"] for entry in entries}
        return [{"code": "no_ledger", "rank": str(at), "node": n} for at, n in enumerate(nodes) if n not in here]
    if all(slot["rank"] is not None for slot in slots):
        ranks = {slot["rank"] for slot in slots}
        most = int(stated) if stated is not None else max(ranks) + 1
        return [{"code": "no_ledger", "rank": str(rank)} for rank in range(most) if rank not in ranks]
    if stated is None or int(stated) == len(slots):
        return []
    return [{"code": "nodes_missing", "missing": str(int(stated) - len(slots)), "nodes": stated}]


def _attempts(predicate: J, entries: list[J]) -> list[J]:
    slots = _slots(entries)
    periods = [period for entry in entries for period in entry["periods"]]
    every = sorted({period["attempt"] for period in periods})
    unknown = [str(number) for number in range(len(every)) if str(number) not in every]
    if predicate["run"]["platform"] == "slurm" and unknown:
        every = sorted([*every, unknown[0]])
    if all(period["attempt"] != period["bootId"] for period in periods):
        return [
            {"code": "no_ledger_of_attempt", **_place(slot), "attempt": one}
            for slot in slots for one in every if one not in slot["attempts"]
        ]  # fmt: skip
    most = max(len(slot["attempts"]) for slot in slots)
    return [
        {"code": "fewer_attempts", **_place(slot), "attempts": str(len(slot["attempts"])), "most": str(most)}
        for slot in slots if len(slot["attempts"]) < most
    ]  # fmt: skip


def _segments(parts: list[J]) -> list[J]:
    here = {entry["segment"]["journal"]["sha256"] for entry in parts}
    continued = {entry["segment"]["continues"]["sha256"] for entry in parts if entry["segment"]["continues"]}
    before, after = [], []
    for entry in parts:
        segment, named = entry["segment"], {**_place(entry), "ledger": entry["name"]}
        if segment["continues"] and segment["continues"]["sha256"] not in here:
            number = str(segment["continues"]["number"])
            before.append({"code": "no_segment_before", **named, "segment": number})
        if segment["isContinued"] and segment["journal"]["sha256"] not in continued:
            after.append({"code": "no_segment_after", **named, "segment": str(segment["number"] + 1)})
    return before + after


def architecture_of(entries: list[J], *, whole: bool) -> tuple[J | None, list[J]]:
    """The basis of a sum, and the reasons if there is none."""
    own = [entry for entry in entries if not (_is_silent(entry) and _is_stated(entry, entries))] or entries
    bases = [entry["totals"]["architecture"] for entry in own]
    if not whole or None in bases:
        reasons = [reason for entry in own for reason in entry["totals"]["architectureAbsentReasons"]]
        return None, few_reasons(reasons) if reasons else [{"code": "ledger_may_be_missing"}]

    def sums(parts: list[J]) -> J:
        columns = {name: [part[name] for part in parts] for name in ("low", "computed", "high")}
        return {name: None if None in column else str(sum(map(int, column))) for name, column in columns.items()}

    methods = {method for basis in bases for method in basis["method"]}
    return {
        **sums(bases), "executed": sums([basis["executed"] for basis in bases]),
        "tokens": str(sum(int(basis["tokens"]) for basis in bases)), "marginPpm": "300000",
        "method": [name for name in ("shape", "weights") if name in methods],
    }, []  # fmt: skip


def _is_silent(entry: J) -> bool:
    totals = entry["totals"]
    reasons = {reason["code"] for reason in totals["architectureAbsentReasons"]}
    return entry["segment"] is not None and totals["architecture"] is None and reasons <= set(SILENT)


def _is_stated(entry: J, entries: list[J]) -> bool:
    """Whether another segment of its node has a basis or another reason."""
    same = [one for one in entries if (one["rank"], one["node"]) == (entry["rank"], entry["node"]) and one["segment"]]
    return any(not _is_silent(one) for one in same)


def few_reasons(reasons: list[J]) -> list[J]:
    known = {
        json.dumps(one, sort_keys=True, separators=(",", ":")): one for one in reasons if one["code"] != "more_reasons"
    }
    found = [known[text] for text in sorted(known)]
    more = len(found) > 4 or any(one["code"] == "more_reasons" for one in reasons)
    return found[:4] + ([{"code": "more_reasons"}] if more else [])
