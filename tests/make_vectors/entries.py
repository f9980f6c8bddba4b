"""Vectors of merged ledgers that must be accepted: entries of kinds that no simulated children have."""

import copy
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from flopsd.core.ledger.merged_entry import job_entry
from tests.make_vectors.edits import Edit, edits
from tests.make_vectors.files import FIRST, Files, vector
from tests.make_vectors.merged import Child, merged, node, segments

J = dict[str, Any]
# Name, description, base of the entries, their edit, and facts of the merge.
Case = tuple[str, str, str, Edit, J]
ALONE = {"jobNodes": [], "completeness": {"declaredNodes": "1"}}
FREE: J = {"jobNodes": [], "completeness": {"declaredNodes": None}}
KNOWN = {
    "name": "a base model", "kind": "known", "flop": "1000000000000000", "method": None, "systemic": False,
    "declaredBy": "config",
}  # fmt: skip
OTHER = {**KNOWN, "name": "another base model"}


def entries_of(base: str) -> list[J]:
    """The entries of a job of two nodes, of a run in three segments, or of two jobs of a lineage."""
    if base == "lineage":
        return [_job(number) for number in (1, 2)]
    children = segments() if base == "run" else [node(0), node(1)]
    return json.loads(json.dumps([child.entry for child in children]))  # type: ignore[no-any-return]


def _job(number: int) -> J:
    entries = entries_of("job")
    for entry in entries:
        entry["run"] = f"run-{number}"
    run = {"id": f"run-{number}", "platform": "slurm", "jobName": None, "jobArn": None}
    predicate = merged("job", [Child(one, {}) for one in entries], run=run)["predicate"]
    digest = hashlib.sha256(f"job {number}".encode()).hexdigest()
    return json.loads(json.dumps(job_entry(predicate, digest, [FIRST.keyid])))  # type: ignore[no-any-return]


@edits
def declared(entries: list[J], *stated: tuple[str | None, J | None]) -> None:
    """Method and base model of each entry."""
    for entry, (method, base) in zip(entries, stated, strict=True):
        entry["declared"].update(method=method, base=base)


@edits
def ranks(entries: list[J], *numbers: int | None) -> None:
    for entry, number in zip(entries, numbers, strict=True):
        entry["rank"] = number


def of_one_node(entries: list[J], **period: str) -> None:
    """The second entry gets the node and devices of the first, in that period."""
    one, other = entries
    other.update({name: copy.deepcopy(one[name]) for name in ("node", "rank", "periods", "deviceTimes")})
    other["name"] = f"{one['node']}/{other['sha256'][:16]}"
    other["periods"][0].update(period)
    times = other["deviceTimes"][0]
    times.update({name: other["periods"][0][name] for name in ("beginNs", "endNs")})


@edits
def attempts(entries: list[J], *of_each: tuple[str, ...]) -> None:
    """Periods of these attempts, each on its own boot, an hour after the one before."""
    for entry, names in zip(entries, of_each, strict=True):
        first = entry["periods"][0]
        entry["periods"] = []
        for number, name in enumerate(names, 1):
            boot = first["bootId"][:-1] + f"{number}"
            begin, end = (str(int(first[at]) + (number - 1) * 3600 * 10**9) for at in ("beginNs", "endNs"))
            of = {"incarnation": number, "attempt": boot if name == "boot" else name, "bootId": boot}
            entry["periods"].append({**first, **of, "beginNs": begin, "endNs": end})


def _times(entries: list[J]) -> None:
    one, other = entries
    one.update(startedAt="2026-09-21T14:13:19.000000Z", deviceSeconds="8.123456789", energyJoules="4.207")
    one.update(nodeSeconds="4.000000001", energyUncountedSeconds="2.999999999", instanceType="p5.48xlarge")
    other.update(lastRecordAt="2026-09-21T14:13:24.000001Z", deviceSeconds="7.876543212", energyJoules=None)
    one["coverage"].update(observedSeconds="7.123456789", gapSeconds="1.000000001", jobSeconds="8.123456790")
    one["coverage"].update(
        unknownSeconds="1.000000001",
        coveragePpm=str(7123456789 * 10**6 // 8123456790),
        gapSecondsByReason={"stale": "1.000000001"},
    )
    other["coverage"].update(gapSecondsByReason={"stale": "0.000000009", "starting": "0.500000000"})


def basis(computed: int | None, high: int | None, *methods: str) -> J:
    text = None if computed is None else str(computed)
    bounds = {"low": "600000000000000", "computed": text, "high": None if high is None else str(high)}
    return {**bounds, "executed": dict(bounds), "tokens": "1000", "marginPpm": "300000", "method": list(methods)}


@edits
def with_basis(entries: list[J], *of_each: J | str) -> None:
    """The architecture basis of each entry, or the reason that it has none."""
    for entry, one in zip(entries, of_each, strict=True):
        is_basis = isinstance(one, dict)
        reasons = [] if is_basis else [{"code": one}]
        entry["totals"].update(architecture=one if is_basis else None, architectureAbsentReasons=reasons)


def _guidelines(entries: list[J]) -> None:
    """Both have a measured figure of what counts, and one a total."""
    one, other = (entry["totals"]["guidelines"] for entry in entries)
    one.update(low="5", measured="7")
    one["cumulative"].update(low="6", measured="8")
    other.update(low="50", measured="70")
    one["operatorCount"].update(low="3", cumulativeLow="4")


def _claims(entries: list[J]) -> None:
    """Both have claims, one of them two formats."""
    claimed = copy.deepcopy(entries[0]["totals"]["guidelines"]["asClaimed"])
    claimed["claims"] = [{**claimed["claims"][0], "phase": None, "precision": "fp8"}, claimed["claims"][0]]
    claimed.update(measured="1", cumulative={"low": "1", "measured": "2", "high": None})
    entries[1]["totals"]["guidelines"]["asClaimed"] = claimed


def _completeness(**changes: Any) -> Edit:
    return lambda entries: entries[0]["completeness"].update(changes)


HOLE = {"code": "no_ledger", "rank": "1", "node": "node-1"}
CASES: list[Case] = [
    ("job-with-times-to-the-nanosecond", "Times and energies of entries have all their decimals; of one no energy is known.", "job", _times, {}),
    ("job-of-more-seconds-than-64-bits", "A node's energy was not counted for 10^39 seconds.", "job", lambda entries: entries[0].update(energyUncountedSeconds=f"{10**39}.000000000", energyJoules=f"{10**39}.000"), {}),
    ("job-with-a-base-of-one-node", "One of two nodes declares a base model.", "job", declared(("lora", KNOWN), ("lora", None)), {}),
    ("job-with-one-base-twice", "Both nodes declare one base model, and one of them pretraining.", "job", declared(("pretraining", KNOWN), ("full", KNOWN)), {}),
    ("job-with-two-bases", "Two nodes declare two base models.", "job", declared(("full", KNOWN), ("full", OTHER)), {}),
    ("job-with-two-bases-and-pretraining", "Two base models, and pretraining.", "job", declared(("pretraining", KNOWN), (None, OTHER)), {}),
    ("job-that-is-pretraining", "Pretraining, and no base model.", "job", declared(("pretraining", None), ("full", None)), {}),
    ("job-with-two-methods", "Two nodes declare two methods: the wider one holds.", "job", declared(("lora", KNOWN), ("qlora", KNOWN)), {}),
    ("job-with-a-method-of-one-node", "One of two nodes declares a method: none is known.", "job", declared(("lora", KNOWN), (None, KNOWN)), {}),
    ("job-with-a-node-without-a-rank", "One node has no rank, and so nodes are told apart by name.", "job", ranks(None, 0), {"jobNodes": [], "completeness": {"declaredNodes": "2"}}),
    ("job-with-ranks-that-are-missing", "Ranks 1 and 3, and nothing declared: 0 and 2 are missing.", "job", ranks(1, 3), FREE),
    ("job-with-the-highest-rank", "The highest rank of five.", "job", ranks(0, 4), {"jobNodes": [], "completeness": {"declaredNodes": "5"}}),
    ("job-with-nodes-that-are-missing", "Two nodes without ranks, of five.", "job", ranks(None, None), {"jobNodes": [], "completeness": {"declaredNodes": "5"}}),
    ("job-with-nodes-that-are-not-known", "Two nodes without ranks, and nothing declared.", "job", ranks(None, None), FREE),
    ("job-with-an-attempt-less", "One node has no ledger of the second attempt.", "job", attempts(("0", "1"), ("0",)), {}),
    ("job-with-a-boot-less", "Attempts are boots, and one node has one less.", "job", attempts(("boot", "boot"), ("boot",)), {}),
    ("job-with-as-many-boots", "Attempts are boots, and both nodes have as many.", "job", attempts(("boot", "boot"), ("boot", "boot")), {}),
    ("job-with-a-node-one-after-the-other", "Two ledgers of one node and one boot: the second begins where the first ends.", "job", lambda e: of_one_node(e, beginNs=e[0]["periods"][0]["endNs"], endNs="1005000000000"), ALONE),
    ("job-with-a-node-before-the-other", "Two ledgers of one node and one boot: the second ends where the first begins.", "job", lambda e: of_one_node(e, beginNs="999000000000", endNs=e[0]["periods"][0]["beginNs"]), ALONE),
    ("job-with-a-node-on-two-boots", "Two ledgers of one node on two boots: by the wall clock the second begins where the first ends.", "job", lambda e: of_one_node(e, bootId="another boot", beginNs="999999999990", endNs="1001000000000", wallOffsetNs="1789999004000000010"), ALONE),
    ("job-with-figures-that-count", "What counts is measured of one, and partly of the other.", "job", _guidelines, {}),
    ("job-with-claims-of-both", "Processes of both nodes claim.", "job", _claims, {}),
    ("job-with-a-basis", "Both have an architecture basis, by different methods.", "job", with_basis(basis(7 * 10**14, 9 * 10**14, "shape"), basis(8 * 10**14, 10**15, "weights")), {}),
    ("job-with-a-basis-without-an-end", "One basis has no upper bound.", "job", with_basis(basis(None, None, "shape"), basis(8 * 10**14, 10**15, "shape")), {}),
    ("job-with-a-basis-of-one-node", "One of two nodes has no architecture basis.", "job", with_basis(basis(7 * 10**14, 10**15, "shape"), "no_work"), {}),
    ("run-with-a-silent-segment", "In one segment no process works: it takes nothing from the basis.", "run", with_basis(basis(7 * 10**14, 10**15, "shape"), "no_work", basis(9 * 10**14, 10**15, "shape")), ALONE),
    ("run-with-silent-segments", "In no segment a process works.", "run", with_basis("no_work", "no_process", "no_work"), ALONE),
    ("run-with-a-segment-of-no-basis", "In one segment the model is not known.", "run", with_basis(basis(7 * 10**14, 10**15, "shape"), "no_model_declared", "no_work"), ALONE),
    ("job-with-an-entry-of-two-keys", "A child was signed by two keys, which are sorted.", "job", lambda e: e[0].update(keyids=sorted(["0" * 64, *e[0]["keyids"]])), {}),
    ("lineage-of-two-jobs", "Two jobs of one account.", "lineage", lambda _: None, {}),
    ("lineage-with-a-hole", "A ledger of one job is missing.", "lineage", _completeness(complete=False, missing=[HOLE]), {}),
    ("lineage-of-unknown-nodes", "Of one job the number of nodes is not known.", "lineage", _completeness(complete=None), {}),
    ("lineage-without-an-end", "A ledger of one job has no end.", "lineage", _completeness(complete=None, missing=[{**HOLE, "code": "no_end", "ledger": "x", "after": "2026-09-21T14:13:24.000000Z"}]), {}),
    ("lineage-of-one-run-twice", "Two ledgers of one run, the second of which begins where the first ends.", "lineage", lambda e: same_run(e, 0), {}),
]  # fmt: skip


def same_run(entries: list[J], after: int) -> None:
    one, other = entries
    other.update(run=one["run"], name=f"{one['run']}/{other['sha256'][:16]}")
    period = other["periods"][0]
    begin = int(one["periods"][0]["endNs"]) + after
    period.update(beginNs=str(begin), endNs=str(begin + 10**9))


def accepted(cases: Sequence[Case]) -> Files:
    """The vectors of a table: each a merge of edited entries."""
    files: Files = {}
    bases = {base: entries_of(base) for base in ("job", "run", "lineage")}
    for name, what, base, edit, facts in cases:
        entries = copy.deepcopy(bases[base])
        edit(entries)
        statement = merged("lineage" if base == "lineage" else "job", [Child(one, {}) for one in entries], **facts)
        files |= vector(f"merged/{name}", what, statement, None)
    return files


def entries_vectors() -> Files:
    return accepted(CASES)
