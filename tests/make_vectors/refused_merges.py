"""Vectors of merged ledgers that must be refused for one fault in an entry; the sums follow from the entries as they
are."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from flopsd.core.ledger.statement import encode
from tests.make_vectors.edits import edits, put
from tests.make_vectors.entries import KNOWN, basis, entries_of, of_one_node, same_run
from tests.make_vectors.files import Files, vector
from tests.make_vectors.merged import Child, merged, node, segments
from tests.make_vectors.records import ordered
from tests.second_implementation.jobs import order, predicate_of_children
from tests.second_implementation.laws import Refused
from tests.second_implementation.verify import read_yaml
from tests.support.story import POLICY

J = dict[str, Any]
Edit = Callable[[J], object]
# Name, description, code, clause, base merge, and the edit of its predicate.
Case = tuple[str, str, str, str, str, Edit]
E, BENT, ORDER = "entry_malformed", "statement_differs", "children_order"
ENERGY = {
    "name": "energy/executed", "part": "h100-sxm", "precision": "bf16", "publishedFjPerFlop": {"low": "400", "high": "900"},
    "deviceSeconds": "4.000000000", "energyJoules": "500.000", "measuredFlop": "1000000000000000", "doubtFlop": "0",
    "fjPerFlop": {"low": "500", "measured": "500", "high": "500"}, "withinMargin": True, "warning": None,
}  # fmt: skip
ABSENT = {"type": "example", "collectedAt": "2026-09-21T14:13:24.000000Z", "state": "absent", "data": None,
          "reason": {"code": "none"}}  # fmt: skip


def first(**changes: Any) -> Edit:
    return lambda p: p["children"][0].update(changes)


def inside(*path: str | int, value: Any) -> Edit:
    """Sets a member of the first entry, or drops it."""
    return put("children", 0, *path, value=value)


@edits
def _at_one_time(predicate: J, name: str) -> None:
    """The second child has the same devices or nodes as the first, at the same wall time."""
    one, other = predicate["children"]
    if name == "devices":
        other["deviceTimes"][0]["devices"] = list(one["deviceTimes"][0]["devices"])
    else:
        other[name] = one[name]
        if name == "node":
            other["name"] = f"{one['node']}/{other['sha256'][:16]}"
        predicate["jobNodes"] = []
        predicate["completeness"]["declaredNodes"] = "2"


@edits
def _declared(predicate: J, number: str | None) -> None:
    predicate["jobNodes"] = []
    predicate["completeness"]["declaredNodes"] = number


def _unranked(predicate: J) -> None:
    _declared("1")(predicate)
    for entry in predicate["children"]:
        entry["rank"] = None


def _of_another_node(predicate: J) -> None:
    _declared(None)(predicate)
    for entry in predicate["children"]:
        if entry["segment"]["number"] == 2:
            entry.update(node="node-9", rank=9, name=f"node-9/{entry['sha256'][:16]}")


CASES: list[Case] = [
    ("entry-of-a-job-with-a-node", "An entry of a job names a node.", E, "MERGE-19", "lineage", first(node="node-0")),
    ("entry-of-a-job-with-a-rank", "An entry of a job has a rank.", E, "MERGE-19", "lineage", first(rank=0)),
    ("entry-of-a-job-that-ended", "An entry of a job has an end.", E, "MERGE-19", "lineage", first(ended=True)),
    ("entry-of-a-job-of-one-instance", "An entry of a job has an instance type.", E, "MERGE-19", "lineage", first(instanceType="p5")),
    ("entry-of-a-job-with-two-periods", "An entry of a job has two periods.", E, "MERGE-20", "lineage", lambda p: p["children"][0].update(periods=p["children"][0]["periods"] * 2)),
    ("entry-of-a-job-on-a-boot", "The period of a job is of a boot.", E, "MERGE-20", "lineage", inside("periods", 0, "bootId", value="b")),
    ("entry-of-a-job-with-an-incarnation", "The period of a job has a number.", E, "MERGE-20", "lineage", inside("periods", 0, "incarnation", value=1)),
    ("entry-of-a-job-with-devices", "An entry of a job has device times.", E, "MERGE-20", "lineage", first(deviceTimes=[{"incarnation": None, "beginNs": "1", "endNs": "2", "devices": ["x"]}])),
    ("entry-of-a-job-of-no-version", "An entry of a job names no version.", E, "MERGE-26", "lineage", first(flopsdVersions=[])),
    ("entry-of-a-job-of-no-table", "An entry of a job names no peak table.", E, "MERGE-26", "lineage", first(peakTableSha256=[])),
    ("entry-of-a-job-that-is-whole-by-word", "`complete` of an entry is a text.", E, "MERGE-22", "lineage", inside("completeness", "complete", value="yes")),
    ("entry-of-a-job-with-a-summary", "`completeness` of an entry has one member too many.", E, "MERGE-22", "lineage", inside("completeness", "summary", value="whole")),
    ("entry-with-a-rank-beyond-all", "A rank of 100000.", "too_many_nodes", "MERGE-32", "job", lambda p: (_declared(None)(p), p["children"][1].update(rank=100_000))),
    ("entry-with-a-rank-as-declared", "Of three nodes two are there, one with rank 3.", "too_many_nodes", "MERGE-32", "job", lambda p: (_declared("3")(p), p["children"][1].update(rank=3))),
    ("segment-with-another-member", "`segment` of an entry has one member too many.", E, "MERGE-19", "run", inside("segment", "isLast", value=False)),
    ("segment-two-that-continues-none", "A second segment continues none.", E, "MERGE-19", "run", lambda p: p["children"][0]["segment"].update(number=2, continues=None)),
    ("segment-that-continues-itself", "A segment continues one of its own number.", E, "MERGE-19", "run", lambda p: [e["segment"]["continues"].update(number=2) for e in p["children"] if e["segment"]["number"] == 2]),
    ("node-twice-by-a-nanosecond", "Two ledgers of one node and boot share a nanosecond.", "counted_twice", "MERGE-29", "job", lambda p: _again(p, beginNs="1003999999999", endNs="1005000000000")),
    ("node-twice-by-the-wall-clock", "Two ledgers of one node on two boots share a nanosecond of the wall clock.", "counted_twice", "MERGE-29", "job", lambda p: _again(p, bootId="another boot", beginNs="999999999990", endNs="1001000000000", wallOffsetNs="1789999004000000009")),
    ("node-twice-from-one-begin", "Two ledgers of one node and boot begin together, and one has no length.", "counted_twice", "MERGE-29", "job", lambda p: _again(p, endNs="1000000000000")),
    ("run-twice-by-a-nanosecond", "Two ledgers of one run in a lineage share a nanosecond.", "counted_twice", "MERGE-29", "lineage", lambda p: same_run(p["children"], -1)),
    ("entry-without-a-member", "An entry has no `energyJoules`.", E, "MERGE-26", "job", inside("energyJoules", value=...)),
    ("entry-with-another-member", "An entry has one member too many.", E, "MERGE-26", "job", first(certified=True)),
    ("entry-with-a-member-of-all-objects", "An entry has a member that every object of JavaScript has.", E, "MERGE-26", "job", first(toString=1)),
    ("entry-with-a-low-above-its-high", "`low` of an entry is above `high`.", E, "MERGE-25", "job", inside("totals", "executed", "low", value="9" * 40)),
    ("entry-with-a-claimed-low-above-its-high", "The same of what processes claim, in `cumulative`.", E, "MERGE-25", "job", inside("totals", "guidelines", "asClaimed", "cumulative", "low", value="1")),
    ("entry-with-a-base-known-without-flop", "The base model of an entry is known and has no `flop`.", E, "MERGE-25", "job", inside("declared", "base", value={**KNOWN, "flop": None})),
    ("entry-with-a-base-that-nobody-declares", "The base model of an entry has no `declaredBy`.", E, "MERGE-25", "job", inside("declared", "base", value={name: one for name, one in KNOWN.items() if name != "declaredBy"})),
    ("entry-of-another-kind", "An entry of a job is of kind `lineage`.", E, "MERGE-26", "job", first(kind="lineage")),
    ("job-on-a-platform-by-number", "`run.platform` of a job is a number.", E, "MERGE-26", "job", put("run", "platform", value=7)),
    ("entry-signed-by-nobody", "An entry names no key.", E, "MERGE-25", "job", first(keyids=[])),
    ("entry-signed-twice", "An entry names a key twice.", E, "MERGE-25", "job", lambda p: p["children"][0].update(keyids=p["children"][0]["keyids"] * 2)),
    ("entry-with-a-key-that-is-none", "A key id of an entry is not a SHA-256.", E, "MERGE-26", "job", first(keyids=["ab"])),
    ("entry-with-a-digest-that-is-none", "`sha256` of an entry is not a SHA-256.", E, "MERGE-26", "job", lambda p: p["children"][0].update(sha256="AB" * 32, name=f"node-0/{'AB' * 8}")),
    ("entry-of-another-name", "The name of an entry does not follow from its digest.", E, "MERGE-25", "job", first(name="node-0/0000000000000000")),
    ("entry-with-a-rank-below-zero", "A rank is below zero.", E, "MERGE-26", "job", lambda p: (p.update(jobNodes=[]), p["children"][0].update(rank=-1))),
    ("entry-that-may-be-a-replay", "`replay` of an entry is a text.", E, "MERGE-26", "job", first(replay="no")),
    ("entry-that-may-have-ended", "`ended` of an entry is null.", E, "MERGE-26", "job", first(ended=None)),
    ("entry-of-two-versions", "An entry of a node has two versions.", E, "MERGE-26", "job", first(flopsdVersions=["0.1.0", "0.2.0"])),
    ("entry-of-no-table", "An entry names no peak table.", E, "MERGE-26", "job", first(peakTableSha256=[])),
    ("entry-of-no-time", "An entry has no period.", E, "MERGE-20", "job", lambda p: p["children"][0].update(periods=[], deviceTimes=[])),
    ("entry-with-a-period-of-number-two", "The first period has number 2.", E, "MERGE-20", "job", lambda p: (p["children"][0]["periods"][0].update(incarnation=2), p["children"][0]["deviceTimes"][0].update(incarnation=2))),
    ("entry-with-a-period-of-number-true", "The number of the first period is true, which is not an integer.", E, "MERGE-20", "job", inside("periods", 0, "incarnation", value=True)),
    ("entry-with-a-period-that-ends-first", "A period ends before it begins.", E, "MERGE-20", "job", inside("periods", 0, "endNs", value="1")),
    ("entry-with-a-period-without-an-attempt", "A period has no attempt.", E, "MERGE-20", "job", inside("periods", 0, "attempt", value=None)),
    ("entry-with-a-period-of-more", "A period has one member too many.", E, "MERGE-20", "job", inside("periods", 0, "more", value=1)),
    ("entry-of-no-version", "An entry names no version.", E, "MERGE-26", "job", first(flopsdVersions=[])),
    ("entry-with-device-times-of-nobody", "A device time names no device.", E, "MERGE-21", "job", inside("deviceTimes", 0, "devices", value=[])),
    ("entry-with-a-conflict", "An entry of a node has a conflict, which only jobs have.", E, "MERGE-19", "job", inside("declared", "conflict", value=None)),
    ("entry-with-time-as-a-number", "Device time is a number.", E, "MERGE-25", "job", first(deviceSeconds=8)),
    ("entry-with-time-below-zero", "Gap time is below zero.", E, "MERGE-25", "job", inside("coverage", "gapSeconds", value="-1.000000000")),
    ("entry-with-time-in-milliseconds", "Device time has three decimals.", E, "MERGE-25", "job", first(deviceSeconds="8.000")),
    ("entry-with-energy-in-no-decimals", "Energy has no decimals.", E, "MERGE-25", "job", first(energyJoules="4")),
    ("entry-without-a-low", "`low` of an entry is null.", E, "MERGE-26", "job", inside("totals", "executed", "low", value=None)),
    ("entry-of-two-tables", "An entry of a node names its peak table twice.", E, "MERGE-26", "job", lambda p: p["children"][0].update(peakTableSha256=p["children"][0]["peakTableSha256"] * 2)),
    ("entry-of-an-instance-of-types", "`instanceType` of an entry is a list.", E, "MERGE-19", "job", first(instanceType=["p5.48xlarge"])),
    ("entry-with-a-device-by-number", "A device time names a device by its number.", E, "MERGE-21", "job", inside("deviceTimes", 0, "devices", value=[7])),
    ("entry-with-device-times-of-number-true", "The number of the incarnation of a device time is true.", E, "MERGE-21", "job", inside("deviceTimes", 0, "incarnation", value=True)),
    ("entry-with-totals-of-more", "`totals` of an entry has one member too many.", E, "MERGE-26", "job", inside("totals", "kind", value="job")),
    ("entry-covered-twice-over", "`coveragePpm` of an entry is twice what follows.", E, "MERGE-26", "job", inside("coverage", "coveragePpm", value="2000000")),
    ("entry-with-a-reason-twice", "An entry says twice why it has no architecture basis.", E, "MERGE-26", "job", lambda p: p["children"][0]["totals"].update(architectureAbsentReasons=p["children"][0]["totals"]["architectureAbsentReasons"] * 2)),
    ("entry-with-another-margin", "`marginPpm` of an entry is another one.", E, "MERGE-26", "job", lambda p: p["children"][0]["totals"].update(architecture=basis(7 * 10**14, 8 * 10**14, "shape") | {"marginPpm": "1"}, architectureAbsentReasons=[])),
    ("entry-with-energy-by-another-ratio", "Energy for each FLOP of an entry is not what follows.", E, "MERGE-26", "job", inside("reconciliation", value=[ENERGY | {"fjPerFlop": {"low": "499", "measured": "500", "high": "500"}}])),
    ("entry-with-energy-of-no-flop", "Energy of an entry is compared with no FLOP.", E, "MERGE-26", "job", inside("reconciliation", value=[ENERGY | {"measuredFlop": "0"}])),
    ("entry-with-device-times-in-no-list", "`deviceTimes` of an entry is an object.", E, "MERGE-21", "job", first(deviceTimes={})),
    ("entry-measured-in-no-way", "`method` of what an entry executed is empty.", E, "MERGE-26", "job", inside("totals", "executed", "method", value=[])),
    ("entry-of-another-evidence", "An entry has a figure of an evidence that there is not.", E, "MERGE-26", "job", inside("totals", "executed", "byEvidence", "hearsay", value={"low": "0", "measured": None, "high": "1"})),
    ("entry-of-another-phase", "An entry has a figure of a phase that there is not.", E, "MERGE-26", "job", inside("totals", "executed", "byPhase", "rest", value={"low": "0", "measured": None, "high": "1"})),
    ("entry-with-a-gap-of-another-reason", "An entry has a gap of a reason that there is not.", E, "MERGE-26", "job", inside("coverage", "gapSecondsByReason", "holiday", value="1.000000000")),
    ("entry-of-a-job-with-a-hole-of-numbers", "What is missing of a job is not a note.", E, "MERGE-22", "lineage", inside("completeness", "missing", value=[{"code": "no_ledger", "rank": 1}])),
    ("entry-of-a-job-with-conflicts-in-one-text", "`conflict` of an entry is a text.", E, "MERGE-19", "lineage", inside("declared", "conflict", value="")),
    ("entry-of-another-run", "A child is of another run than the job.", "other_run_of_child", "MERGE-30", "job", first(run="another")),
    ("entry-of-another-rank", "A node has another rank than the list of nodes gives it.", "rank_differs", "MERGE-31", "job", lambda p: p.update(jobNodes=p["jobNodes"][::-1])),
    ("entry-of-no-rank", "A node of the list of nodes has no rank.", "rank_differs", "MERGE-31", "job", first(rank=None)),
    ("entry-of-no-node-of-the-job", "A node is not among those of the job.", "rank_differs", "MERGE-31", "job", lambda p: p.update(jobNodes=["node-0", "node-9"])),
    ("more-nodes-than-declared", "A rank is as high as the declared number of nodes.", "too_many_nodes", "MERGE-32", "job", _declared("1")),
    ("more-unranked-nodes-than-declared", "Two nodes without ranks, of one that was declared.", "too_many_nodes", "MERGE-32", "job", _unranked),
    ("more-nodes-than-a-job-can-have", "A million nodes were declared.", "too_many_nodes", "MERGE-32", "job", _declared("1000000")),
    ("other-nodes-than-declared", "The list of nodes has two, and three were declared.", "too_many_nodes", "MERGE-32", "job", put("completeness", "declaredNodes", value="3")),
    ("rank-twice", "One rank is in two children at one time.", "counted_twice", "MERGE-29", "job", _at_one_time("rank")),
    ("node-twice", "One node is in two children at one time.", "counted_twice", "MERGE-29", "job", _at_one_time("node")),
    ("device-in-two-children", "One device is in two children at one time.", "counted_twice", "MERGE-29", "job", _at_one_time("devices")),
    ("job-with-a-run-of-more", "`run` has one member too many.", E, "MERGE-3", "job", lambda p: p["run"].update(queue="x")),
    ("job-with-nodes-in-one-text", "`jobNodes` is a text.", E, "MERGE-5", "job", lambda p: p.update(jobNodes="")),
    ("job-with-a-node-listed-twice", "`jobNodes` has a node twice that has no ledger.", "rank_differs", "MERGE-31", "job", lambda p: p.update(jobNodes=[*p["jobNodes"], "node-9", "node-9"])),
    ("job-of-nodes-declared-in-two-digits", "`declaredNodes` is written `02`.", E, "MERGE-26", "job", _declared("02")),
    ("job-sealed-by-no-version", "`flopsdVersion` is null.", E, "MERGE-18", "job", put("method", "flopsdVersion", value=None)),
    ("lineage-named-by-a-list", "`name` of a lineage is a list.", E, "MERGE-4", "lineage", put("lineage", "name", value=["lineage"])),
    ("job-sealed-at-no-time", "`sealedAt` is not a time.", E, "MERGE-18", "job", put("method", "sealedAt", value="today")),
    ("job-of-children-in-no-list", "`children` is a text.", E, "MERGE-26", "job", lambda p: p.update(children="")),
    ("job-of-children-in-an-object", "`children` is an object.", E, "MERGE-26", "job", lambda p: p.update(children={"0": p["children"][0]})),
    ("entry-of-claims-of-nobody", "What counts as claimed is there, and nobody claims.", E, "MERGE-26", "job", inside("totals", "guidelines", "asClaimed", "claims", value=[])),
    ("entry-that-claims-nothing-of-a-format", "A claimed format has no share.", E, "MERGE-26", "job", inside("totals", "guidelines", "asClaimed", "claims", 0, "precision", value="bf16:1,fp8:0")),
    ("entry-that-claims-half-a-format", "The shares of claimed formats are a half together.", E, "MERGE-26", "job", inside("totals", "guidelines", "asClaimed", "claims", 0, "precision", value="bf16:0.3,fp8:0.2")),
    ("children-out-of-order-by-a-malformed-rank", "A rank below zero, behind the rank 0: the order comes before the entries.", ORDER, "MERGE-17", "job", lambda p: p["children"][1].update(rank=-1)),
    ("children-out-of-order-and-twice", "The first child is there again behind the second.", ORDER, "MERGE-17", "job", lambda p: p["children"].append(p["children"][0])),
    ("job-of-no-children", "No child is there.", "no_children", "MERGE-27", "job", lambda p: p.update(children=[])),
    ("segment-that-is-alone", "A segment continues none and is not continued.", E, "MERGE-19", "run", lambda p: p["children"][0]["segment"].update(isContinued=False, continues=None)),
    ("segment-of-another-number", "A segment continues one of another number than the one before.", E, "MERGE-19", "run", lambda p: [e["segment"].update(number=9) for e in p["children"] if e["segment"]["number"] == 3]),
    ("segment-of-no-records", "The journal of a segment has no records.", E, "MERGE-19", "run", lambda p: p["children"][0]["segment"]["journal"].update(records="0")),
    ("segment-of-another-node", "A segment continues one of another node.", "segments_part", "MERGE-24", "run", _of_another_node),
    ("job-with-a-lineage", "A job has a lineage.", E, "MERGE-4", "job", put("lineage", value={"name": "x", "runs": []})),
    ("lineage-with-a-run", "A lineage has a run.", E, "MERGE-3", "lineage", put("run", value={"id": "x", "platform": "slurm", "jobName": None, "jobArn": None})),
    ("lineage-with-nodes", "A lineage has nodes of a job.", E, "MERGE-5", "lineage", put("jobNodes", value=["node-0"])),
    ("lineage-of-no-name", "A lineage has no name.", E, "MERGE-4", "lineage", put("lineage", value={"runs": []})),
    ("entry-of-no-evidence", "`byEvidence` of an entry is null.", E, "MERGE-26", "job", inside("totals", "executed", "byEvidence", value=None)),
    ("segment-of-other-bytes", "A segment names other bytes than the one before has.", "segments_part", "MERGE-24", "run", lambda p: [e["segment"]["continues"].update(bytes="1") for e in p["children"] if e["segment"]["number"] == 2]),
    ("segment-behind-an-end", "A segment continues one that is not continued.", "segments_part", "MERGE-24", "run", lambda p: [e["segment"].update(isContinued=False) for e in p["children"] if e["segment"]["number"] == 2]),
    ("sum-of-integers-bent", "Integer operations are one more than the sum.", BENT, "MERGE-10", "job", lambda p: _more(p["totals"]["integerOperations"], "high")),
    ("sum-of-what-counts-bent", "What counts is one more than the sum.", BENT, "MERGE-11", "job", lambda p: _more(p["totals"]["guidelines"]["cumulative"], "high")),
    ("sum-of-energy-bent", "Energy is more than the sum.", BENT, "MERGE-14", "job", put("energyJoules", value="8.401")),
    ("sum-of-device-time-bent", "Device time is more than the sum.", BENT, "MERGE-14", "job", put("deviceSeconds", value="16.000000001")),
    ("coverage-bent", "Coverage is one millionth less.", BENT, "MERGE-15", "job", put("coverage", "coveragePpm", value="999999")),
    ("count-of-ledgers-bent", "There is one ledger more than children.", BENT, "MERGE-7", "job", put("ledgerCount", value="3")),
    ("end-of-the-job-at-no-time", "The last record of the job is of no day.", E, "MERGE-26", "job", put("lastRecordAt", value="2026-09-1T14:13:24.000000Z")),
    ("begin-of-the-job-bent", "The job begins before its children.", BENT, "MERGE-8", "job", put("startedAt", value="2026-09-21T14:13:19.000000Z")),
    ("method-of-the-job-bent", "A method is declared that no child declares.", BENT, "MERGE-12", "job", put("declared", "method", value="full")),
    ("state-of-the-job-bent", "A finding of the job has another state.", BENT, "MERGE-13", "job", lambda p: p["findings"][0].update(state="above")),
    ("node-of-the-job-bent", "A node's summary has a device more.", BENT, "MERGE-16", "job", lambda p: p["nodes"][0].update(devices="3")),
    ("evidence-of-a-job", "A job has an item of evidence, which ledgers of nodes alone have.", BENT, "MERGE-13", "job", put("evidence", value=[ABSENT])),
    ("replay-of-the-job-bent", "A child is said to be a replay.", BENT, "MERGE-2", "job", put("replay", value={"children": "1"})),
]  # fmt: skip


def _more(figures: J, name: str) -> None:
    figures[name] = str(int(figures[name]) + 1)


def _again(predicate: J, **period: str) -> None:
    of_one_node(predicate["children"], **period)
    _declared("1")(predicate)


def follows(statement: J, policy: J) -> J:
    """The statement that follows from the entries, or the original one where none follows."""
    predicate = statement["predicate"]
    try:
        predicate["children"].sort(key=order)
        again = predicate_of_children(predicate, predicate["children"], [policy])
        subject = [{"name": entry["name"], "digest": {"sha256": entry["sha256"]}} for entry in predicate["children"]]
        encode({**statement, "subject": subject, "predicate": again})
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, AssertionError, ArithmeticError, Refused):
        return statement
    found: J = ordered({**statement, "subject": subject, "predicate": again}, statement)
    return found


def refused(cases: Sequence[Case]) -> Files:
    """The vectors of a table: each an edited predicate of a merge, with the statement that follows from it."""
    files: Files = {}
    children = {
        "job": [node(0), node(1)],
        "run": segments(),
        "lineage": [Child(one, {}) for one in entries_of("lineage")],
    }
    facts: dict[str, J] = {"run": {"jobNodes": [], "completeness": {"declaredNodes": "1"}}}
    kinds = {"job": "job", "run": "job", "lineage": "lineage"}
    good = {of: json.loads(json.dumps(merged(kinds[of], children[of], **facts.get(of, {})))) for of in kinds}
    named = good["job"]["predicate"]["method"]["policies"][0]
    policy = {**read_yaml(POLICY.read_bytes()), "sha256": named["sha256"]}
    for name, what, code, clause, base, edit in cases:
        changed = copy.deepcopy(good[base])
        edit(changed["predicate"])
        followed = changed if code in (BENT, ORDER) else follows(changed, policy)
        statement = changed if followed == good[base] else followed  # the statement that follows may lack the fault
        path = "statement.predicate.children" if code == ORDER else None
        files |= vector(f"merged/{name}", what, statement, None, code, clause, path, schema=None)
    return files


def refused_merges() -> Files:
    return refused(CASES)
