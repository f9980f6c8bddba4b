"""The copy of a child in a merged ledger: enough to add it up and to check that nothing is counted twice. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.merged_segments import IDENTITY
from flopsd.core.ledger.merged_sums import LedgerSums, node_sums, sums_of_ledger
from flopsd.core.ledger.merged_types import MAX_RANK
from flopsd.core.model import ACCOUNTED_ELSEWHERE
from flopsd.core.values import is_digest, is_whole, whole_number
from flopsd.errors import LedgerError

Entry = dict[str, Any]
_MEMBERS = {
    "name", "sha256", "kind", "keyids", "run", "node", "rank", "instanceType", "replay", "flopsdVersions",
    "peakTableSha256", "startedAt", "lastRecordAt", "periods", "deviceTimes", "ended", "segment", "declared",
}  # fmt: skip


def node_entry(predicate: Mapping[str, Any], history: History, sha256: str, keyids: Iterable[str]) -> Entry:
    """The entry of a node ledger. `sha256` is that of its payload; `keyids` are the trusted keys that signed it. Raises
    LedgerError for an impossible rank."""
    node, rank = predicate["node"], predicate["node"]["rank"]
    if rank is not None and (not is_whole(rank) or rank >= MAX_RANK):
        raise LedgerError(f"{rank!r} is not a rank", hint="a rank is a whole number from 0")
    return {
        "name": f"{node['name']}/{sha256[:16]}",
        "sha256": sha256,
        "kind": "node",
        "keyids": sorted(keyids),
        "run": predicate["run"]["id"],
        "node": node["name"],
        "rank": rank,
        "instanceType": node["instanceType"],
        "replay": predicate["replay"] is not None,
        "flopsdVersions": [predicate["method"]["flopsdVersion"]],
        "peakTableSha256": [predicate["method"]["peakTableSha256"]],
        "startedAt": min(str(incarnation["startedAt"]) for incarnation in predicate["incarnations"]),
        "lastRecordAt": max(str(incarnation["lastRecordAt"]) for incarnation in predicate["incarnations"]),
        "periods": [_period(incarnation) for incarnation in history.incarnations],
        "deviceTimes": _device_times(history),
        "ended": history.ended,
        "segment": _segment(predicate),
        "declared": _declared(predicate),
        **node_sums(predicate, history).for_ledger(),
    }


def job_entry(predicate: Mapping[str, Any], sha256: str, keyids: Iterable[str]) -> Entry:
    """The entry of a job ledger in a lineage. Raises KeyError, TypeError, ValueError on anything else."""
    spans = [span for child in predicate["children"] for span in map(wall_span, child["periods"])]
    return {
        "name": f"{predicate['run']['id']}/{sha256[:16]}",
        "sha256": sha256,
        "kind": "job",
        "keyids": sorted(keyids),
        "run": predicate["run"]["id"],
        "node": None,
        "rank": None,
        "instanceType": None,
        "replay": predicate["replay"] is not None,
        "flopsdVersions": sorted({predicate["method"]["flopsdVersion"], *predicate["method"]["flopsdVersions"]}),
        "peakTableSha256": list(predicate["method"]["peakTableSha256"]),
        "startedAt": predicate["startedAt"],
        "lastRecordAt": predicate["lastRecordAt"],
        "periods": [  # one period of the wall clock, the only clock that its nodes share
            {
                "incarnation": None,
                "attempt": None,
                "bootId": "",
                "beginNs": str(min(begin for begin, _ in spans)),
                "endNs": str(max(end for _, end in spans)),
                "wallOffsetNs": "0",
            }
        ],
        "deviceTimes": [],
        "ended": None,
        "segment": None,
        "completeness": {name: predicate["completeness"][name] for name in ("complete", "missing")},
        "declared": _declared(predicate),
        **sums_of_ledger(predicate).for_ledger(),
    }


def refuse_malformed(entry: Mapping[str, Any], sums: LedgerSums) -> None:
    """Raise KeyError, TypeError, ValueError for an entry that neither function above makes; `sums` are its sums."""
    known, job = sums.for_ledger(), entry["kind"] == "job"
    if entry.keys() - {"completeness"} != _MEMBERS | known.keys() or entry["kind"] not in ("node", "job"):
        raise ValueError("the entry of a child lacks a member or has an unknown one")
    if any(entry[name] != value for name, value in known.items()):
        raise ValueError("the sums of a child are not written as flopsd writes them")
    keyids, digests = entry["keyids"], (entry["sha256"], *entry["keyids"], *entry["peakTableSha256"])
    if not all(map(is_digest, digests)):
        raise ValueError("the digest of a child, of a key or of a peak table is not a SHA-256")
    if not keyids or keyids != sorted(set(keyids)):
        raise ValueError("a child must list the keys that signed it, sorted and each once")
    if entry["name"] != f"{entry['run' if job else 'node']}/{entry['sha256'][:16]}":
        raise ValueError(
            f"a child's name is {entry['name']!r:.80}, which does not follow from its node or run and its digest"
        )


def _segment(predicate: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of its run that a ledger covers, and the identity of its journal; None: the whole run."""
    if predicate["segment"] is None:
        return None
    return {**predicate["segment"], "journal": {name: predicate["method"]["journal"][name] for name in IDENTITY}}


def _declared(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """The declarations that decide which thresholds apply to the sum, and the contradictions among all declarations."""
    names = ["method", "base", "contradictions"] + ([] if predicate["kind"] == "node" else ["conflict"])
    return {name: predicate["declared"][name] for name in names}


def wall_span(period: Mapping[str, Any]) -> tuple[int, int]:
    """A period on the wall clock, in ns since the Unix epoch."""
    begin, end, offset = (whole_number(period[name], signed=True) for name in ("beginNs", "endNs", "wallOffsetNs"))
    return begin + offset, end + offset


class Stop(NamedTuple):
    """How long no daemon ran on a node between its starts; None: the wall clock was set back meanwhile."""

    node: str
    ns: int | None
    by_wall_clock: bool  # a part of it, since the machine was booted meanwhile


def stop_of(entry: Mapping[str, Any]) -> Stop | None:
    """The time of an entry's node in which no daemon ran between its starts, and that no device's account has; None:
    there is no such time. After a kill the next start accounts for it, or none does in the end, and then there is no
    upper bound. Raises KeyError, TypeError or ValueError for what is not an entry."""
    reach: dict[int, int] = {}  # from when each start counts its devices
    for times in entry["deviceTimes"]:
        begin_ns = whole_number(times["beginNs"], signed=True)
        reach[times["incarnation"]] = min(begin_ns, reach.get(times["incarnation"], begin_ns))
    passed, is_rebooted = [], False
    for before, after in pairwise(entry["periods"]):
        ended_ns, begin_ns = (whole_number(text, signed=True) for text in (before["endNs"], after["beginNs"]))
        if reach.get(after["incarnation"], begin_ns) < begin_ns:
            continue
        is_same = before["bootId"] == after["bootId"]
        is_rebooted = is_rebooted or not is_same
        passed.append(begin_ns - ended_ns if is_same else wall_span(after)[0] - wall_span(before)[1])
    if not any(passed):
        return None
    return Stop(str(entry["node"] or entry["name"]), sum(passed) if min(passed) >= 0 else None, is_rebooted)


def recordings_text(replays: int, ledgers: int) -> str:
    """How many ledgers of a merged one are replays, or sums with replays in them."""
    have = "has" if replays == 1 else "have"
    return f"{replays} of its {ledgers} ledgers {have} figures of recordings, for which no hardware was metered"


def sort_key(entry: Mapping[str, Any]) -> tuple[str, int, str, str]:
    """The order of children, independent of the order given: rank, node, digest; in a lineage the run first."""
    run = entry["run"] if "completeness" in entry else ""
    rank = entry["rank"]
    return run, MAX_RANK if rank is None else rank, entry["node"] or "", entry["sha256"]


def _period(incarnation: Incarnation) -> dict[str, Any]:
    begin = incarnation.begin
    return {
        "incarnation": incarnation.number,
        "attempt": str(begin["context"]["attempt"]),
        "bootId": incarnation.boot_id,
        "beginNs": str(begin["ns"]),
        "endNs": str(incarnation.last_ns),
        "wallOffsetNs": str(begin["wall_ns"] - begin["ns"]),
    }


def _device_times(history: History) -> list[dict[str, Any]]:
    """The devices that each daemon start counts, with their times."""
    elsewhere: dict[int, dict[str, list[tuple[int, int]]]] = {}
    for gap in history.gaps:
        if gap.reason in ACCOUNTED_ELSEWHERE:
            by_device = elsewhere.setdefault(gap.incarnation, {})
            by_device.setdefault(gap.device, []).append((gap.begin_ns, gap.end_ns))
    return [
        times
        for incarnation in history.incarnations
        for times in _times_of(incarnation, elsewhere.get(incarnation.number, {}))
    ]


def _times_of(incarnation: Incarnation, elsewhere: Mapping[str, list[tuple[int, int]]]) -> list[dict[str, Any]]:
    """Times with the devices that share them, except the times in which a device was accounted for `elsewhere`."""
    devices = {entry.device.uid: entry.device for entry in incarnation.devices.values()}
    together: dict[tuple[int, int], list[str]] = {}
    for uid, tally in incarnation.tallies.items():
        at_ns = tally.begin_ns
        for begin_ns, end_ns in (*sorted(elsewhere.get(uid, [])), (tally.watermark_ns, tally.watermark_ns)):
            if at_ns < begin_ns:
                name = devices[uid].unique_name(str(incarnation.begin["node"]))
                together.setdefault((at_ns, begin_ns), []).append(name)
            at_ns = max(at_ns, end_ns)
    return [
        {"incarnation": incarnation.number, "beginNs": str(begin_ns), "endNs": str(end_ns), "devices": sorted(names)}
        for (begin_ns, end_ns), names in sorted(together.items())
    ]
