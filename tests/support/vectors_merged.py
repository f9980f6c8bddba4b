"""The vectors of ledgers made of ledgers: `python -m tests.support.vectors_merged` writes them anew, to the byte."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flopsd.core.ledger.history import read_history
from flopsd.core.ledger.merged_entry import Entry, job_entry, node_entry, sort_key
from flopsd.core.ledger.merged_statement import recompute_merged
from flopsd.core.ledger.statement import encode
from tests.support.story import A100, CONTEXT, H100, VECTORS, VERSION, Story, policy, tell
from tests.support.vector_runs import BUSY, TRAINING
from tests.support.vectors import FIRST, SEALED_AT, SECOND, parsed, signed, statement_of

MERGED = VECTORS / "merged"
HOSTS = ("node-0", "node-1")


@dataclass(frozen=True)
class MergedCase:
    """One vector: a merged ledger and what is handed over of its children. `reason` is None where it is valid;
    `needs_children` where only the children show what is wrong."""

    name: str
    what: str
    ledger: bytes
    children: dict[str, bytes] = field(default_factory=dict)  # by file
    reason: str | None = None
    needs_children: bool = False

    @property
    def folder(self) -> Path:
        return MERGED / self.name

    def files(self) -> dict[str, bytes]:
        must = "Must be accepted." if self.reason is None else f"Must be refused. flopsd's reason:\n\n    {self.reason}"
        told = {
            "verdict": "accept" if self.reason is None else "refuse",
            "reason": self.reason,
            "keys": ["ledger.pub"],
            "children": bool(self.children),
            "onlyWithChildren": self.needs_children,
        }
        command = "flopsd verify ledger.json --key ledger.pub --peaks ../../peaks.yaml --policy ../../policy.yaml"
        command += " --children children" if self.children else ""
        readme = f"# {self.name}\n\n{self.what}\n\n{must}\n\n    {command}\n"
        return {
            "ledger.json": self.ledger,
            "ledger.pub": FIRST.public_pem,
            "expected.json": json.dumps(told, indent=1).encode() + b"\n",
            "README.md": readme.encode(),
            **{f"children/{name}": data for name, data in self.children.items()},
        }


@dataclass(frozen=True)
class Child:
    """A child and its entry."""

    entry: Entry
    files: dict[str, bytes]


def node(rank: int, seconds: int = 4, *, ended: bool = True) -> Child:
    """A node of the job: an H100 that works and an A100 that is only bounded. Without an end: the run so far."""
    context = replace(
        CONTEXT, node=HOSTS[rank], rank=rank, job_nodes=HOSTS, boot_id=f"00000000-0000-4000-8000-00000000b00{rank}"
    )  # fmt: skip
    gpus = [replace(gpu, uid=f"{gpu.uid[:-2]}{rank}{gpu.uid[-1]}") for gpu in (H100, A100)]

    def story(folder: Path) -> bytes:
        told = Story(folder, gpus, context=context)
        told.during(seconds, {gpus[0]: TRAINING, gpus[1]: BUSY})
        return told.finish() if ended else told.so_far()

    journal = tell(story)
    payload = encode(statement_of(journal))
    history = read_history(line.record() for line in parsed(journal))
    digest = hashlib.sha256(payload).hexdigest()
    entry = node_entry(json.loads(payload)["predicate"], history, digest, [FIRST.keyid])
    name = f"{HOSTS[rank]}/ledger"
    return Child(entry, {f"{name}.json": signed(payload), f"{name}.journal.jsonl": journal})


def of_one_node(vector: str) -> dict[str, Any]:
    """The statement of a job whose only node is the valid vector of that name."""
    folder = VECTORS / "valid" / vector
    payload = base64.b64decode(json.loads((folder / "ledger.json").read_bytes())["payload"])
    history = read_history(line.record() for line in parsed((folder / "ledger.journal.jsonl").read_bytes()))
    predicate = json.loads(payload)["predicate"]
    entry = node_entry(predicate, history, hashlib.sha256(payload).hexdigest(), [FIRST.keyid])
    facts = {
        "kind": "job",
        "run": predicate["run"],
        "jobNodes": [],
        "lineage": None,
        "completeness": {"declaredNodes": "1"},
        "method": {"flopsdVersion": VERSION, "sealedAt": SEALED_AT},
    }
    return recompute_merged(facts, [entry], (policy(),))


def merged(kind: str, children: Sequence[Child], declared_nodes: int | None = None) -> dict[str, Any]:
    """The statement that merging gives."""
    job = kind == "job"
    run = {"id": "vector", "platform": "slurm", "jobName": "slurm-4711", "jobArn": None}
    facts = {
        "kind": kind,
        "run": run if job else None,
        "jobNodes": list(HOSTS) if job else [],
        "lineage": None if job else {"name": "a model"},
        "completeness": {"declaredNodes": None if declared_nodes is None else str(declared_nodes)},
        "method": {"flopsdVersion": VERSION, "sealedAt": SEALED_AT},
    }
    return recompute_merged(facts, sorted((child.entry for child in children), key=sort_key), (policy(),))


def handed(children: Sequence[Child]) -> dict[str, bytes]:
    return {name: data for child in children for name, data in child.files.items()}


def bent(statement: dict[str, Any], edit: Callable[[dict[str, Any]], object]) -> bytes:
    """The signed ledger of a statement whose predicate was edited before."""
    document = copy.deepcopy(statement)
    edit(document["predicate"])
    return signed(encode(document))


def all_merged() -> list[MergedCase]:
    """All of them."""
    nodes = [node(0), node(1)]
    job = merged("job", nodes)
    payload = encode(job)
    entry = job_entry(json.loads(payload)["predicate"], hashlib.sha256(payload).hexdigest(), [FIRST.keyid])
    again = node(1, seconds=5)
    endless = [nodes[0], node(1, ended=False)]
    counted = json.loads(nodes[1].files["node-1/ledger.json"])
    other = json.loads(signed(b"", SECOND))["signatures"][0]
    counted["signatures"].append({**other, "sig": _signature(nodes[1].files["node-1/ledger.json"])})
    twice = copy.deepcopy(job)
    twice["predicate"]["children"] = [nodes[0].entry, nodes[0].entry]
    high = job["predicate"]["totals"]["executed"]["high"]
    return [
        MergedCase("job", "Two nodes, each with an H100 and an A100, and the ledgers of both.", signed(payload), handed(nodes)),
        MergedCase("job-alone", "The same without its children: its own arithmetic is all that can be checked.", signed(payload)),
        MergedCase(
            "job-child-countersigned",
            "A second party has signed a child since. Children are named by their payload, so it is the same child.",
            signed(payload),
            {**handed(nodes), "node-1/ledger.json": json.dumps(counted, indent=1).encode()},
        ),
        MergedCase(
            "job-with-a-hole",
            "One of two nodes has no ledger, which the roster tells: `complete` is false, and no total has an upper bound.",
            signed(encode(merged("job", nodes[:1]))),
            handed(nodes[:1]),
        ),
        MergedCase(
            "job-without-an-end",
            "A rolling ledger of one node: nobody knows how long it went on, so `complete` is null and no total has an upper bound.",
            signed(encode(merged("job", endless))),
            handed(endless),
        ),
        MergedCase("lineage", "A model made by one job.", signed(encode(merged("lineage", [Child(entry, {})])))),
        MergedCase(
            "sum-bent",
            "A sum is one more than that of its children.",
            bent(job, lambda p: p["totals"]["executed"].update(high=str(int(high) + 1))),
            reason="the ledger does not match the entries of its children: "
            f"statement.predicate.totals.executed.high is '{int(high) + 1}'",
        ),
        MergedCase(
            "amount-below-zero",
            "A child's entry takes work out of the sum.",
            bent(job, lambda p: p["children"][1]["totals"]["executed"].update(low="-1")),
            reason="'-1' is not a count",
        ),
        MergedCase(
            "hole-left-out",
            "A node is missing, and the ledger says that it is whole.",
            bent(merged("job", nodes[:1]), lambda p: p["completeness"].update(complete=True, missing=[])),
            reason="the ledger does not match the entries of its children: "
            "statement.predicate.completeness.complete is True",
        ),
        MergedCase(
            "child-twice",
            "A child is counted twice.",
            signed(encode(twice)),
            reason="its children cannot be merged: the same ledger is given twice",
        ),
        MergedCase(
            "children-out-of-order",
            "The order of children is part of the format, so that who merged cannot choose the bytes.",
            bent(job, lambda p: p["children"].reverse()),
            reason="the children are not in the order of the format",
        ),
        MergedCase(
            "child-changed",
            "A child was sealed again after the merge, with other figures.",
            signed(payload),
            handed([nodes[0], again]),
            reason="is not the ledger that was merged for node-1",
            needs_children=True,
        ),
        MergedCase(
            "entry-bent",
            "A child's entry says more than the child, and the sums follow the entry.",
            signed(encode(merged("job", [nodes[0], Child(_more(nodes[1].entry), {})]))),
            handed(nodes),
            reason="the ledger does not match this child: ",
            needs_children=True,
        ),
    ]  # fmt: skip


def _signature(ledger: bytes) -> str:
    """The second key's signature over a ledger's payload, as base64."""
    payload = base64.b64decode(json.loads(ledger)["payload"])
    text: str = json.loads(signed(payload, SECOND))["signatures"][0]["sig"]
    return text


def _more(entry: Entry) -> Entry:
    """An entry with a thousand FLOP more than its child."""
    changed = copy.deepcopy(entry)
    executed = changed["totals"]["executed"]
    for figures in (executed, executed["byEvidence"]["activity"]):
        figures["measured"] = str(int(figures["measured"]) + 1000)
    return changed


def write_merged(cases: Sequence[MergedCase]) -> None:
    shutil.rmtree(MERGED, ignore_errors=True)
    for case in cases:
        for name, data in case.files().items():
            path = case.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


if __name__ == "__main__":
    write_merged(all_merged())
