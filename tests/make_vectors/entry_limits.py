"""Vectors of merged ledgers in which one fault more or less, or another order, decides, as `limits.py` for journals."""

import copy
from typing import Any

from flopsd.core.ledger.statement import encode
from tests.make_vectors.edits import edits, put
from tests.make_vectors.entries import ALONE, FREE, accepted, attempts, basis, entries_of, ranks, with_basis
from tests.make_vectors.entries import Case as CaseOfEntries
from tests.make_vectors.files import VALID_RUNS, Files, signed, statement_of, vector
from tests.make_vectors.merged import Child, entry_of, merged
from tests.make_vectors.refused_merges import ENERGY, Case, E, refused
from tests.make_vectors.refused_merges import Edit as EditOfPredicate
from tests.support.story import tell

J = dict[str, Any]
TWO: J = {"jobNodes": [], "completeness": {"declaredNodes": "2"}}
WHY = ("no_configuration", "no_model_declared", "no_process", "no_work", "total_is_zero")
BASIS, NO_METHOD = basis(7 * 10**14, 10**15, "shape"), basis(7 * 10**14, 10**15)


def _energies(entries: list[J]) -> None:
    for entry, seconds in zip(entries, ("4.000000001", "3.999999998"), strict=True):
        entry["reconciliation"] = [{**ENERGY, "deviceSeconds": seconds}]


def _moved(entries: list[J]) -> None:
    """Rank 0 was on another node in the second attempt."""
    attempts(("0",), ("1",))(entries)
    for period in entries[1]["periods"]:
        period.update({name: str(int(period[name]) + 3600 * 10**9) for name in ("beginNs", "endNs")})
    for times in entries[1]["deviceTimes"]:
        times.update({name: str(int(times[name]) + 3600 * 10**9) for name in ("beginNs", "endNs")})
    entries[1]["rank"] = 0


def _moved_and_missing(entries: list[J]) -> None:
    """Rank 0 was on two nodes, and has no ledger of an attempt in which rank 1 has one."""
    attempts(("0",), ("0", "1", "2"))(entries)
    third = copy.deepcopy(entries[0])
    third.update(node="a-node", sha256="ab" * 32, name=f"a-node/{'ab' * 8}")
    third["periods"][0].update(attempt="1", bootId="another boot")
    for times in (*third["periods"], *third["deviceTimes"]):
        times.update({name: str(int(times[name]) + 7200 * 10**9) for name in ("beginNs", "endNs")})
    third["deviceTimes"][0]["devices"] = ["GPU-another"]
    entries.append(third)


def _a_third(entries: list[J]) -> None:
    third = copy.deepcopy(entries[0])
    third.update(node="a-node", sha256="ab" * 32, name=f"a-node/{'ab' * 8}")
    third["deviceTimes"][0]["devices"] = ["GPU-another"]
    entries.append(third)
    ranks(0, None, None)(entries)


@edits
def _reasons(entries: list[J], *of_each: tuple[str, ...]) -> None:
    for entry, codes in zip(entries, of_each, strict=True):
        entry["totals"].update(architecture=None, architectureAbsentReasons=[{"code": code} for code in codes])


def _silent_beside_another(entries: list[J]) -> None:
    """A run of three segments in which no process works, and another node that has a basis."""
    entries.append(entries_of("job")[1])
    with_basis("no_work", "no_work", "no_work", BASIS)(entries)


def _segment_of_two_reasons(entries: list[J]) -> None:
    with_basis(BASIS, "no_work", BASIS)(entries)
    entries[1]["totals"]["architectureAbsentReasons"] = [{"code": "no_process"}, {"code": "no_work"}]


@edits
def _claims(entries: list[J], *formats: str) -> None:
    """The first node's processes claim these formats."""
    claimed = entries[0]["totals"]["guidelines"]["asClaimed"]
    claimed["claims"] = [{**claimed["claims"][0], "precision": one} for one in sorted(formats)]


CASES: list[CaseOfEntries] = [
    ("job-with-energies-to-the-nanosecond", "Energies are compared of times that have all their decimals.", "job", _energies, {}),
    ("job-with-a-rank-that-moved", "One rank was on two nodes, one attempt after the other.", "job", _moved, ALONE),
    ("job-with-a-moved-rank-that-is-missing", "A rank that was on two nodes has no ledger of one attempt.", "job", _moved_and_missing, TWO),
    ("job-with-attempts-and-boots", "Some attempts are boots, and others are not.", "job", attempts(("0", "boot"), ("1", "boot")), {}),
    ("job-with-as-many-other-attempts", "Two nodes have as many attempts, and not the same.", "job", attempts(("0", "1"), ("0", "2")), {}),
    ("job-with-all-ranks-and-none-declared", "Ranks 0 and 1, and nothing declared.", "job", ranks(0, 1), FREE),
    ("job-with-three-nodes-of-which-one-has-a-rank", "Of three nodes two have no rank.", "job", _a_third, {"jobNodes": [], "completeness": {"declaredNodes": "3"}}),
    ("job-with-more-reasons-of-a-node", "One node has more reasons than it names.", "job", _reasons((*WHY[:4], "more_reasons"), WHY[1:2]), {}),
    ("run-with-a-silent-segment-for-two-reasons", "A segment in which no process works, for two reasons.", "run", _segment_of_two_reasons, ALONE),
    ("run-that-is-silent-beside-another", "Of two nodes one has no process that works in any of its segments.", "run", _silent_beside_another, TWO),
    ("job-with-claims-of-shares", "Processes claim shares of formats.", "job", _claims("bf16:0.25,fp8:0.75", "bf16:0.333333,fp16:0.333333,fp8:0.333334", "bf16:0.999999,fp8:1e-06"), {}),
]  # fmt: skip


def both(**changes: Any) -> EditOfPredicate:
    """Set members of every entry."""
    return lambda p: [entry.update(copy.deepcopy(changes)) for entry in p["children"]]


def _declared(**changes: Any) -> EditOfPredicate:
    return lambda p: [entry["declared"].update(copy.deepcopy(changes)) for entry in p["children"]]


def _claim(format_: str) -> EditOfPredicate:
    return lambda p: _claims(format_)(p["children"])


@edits
def _numbers(predicate: J, name: str) -> None:
    """Runs or nodes have numbers for names."""
    predicate.update(jobNodes=[])
    predicate["completeness"]["declaredNodes"] = None
    for number, entry in enumerate(predicate["children"]):
        entry[name] = number
        entry["name"] = f"{number}/{entry['sha256'][:16]}"


REFUSED: list[Case] = [
    ("claim-of-no-format", "A claimed format is none.", E, "MERGE-26", "job", _claim("magic")),
    ("claim-of-a-format-without-its-share", "One of two claimed formats has no share.", E, "MERGE-26", "job", _claim("bf16:1,fp8")),
    ("claim-of-none-of-a-format", "A claimed format has a share of 0.", E, "MERGE-26", "job", _claim("bf16:1,fp8:0")),
    ("claim-of-less-than-a-whole", "Claimed shares are a millionth less than a whole.", E, "MERGE-26", "job", _claim("bf16:0.333333,fp8:0.666666")),
    ("claim-of-a-share-that-is-none", "A claimed share is not a number.", E, "MERGE-26", "job", _claim("bf16:half,fp8:0.5")),
    ("replay-not-allowed", "One of two children is a replay.", "replay", "VERIFY-7", "job", put("children", 0, "replay", value=True)),
    ("entry-of-a-cluster", "An entry of a lineage is neither a node nor a job.", E, "MERGE-19", "lineage", both(kind="cluster")),
    ("entry-of-a-run-by-number", "Runs of a lineage are numbers.", E, "MERGE-19", "lineage", _numbers("run")),
    ("entry-of-a-node-by-number", "Nodes of a job are numbers.", E, "MERGE-19", "job", _numbers("node")),
    ("entry-of-a-version-by-number", "`flopsdVersions` has a number.", E, "MERGE-26", "job", both(flopsdVersions=[1])),
    ("entry-of-a-node-with-a-conflict", "An entry of a node has the conflicts of a job.", E, "MERGE-22", "job", _declared(conflict=[])),
    ("entry-with-a-conflict-of-a-number", "A conflict of an entry is a number.", E, "MERGE-22", "lineage", _declared(conflict=[7])),
    ("entry-with-a-basis-by-no-method", "The architecture basis of an entry has no method.", E, "MERGE-26", "job", lambda p: with_basis(NO_METHOD, NO_METHOD)(p["children"])),
    ("entry-of-a-time-with-a-zero", "A time of an entry has a leading zero.", E, "MERGE-20", "job", lambda p: p["children"][0]["periods"][0].update(beginNs="0" + p["children"][0]["periods"][0]["beginNs"])),
    ("entry-of-a-time-by-number", "A time of an entry is a number.", E, "MERGE-20", "job", lambda p: p["children"][0]["periods"][0].update(beginNs=int(p["children"][0]["periods"][0]["beginNs"]))),
    ("segment-of-number-true", "The number of a segment is true.", E, "MERGE-19", "run", lambda p: [e["segment"].update(number=True) for e in p["children"] if e["segment"]["number"] == 1]),
    ("segment-of-a-journal-with-another-member", "The journal of the last segment has one member too many.", E, "MERGE-19", "run", lambda p: [e["segment"]["journal"].update(lines="5") for e in p["children"] if e["segment"]["number"] == 3]),
    ("claim-of-41-digits", "A claimed count has 41 digits.", E, "MERGE-26", "job", lambda p: p["children"][0]["totals"]["guidelines"]["asClaimed"]["claims"][0]["flop"].update(high="1" * 41)),
    ("entry-of-no-method", "A method is declared that there is not.", E, "MERGE-26", "job", _declared(method="magic")),
    ("entry-with-a-contradiction-of-a-number", "A contradiction has a number for a parameter.", E, "MERGE-26", "job", _declared(contradictions=[{"name": "x", "code": "y", "flop": 7}])),
]  # fmt: skip


def entry_limits_vectors() -> Files:
    files = {**accepted(CASES), **refused(REFUSED)}
    replay = files["merged/replay-not-allowed/ledger.json"]
    what = "One of two children is a replay. The reader allows that."
    files |= vector("merged/replay-allowed", what, replay, None, more=("--allow-replay",))
    return files | _with_children()


def _child(of: str) -> Child:
    """A node with the run of a valid vector."""
    journal = tell(VALID_RUNS[of])
    payload = encode(statement_of(journal))
    return Child(entry_of(payload, journal), {"ledger.json": signed(payload), "ledger.journal.jsonl": journal})


def _with_children() -> Files:
    """Merged ledgers with their children present: the devices of an entry follow from their journals."""
    files: Files = {}
    for name, what, of in (
        ("job-of-a-chip", "A device without a serial number, whose name is that of its node and its own.", "neuron-count"),
        ("job-of-devices-that-others-had", "Times in which devices were accounted elsewhere.", "accounted-elsewhere"),
    ):  # fmt: skip
        child = _child(of)
        files |= {f"merged/{name}/children/{path}": data for path, data in child.files.items()}
        files |= vector(f"merged/{name}", what, merged("job", [child], **ALONE), None, more=("--children", "children"))
    return files
