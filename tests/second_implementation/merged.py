"""A ledger of ledgers, summed again from its children's entries."""

import re
from typing import Any

from tests.second_implementation.arithmetic import ELSEWHERE, add, said
from tests.second_implementation.ledger import NAMES, Run

J = dict[str, Any]
UUID = re.compile("[0-9a-fA-F]{8}")
COUNT, SIGNED = re.compile("0|[1-9][0-9]{0,39}"), re.compile("0|-?[1-9][0-9]{0,39}")


def count(text: str) -> int:
    assert COUNT.fullmatch(text)
    return int(text)


def nanoseconds(text: str) -> int:
    whole, _, nine = text.partition(".")
    assert re.fullmatch("[0-9]{9}", nine)
    return count(whole) * 10**9 + int(nine)


def energy_of(one: J) -> tuple[Any, ...]:
    published, joules = one["publishedFjPerFlop"], one["energyJoules"]
    assert one["name"] == "energy/executed"
    assert re.fullmatch("(0|[1-9][0-9]*)[.][0-9]{3}", joules)
    return (
        one["part"], one["precision"], count(published["low"]), count(published["high"]), int(joules.replace(".", "")),
        nanoseconds(one["deviceSeconds"]), count(one["measuredFlop"]), count(one["doubtFlop"]),
    )  # fmt: skip


def _figures(entry: J) -> tuple[int, int | None, int | None]:
    low, measured, high = (None if entry[name] is None else count(entry[name]) for name in NAMES)
    assert low is not None
    return low, measured, high


def _counts(children: list[J], complete: bool | None) -> J:
    """The part of everything that counts, and of `cumulative`: unmeasured if a part that may count is unmeasured."""
    found = []
    for parts in ([_figures(child) for child in children], [_figures(child["cumulative"]) for child in children]):
        low, measured, high = add(parts)
        unmeasured = any(one[1] is None and one[2] != 0 for one in parts)
        found.append(said((low, None if unmeasured else measured, high if complete is True else None)))
    return {**found[0], "cumulative": found[1]}


def _complete(predicate: J, entries: list[J]) -> bool | None:
    """For a job whose platform lists its nodes, or with as many as declared; or for a lineage."""
    if predicate["kind"] == "lineage":
        stated = {entry["completeness"]["complete"] for entry in entries}
        return False if False in stated else True if stated == {True} else None
    if not _linked([{**entry["segment"], "node": entry["node"]} for entry in entries if entry["segment"]]):
        return False
    stated, nodes = predicate["completeness"]["declaredNodes"], {entry["node"] for entry in entries}
    if set(predicate["jobNodes"]) - nodes:
        return False
    ranked = all(entry["rank"] is not None for entry in entries)
    if not predicate["jobNodes"] and ranked:
        here = {entry["rank"] for entry in entries}
        if here != set(range(max(here) + 1 if stated is None else int(stated))):
            return False
    elif not predicate["jobNodes"] and stated is not None and len(nodes) < int(stated):
        return False
    attempts: dict[Any, set[str]] = {}
    for entry in entries:
        slot = entry["rank"] if ranked else entry["node"]
        attempts.setdefault(slot, set()).update(period["attempt"] for period in entry["periods"])
    named = all(period["attempt"] != period["bootId"] for entry in entries for period in entry["periods"])
    if len({tuple(sorted(one)) if named else len(one) for one in attempts.values()}) > 1:
        return False  # not every node has a ledger of every attempt
    seen = {one for each in attempts.values() for one in each}
    if named and predicate["run"]["platform"] == "slurm" and not seen >= {str(number) for number in range(len(seen))}:
        return False  # Slurm counts attempts from 0, so that there were others
    known = predicate["jobNodes"] or stated is not None
    return True if known and all(entry["ended"] for entry in entries) else None


def _linked(segments: list[J]) -> bool:
    """Whether each named segment and each predecessor is present. Fails if two segments continue the same one."""
    here = {segment["journal"]["sha256"]: segment for segment in segments}
    named = [segment["continues"] for segment in segments if segment["continues"]]
    assert len({one["sha256"] for one in named}) == len(named)
    for one, node in ((segment["continues"], segment["node"]) for segment in segments if segment["continues"]):
        if (before := here.get(one["sha256"])) is not None:
            assert before["node"] == node
            assert one == {"number": before["number"], **before["journal"]}
            assert before["isContinued"]
    wanted = {one["sha256"] for one in named}
    return wanted == {sha256 for sha256, segment in here.items() if segment["isContinued"]}


def device_times(run: Run, node: str) -> list[J]:
    """The times at which each device belonged to the job, as in an entry of a merged ledger."""
    found: dict[tuple[int, int, int], list[str]] = {}
    for at, devices in enumerate(run.rated, 1):
        for number, device in devices.items():
            record = device.record
            lasting = record["serial"] is not None or UUID.search(record["uuid"])
            name = record["uuid"] if lasting else f"{node}/{record['uuid']}"
            last = device.tally["to_ns"]
            gaps = [gap for gap in run.gaps if gap[:2] == [at, number]]
            if at == len(run.rated) and run.records[-1]["kind"] != "end":  # without the time behind the last record
                last = next(gap[2] for gap in gaps if gap[3] == last)
            begin = record["to_ns"]
            for gap in [*sorted(gap[2:4] for gap in gaps if gap[4] in ELSEWHERE), [last, last]]:
                if begin < gap[0]:
                    found.setdefault((at, begin, gap[0]), []).append(name)
                begin = max(begin, gap[1])
    return [
        {"incarnation": at, "beginNs": str(begin), "endNs": str(end), "devices": sorted(names)}
        for (at, begin, end), names in sorted(found.items())
    ]
