"""The vectors of ledgers made of ledgers."""

import base64
import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.merged_entry import Entry, job_entry, node_entry, sort_key
from flopsd.core.ledger.merged_statement import recompute_merged
from flopsd.core.ledger.statement import encode
from flopsd.core.model import Growth
from flopsd.core.policy.policy_file import Policy
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionOpened, WorkCounted
from flopsd.journal.segments import closed_segments
from flopsd.system.clock import NS_PER_S
from tests.make_vectors.files import FIRST, SEALED_AT, SECOND, Files, case, parsed, signed, statement_of, vector
from tests.make_vectors.findings import policy_of
from tests.make_vectors.runs import BUSY, PLAIN, TRAINING
from tests.support.story import A100, CONTEXT, CYCLES_H100, H100, VECTORS, VERSION, Story, chain, policy, tell

LATER_VERSION = "0.2.0"  # merges the nodes of a job that `VERSION` metered
HOSTS = ("node-0", "node-1")
ALONE: dict[str, Any] = {"jobNodes": [], "completeness": {"declaredNodes": "1"}}
BY_METHOD = """\
id: ours
title: A policy of our own, by how weights are trained
rules:
  - {id: adapters, citation: c, at_least: "1", when: {method: [qlora, lora]}}
  - {id: quantized, citation: c, at_least: "1", when: {method: [qlora]}}
  - {id: quantized-and-below, citation: c, at_least: "1e30", when: {method: [qlora]}}
  - {id: all-weights, citation: c, at_least: "1", when: {method: [full]}}
  - {id: any-but-one, citation: c, at_least: "1", when: {modification: true, method: [full, lora]}}
  - {id: from-scratch, citation: c, at_least: "1", when: {method: [pretraining]}}
"""


@dataclass(frozen=True)
class Child:
    entry: Entry
    files: dict[str, bytes]


def node(
    rank: int, seconds: int = 4, *, ended: bool = True, compared: bool = False, attempt: str = CONTEXT.attempt
) -> Child:
    """A node of the job: an H100 that works and an A100 with only an upper bound. Without an end it is the run so
    far. A process of the first node claims to evaluate in TF32. Compared: no process, and as much energy as
    published runs used."""
    context = replace(
        CONTEXT, node=HOSTS[rank], rank=rank, job_nodes=HOSTS, boot_id=f"00000000-0000-4000-8000-00000000b00{rank}",
        attempt=attempt,
    )  # fmt: skip
    gpus = [replace(gpu, uid=f"{gpu.uid[:-2]}{rank}{gpu.uid[-1]}") for gpu in (H100, A100)]

    def story(folder: Path) -> bytes:
        stated = Story(folder, gpus, context=context, power=1000 if compared else 1)
        if rank == 0 and not compared:
            process = "22" * 16
            stated.says(SessionOpened(process, 4711, 1000, "0.1.0"), FactsDeclared(process, {"precision": "tf32"}))
            stated.says(PhaseChanged(process, "evaluate"))
        stated.during(seconds, {gpus[0]: PLAIN if compared else TRAINING, gpus[1]: BUSY})
        if compared:  # go on until its energy and its work cover the same time
            stated.clock.advance(600 * NS_PER_S)
            stated.during(1, {gpus[0]: PLAIN, gpus[1]: BUSY})
        return stated.finish() if ended else stated.so_far()

    journal = tell(story)
    payload = encode(statement_of(journal))
    name = f"{HOSTS[rank]}/ledger"
    return Child(entry_of(payload, journal), {f"{name}.json": signed(payload), f"{name}.journal.jsonl": journal})


def segments(goes_on: int = 3) -> list[Child]:
    """A run that is rotated twice, with a process that goes on training; its last segment takes `goes_on` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        stated, process = Story(Path(folder), (CYCLES_H100, A100)), "22" * 16
        stated.says(SessionOpened(process, 4711, 1000, "0.1.0"), FactsDeclared(process, {"precision": "tf32"}))
        for segment, seconds in enumerate((4, 3, goes_on), 1):
            stated.says(PhaseChanged(process, "train"), WorkCounted(process, {"train": {"tokens": segment * 1000}}))
            stated.during(seconds, {CYCLES_H100: lambda _: Growth(), A100: BUSY})
            assert segment == 3 or stated.writer.rotate()
        last = stated.finish()
        return _children_of([*(path.read_bytes() for path in closed_segments(stated.state)), last])


def _set_back() -> list[Child]:
    """A run that is rotated, whose machine boots again with its wall clock set back into the first segment."""
    with tempfile.TemporaryDirectory() as folder:
        stated = Story(Path(folder), (H100,))
        stated.during(4, {H100: PLAIN})
        assert stated.writer.rotate()
        stated.during(2, {H100: PLAIN})
        stated.kill()
        stated.reboot(replace(CONTEXT, boot_id="00000000-0000-4000-8000-00000000b002"))
        stated.clock.step_wall(-5 * NS_PER_S)
        stated.start()
        stated.during(2, {H100: PLAIN})
        last = stated.finish()
        return _children_of([*(path.read_bytes() for path in closed_segments(stated.state)), last])


def _children_of(journals: Sequence[bytes]) -> list[Child]:
    children = []
    for number, journal in enumerate(journals, 1):
        payload, name = encode(statement_of(journal)), f"ledger-{number:04d}"
        children.append(
            Child(entry_of(payload, journal), {f"{name}.json": signed(payload), f"{name}.journal.jsonl": journal})
        )
    return children


def entry_of(payload: bytes, journal: bytes) -> Entry:
    history = read_history(line.record() for line in parsed(journal))
    digest = hashlib.sha256(payload).hexdigest()
    return node_entry(json.loads(payload)["predicate"], history, digest, [FIRST.keyid])


def of_one_node(vector: str) -> dict[str, Any]:
    """The statement of a job whose only node is the valid vector of that name."""
    folder = VECTORS / "valid" / vector
    payload = base64.b64decode(json.loads((folder / "ledger.json").read_bytes())["payload"])
    entry = entry_of(payload, (folder / "ledger.journal.jsonl").read_bytes())
    run = json.loads(payload)["predicate"]["run"]
    return merged("job", [Child(entry, {})], run=run, jobNodes=[], completeness={"declaredNodes": "1"})


def merged(kind: str, children: Sequence[Child], **facts: Any) -> dict[str, Any]:
    """The statement that results from merging."""
    return merged_by((policy(),), kind, children, facts)


def merged_by(
    policies: tuple[Policy, ...], kind: str, children: Sequence[Child], facts: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The same by other policies than the vectors' own."""
    job = kind == "job"
    facts = {
        "kind": kind,
        "run": {"id": "vector", "platform": "slurm", "jobName": "slurm-4711", "jobArn": None} if job else None,
        "jobNodes": list(HOSTS) if job else [],
        "lineage": None if job else {"name": "a model"},
        "completeness": {"declaredNodes": None},
        "method": {"flopsdVersion": VERSION, "sealedAt": SEALED_AT},
        **facts,
    }
    return recompute_merged(facts, sorted((child.entry for child in children), key=sort_key), policies)


def handed(children: Sequence[Child]) -> dict[str, bytes]:
    return {name: data for child in children for name, data in child.files.items()}


def bent(statement: dict[str, Any], edit: Callable[[dict[str, Any]], object]) -> bytes:
    """The signed ledger of a statement whose predicate was edited beforehand."""
    document = copy.deepcopy(statement)
    edit(document["predicate"])
    return signed(encode(document))


def merged_vectors() -> Files:
    nodes = [node(0), node(1)]
    job = merged("job", nodes)
    payload = encode(job)
    entry = job_entry(json.loads(payload)["predicate"], hashlib.sha256(payload).hexdigest(), [FIRST.keyid])
    endless = [nodes[0], node(1, ended=False)]
    again = [node(0, attempt="1"), node(1, attempt="1")]
    sealed_later = encode(merged("job", nodes, method={"flopsdVersion": LATER_VERSION, "sealedAt": SEALED_AT}))
    later = job_entry(json.loads(sealed_later)["predicate"], hashlib.sha256(sealed_later).hexdigest(), [FIRST.keyid])
    energetic = [node(0, compared=True), node(1, compared=True)]
    child = base64.b64decode(json.loads(nodes[1].files["node-1/ledger.json"])["payload"])
    countersigned = {**handed(nodes), "node-1/ledger.json": signed(child, FIRST, SECOND).rstrip()}
    twice = copy.deepcopy(job)
    twice["predicate"]["children"] = [nodes[0].entry, nodes[0].entry]
    high = job["predicate"]["totals"]["executed"]["high"]
    made: dict[str, tuple[bytes, Files]] = {
        "job": (signed(payload), handed(nodes)),
        "job-alone": (signed(payload), {}),
        "job-energy": (signed(encode(merged("job", energetic))), handed(energetic)),
        "job-child-countersigned": (signed(payload), countersigned),
        "job-with-a-hole": (signed(encode(merged("job", nodes[:1]))), handed(nodes[:1])),
        "job-without-its-first-attempt": (signed(encode(merged("job", again))), handed(again)),
        "job-without-an-end": (signed(encode(merged("job", endless))), handed(endless)),
        "lineage": (signed(encode(merged("lineage", [Child(entry, {})]))), {}),
        "lineage-of-a-job-at-hand": (
            signed(encode(merged("lineage", [Child(later, {})]))),
            {"ledger.json": signed(sealed_later)},
        ),
        "sum-bent": (bent(job, lambda p: p["totals"]["executed"].update(high=str(int(high) + 1))), {}),
        "amount-below-zero": (bent(job, lambda p: p["children"][1]["totals"]["executed"].update(low="-1")), {}),
        "hole-left-out": (
            bent(merged("job", nodes[:1]), lambda p: p["completeness"].update(complete=True, missing=[])),
            {},
        ),
        "attempt-left-out": (
            bent(merged("job", again), lambda p: p["completeness"].update(complete=True, missing=[])),
            {},
        ),
        "child-twice": (signed(encode(twice)), {}),
        "children-out-of-order": (bent(job, lambda p: p["children"].reverse()), {}),
        "child-changed": (signed(payload), handed([nodes[0], node(1, seconds=5)])),
        "job-child-without-journal": (signed(payload), _without_journal(handed(nodes))),
        "job-without-a-node": (signed(encode(merged("job", nodes[:1], jobNodes=["node-0"]))), handed(nodes[:1])),
        "job-without-a-node-or-journal": (
            signed(encode(merged("job", nodes[:1], jobNodes=["node-0"]))),
            _without_journal(handed(nodes[:1])),
        ),
        "job-of-another-name": (
            signed(encode(merged("job", nodes, run={**job["predicate"]["run"], "jobName": "slurm-4712"}))),
            handed(nodes),
        ),
        "entry-bent": (signed(encode(merged("job", [nodes[0], Child(_more(nodes[1].entry), {})]))), handed(nodes)),
    }
    made |= segmented()
    made |= _lineages()
    files: Files = {}
    for name, (ledger, children) in made.items():
        files |= case(f"merged/{name}", ledger, None)
        files |= {f"merged/{name}/children/{path}": data for path, data in children.items()}
    set_back = _set_back()
    what = "A machine that booted with its wall clock set back into an earlier segment: the chain orders them."
    name, ledger = "merged/segments-with-the-clock-set-back", signed(encode(merged("job", set_back, **ALONE)))
    files |= vector(name, what, ledger, None, more=("--children", "children"))
    files |= {f"{name}/children/{path}": data for path, data in handed(set_back).items()}
    return files | _of_two_methods()


def _without_journal(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name != "node-0/ledger.journal.jsonl"}


def _job_of_one(run: str, **begin: Any) -> Child:
    """A job of one node: the first node's journal as that of another run, and with another `begin`."""
    records: list[dict[str, Any]] = [
        dict(line.record()) for line in parsed(node(0).files["node-0/ledger.journal.jsonl"])
    ]
    records[0] |= {"run": run, **begin}
    records[0]["context"]["node"]["jobNodes"] = ["node-0"]
    journal = chain(records)
    of = {"id": run, "platform": "slurm", "jobName": "slurm-4711", "jobArn": None}
    child = Child(entry_of(encode(statement_of(journal)), journal), {})
    payload = encode(merged("job", [child], run=of, jobNodes=["node-0"]))
    predicate = json.loads(payload)["predicate"]
    entry = job_entry(predicate, hashlib.sha256(payload).hexdigest(), [FIRST.keyid])
    return Child(entry, {f"{run}.json": signed(payload)})


def _lineages() -> dict[str, tuple[bytes, Files]]:
    """Two jobs of one device, overlapping and one after the other."""
    begin, found = parsed(node(0).files["node-0/ledger.journal.jsonl"])[0].record(), {}
    later = {"boot_id": "another boot", "wall_ns": begin["wall_ns"] + 3600 * NS_PER_S}
    for name, changed in (("at-one-time", {}), ("one-after-the-other", later)):
        jobs = [_job_of_one("one"), _job_of_one("other", **changed)]
        found[f"lineage-of-one-device-{name}"] = signed(encode(merged("lineage", jobs))), handed(jobs)
    bent = [Child(_more(jobs[0].entry), {}), jobs[1]]
    return found | {"lineage-entry-bent": (signed(encode(merged("lineage", bent))), handed(jobs))}


def _of_two_methods() -> Files:
    """Jobs whose nodes declare LoRA and QLoRA, or pretraining and nothing, and their lineages."""
    return {
        **_of_methods(
            "two-methods",
            ("lora", "qlora"),
            "The nodes of a job trained by LoRA and by QLoRA.",
            "A model made by a job whose nodes trained by LoRA and by QLoRA.",
        ),
        **_of_methods(
            "one-undeclared-method",
            ("pretraining", None),
            "One node of a job declares pretraining, the other one nothing: it may be of any method.",
            "A model made by a job of which one node declares pretraining, the other one nothing.",
        ),
    }


def _of_methods(of: str, methods: tuple[str | None, ...], *what: str) -> Files:
    ours, nodes = policy_of(BY_METHOD), []
    more = ("--policy", "our.policy.yaml", "--children", "children")
    for rank, method in enumerate(methods):
        name = f"{HOSTS[rank]}/ledger"
        records = [dict(line.record()) for line in parsed(node(rank).files[f"{name}.journal.jsonl"])]
        records[0]["declared"] = {**records[0]["declared"], "phase": "train", "method": method}
        journal = chain(records)
        payload = encode(statement_of(journal))
        nodes.append(
            Child(entry_of(payload, journal), {f"{name}.json": signed(payload), f"{name}.journal.jsonl": journal})
        )
    job = encode(merged_by((ours,), "job", nodes))
    entry = job_entry(json.loads(job)["predicate"], hashlib.sha256(job).hexdigest(), [FIRST.keyid])
    files: Files = {}
    if of == "two-methods":
        entry_of_three = {**entry, "declared": {**entry["declared"], "method": None}}
        lineage = signed(encode(merged_by((ours,), "lineage", [Child(entry_of_three, {})])))
        name = "merged/lineage-of-two-methods-and-none"
        files |= vector(name, "The same with a third node that declares none.", lineage, None, more=more[:2])
        files[f"{name}/our.policy.yaml"] = BY_METHOD.encode()
    for name, said, ledger, children in (
        (f"job-of-{of}", what[0], signed(job), handed(nodes)),
        (
            f"lineage-of-{of}",
            what[1],
            signed(encode(merged_by((ours,), "lineage", [Child(entry, {})]))),
            {"ledger.json": signed(job)},
        ),
    ):
        files |= vector(f"merged/{name}", said, ledger, None, more=more)
        files[f"merged/{name}/our.policy.yaml"] = BY_METHOD.encode()
        files |= {f"merged/{name}/children/{path}": data for path, data in children.items()}
    return files


def segmented() -> dict[str, tuple[bytes, Files]]:
    """Rotated runs."""
    parts = segments()
    whole, holed = merged("job", parts, **ALONE), merged("job", [parts[0], parts[2]], **ALONE)
    other, third = segments(goes_on=5)[2], parts[2].entry["name"]

    def forge(predicate: dict[str, Any]) -> None:
        entry = next(entry for entry in predicate["children"] if entry["name"] == third)
        entry["segment"]["continues"]["headSha256"] = "0" * 64

    def fork(predicate: dict[str, Any]) -> None:
        for times in (
            *other.entry["periods"],
            *other.entry["deviceTimes"],
        ):  # at another time, or it would be a duplicate
            times.update({name: str(int(times[name]) + 10**12) for name in ("beginNs", "endNs")})
        predicate["children"] = sorted([*predicate["children"], other.entry], key=sort_key)

    return {
        "segments": (signed(encode(whole)), handed(parts)),
        "segments-without-one": (signed(encode(holed)), handed([parts[0], parts[2]])),
        "segments-said-to-be-whole": (bent(holed, lambda p: p["completeness"].update(complete=True, missing=[])), {}),
        "segments-that-do-not-continue": (bent(whole, forge), {}),
        "segments-forked": (bent(whole, fork), {}),
    }


def _more(entry: Entry) -> Entry:
    """An entry with a thousand FLOP more than its child."""
    changed = copy.deepcopy(entry)
    executed = changed["totals"]["executed"]
    for figures in (executed, executed["byEvidence"]["activity"]):
        figures["measured"] = str(int(figures["measured"]) + 1000)
    return changed
