"""The second implementation, continued: what the page says of ledgers made of ledgers, and of time in a journal."""

from __future__ import annotations

import re
from typing import Any

from tests.support.independent import M, add, said, seconds

J = dict[str, Any]
COUNT, SIGNED = re.compile("0|[1-9][0-9]{0,39}"), re.compile("0|-?[1-9][0-9]{0,39}")
TALLY = ("observed_ns", "gap_ns", "sm_cycles", "uncertainty_sm_cycles", "unread_ns", "recovered_ns", "busy_sm_cycles",
         "counted_flop", "energy_mj", "phases")  # fmt: skip


def laws_broken(records: list[J]) -> set[int]:
    """Of the laws 12 to 14 of the page, by number."""
    broken: set[int] = set()
    watched: set[str] = set()
    begin_ns = last_ns = 0
    for record in records:
        if record["kind"] == "begin":
            begin_ns = last_ns = record["ns"]
            context = record["context"]
            members = sorted(context), sorted(context["run"]), sorted(context["node"])
            if members != (
                ["attempt", "node", "run"],
                ["jobArn", "jobName", "platform"],
                ["instanceType", "jobNodes", "rank"],
            ):
                broken.add(14)
        elif record["kind"] == "device":
            if any(record.get(name) for name in TALLY) or (
                record["uuid"] not in watched and record["to_ns"] < begin_ns
            ):
                broken.add(12)
            watched.add(record["uuid"])
        if record.get("ns", last_ns) < last_ns or any(
            tally["to_ns"] > record["ns"] + 10**9 for tally in record.get("devices", ())
        ):
            broken.add(13)
        if record["kind"] in ("checkpoint", "end"):
            last_ns = record["ns"]
    return broken


def count(text: str) -> int:
    assert COUNT.fullmatch(text)
    return int(text)


def nanoseconds(text: str) -> int:
    whole, _, nine = text.partition(".")
    assert re.fullmatch("[0-9]{9}", nine)
    return count(whole) * 10**9 + int(nine)


def merged_again(predicate: J) -> J:
    """Completeness and sums of a merged ledger, from its children's entries."""
    entries = predicate["children"]
    assert entries
    for entry in entries:
        assert entry["keyids"] == sorted(set(entry["keyids"])) != []
        for digest in (entry["sha256"], *entry["keyids"], *entry["peakTableSha256"]):
            assert re.fullmatch("[0-9a-f]{64}", digest)
        assert entry["name"] == f"{entry['run' if entry['kind'] == 'job' else 'node']}/{entry['sha256'][:16]}"
        for period in (*entry["periods"], *entry["deviceTimes"]):
            assert SIGNED.fullmatch(period["beginNs"])
            assert SIGNED.fullmatch(period["endNs"])
    complete = _complete(predicate, entries)
    figures = [
        tuple(None if told[name] is None else count(told[name]) for name in ("low", "measured", "high"))
        for told in (entry["totals"]["executed"] for entry in entries)
    ]
    low, measured, high = add(figures)  # type: ignore[arg-type]
    job, unknown = (
        sum(nanoseconds(entry["coverage"][name]) for entry in entries) for name in ("jobSeconds", "unknownSeconds")
    )
    return {
        "complete": complete,
        "executed": said((low, measured, high if complete is True else None)),
        "deviceSeconds": seconds(sum(nanoseconds(entry["deviceSeconds"]) for entry in entries)),
        "coveragePpm": str((job - unknown) * M // job) if job else None,
        "ledgerCount": str(len(entries)),
    }


def _complete(predicate: J, entries: list[J]) -> bool | None:
    """Of a job whose nodes all had the same attempts, or of a lineage."""
    if predicate["kind"] == "lineage":
        told = {entry["completeness"]["complete"] for entry in entries}
        return False if False in told else True if told == {True} else None
    if set(predicate["jobNodes"]) - {entry["node"] for entry in entries}:
        return False
    known = predicate["jobNodes"] or predicate["completeness"]["declaredNodes"] is not None
    return True if known and all(entry["ended"] for entry in entries) else None


def stated(predicate: J) -> J:
    executed = predicate["totals"]["executed"]
    return {
        "complete": predicate["completeness"]["complete"],
        "executed": {name: executed[name] for name in ("low", "measured", "high")},
        "deviceSeconds": predicate["deviceSeconds"],
        "coveragePpm": predicate["coverage"]["coveragePpm"],
        "ledgerCount": predicate["ledgerCount"],
    }
