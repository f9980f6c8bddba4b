"""Claims of the children of a merged ledger: bytes, node, rank and devices, each for a period of time.

If two children claim the same thing at the same time, something is counted twice, and they are refused. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from flopsd.core.ledger.merged_segments import NumberedSegment, chains_of
from flopsd.core.values import whole_number
from flopsd.errors import LedgerError, NodeGivenTwiceError

LEDGER, NODE, RANK, RUN, DEVICE = range(5)  # in the order of checking


class Claim(NamedTuple):
    """One thing for one period on the boot-time clock of `boot_id`."""

    what: int
    key: str
    boot_id: str
    begin_ns: int
    end_ns: int
    wall_offset_ns: int

    def overlaps(self, other: Claim) -> bool:
        """Whether both cover a common moment; claims of different boots are compared by the wall clock."""
        if (self.boot_id, self.begin_ns) == (other.boot_id, other.begin_ns):
            return True
        same = self.boot_id == other.boot_id
        mine, its = (0, 0) if same else (self.wall_offset_ns, other.wall_offset_ns)
        return max(self.begin_ns + mine, other.begin_ns + its) < min(self.end_ns + mine, other.end_ns + its)


class DeviceClaims(NamedTuple):
    """A claim, the number of its child, and that child's name in messages."""

    claim: Claim
    child: int
    label: str


def claims_of(entry: Mapping[str, Any]) -> Iterator[Claim]:
    """The claims of a merged ledger's child. Raises KeyError, TypeError, ValueError on anything but an entry."""
    yield ledger_claim(entry["sha256"])
    in_lineage = "completeness" in entry
    for period in entry["periods"]:
        if in_lineage:
            yield _claim(RUN, entry["run"], period, period)
            continue
        yield _claim(NODE, entry["node"], period, period)
        if entry["rank"] is not None:
            yield _claim(RANK, str(entry["rank"]), period, period)
    yield from device_claims(entry)


def device_claims(entry: Mapping[str, Any]) -> Iterator[Claim]:
    """The devices that a node ledger's entry counts, with their times."""
    periods = {period["incarnation"]: period for period in entry["periods"]}
    for times in entry["deviceTimes"]:
        when = None
        for device in times["devices"]:
            when = when or _when(times, periods[times["incarnation"]])
            yield Claim(DEVICE, str(device), *when)


def ledger_claim(sha256: str) -> Claim:
    """A ledger's claim to its own bytes, which has no end."""
    return Claim(LEDGER, sha256, "", 0, 1, 0)


def refuse_double(claims: Iterable[DeviceClaims], segments: Callable[[], Iterable[NumberedSegment]] = tuple) -> None:
    """Raise LedgerError at the first thing that is claimed twice at once. `claims` must be sorted by `what` and key;
    `segments` are those of the children. It is called only if the wall clocks of two boots overlap, which proves
    nothing for segments of one chain."""
    chains = cache(lambda: chains_of(segments()))
    group: list[DeviceClaims] = []
    for claimed in claims:
        if group and (group[0].claim.what, group[0].claim.key) != (claimed.claim.what, claimed.claim.key):
            _refuse_within(group, chains)
            group = []
        group.append(claimed)
    _refuse_within(group, chains)


def _refuse_within(group: list[DeviceClaims], chains: Callable[[], Mapping[int, str]]) -> None:
    if len({claimed.child for claimed in group}) < 2:
        return  # the verification of one ledger compares its own daemon starts
    for at, one in enumerate(group):
        for other in group[at + 1 :]:
            if one.child == other.child or not one.claim.overlaps(other.claim):
                continue
            if one.claim.boot_id == other.claim.boot_id or chains().get(one.child) != chains().get(other.child, ""):
                raise _double(one, other)


def _double(one: DeviceClaims, other: DeviceClaims) -> LedgerError:
    key, same = one.claim.key, (one.claim.boot_id, one.claim.begin_ns) == (other.claim.boot_id, other.claim.begin_ns)
    of_a_node = "they are of the same journal at two times: give the later one only"
    text, hint = {
        LEDGER: ("the same ledger is given twice:", "give each ledger once"),
        NODE: (
            f"node {key!r} is given twice for the same time:",
            of_a_node
            if same
            else "if both metered the same devices, leave one out; two daemons that meter different devices of a node "
            "need a --run-id each, and their jobs are merged with --kind lineage",
        ),
        RANK: (
            f"rank {key} is given twice for the same time:",
            "two nodes of one job have two ranks; one of the two is not of this job",
        ),
        RUN: (
            f"job {key!r} is given twice for the same time:",
            "merge the ledgers of all its attempts into one job ledger, and give that one only",
        ),
        DEVICE: (
            f"device {key} is counted twice at the same time: by",
            "only one of the two ledgers may be in the sum; if the device changed hands between their jobs "
            "(--devices), each also has a gap for time of the other: leave none out, and state the two separately",
        ),
    }[one.claim.what]
    if one.claim.what == NODE and same:
        twice = NodeGivenTwiceError(f"{text} {one.label} and {other.label}", hint=hint, code="counted_twice")
        twice.labels = one.label, other.label
        return twice
    code = "child_twice" if one.claim.what == LEDGER else "counted_twice"
    return LedgerError(f"{text} {one.label} and {other.label}", hint=hint, code=code)


def _claim(what: int, key: str, times: Mapping[str, Any], period: Mapping[str, Any]) -> Claim:
    return Claim(what, str(key), *_when(times, period))


def _when(times: Mapping[str, Any], period: Mapping[str, Any]) -> tuple[str, int, int, int]:
    fields = (period["wallOffsetNs"], times["beginNs"], times["endNs"])
    offset, begin, end = (whole_number(ns, signed=True) for ns in fields)
    return str(period["bootId"]), begin, end, offset
