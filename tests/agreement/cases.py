"""The cases: random ledgers of every kind, and mutants of them, as folders like those of tests/vectors."""

import hashlib
import json
import random
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flopsd.core.envelope import parse_envelope
from flopsd.core.ledger.merged_entry import job_entry
from flopsd.core.ledger.statement import encode
from tests.agreement.random_runs import Node, random_run, random_segments
from tests.fuzz.mutants import JOURNAL, KEY, LEDGER, Mutant, mutant
from tests.make_vectors.files import FIRST, P256, signed, statement_of
from tests.make_vectors.merged import Child, entry_of, handed, merged
from tests.make_vectors.runs import SECRETS
from tests.support.paths import ROOT
from tests.support.story import CONTEXT, PEAKS, POLICY, tell

# Mutants are limited to those with regular files and with options that the other verifiers also have.
TRUSTED = {"--peaks": (PEAKS, ROOT / "config" / "peaks.yaml"), "--policy": (POLICY,)}
FAMILIES = ("bytes", "records", "statement", "signatures", "merged")


@dataclass(frozen=True)
class Case:
    """One ledger and the files handed over with it. `threshold` is the number of keys that must have signed."""

    name: str
    files: dict[str, bytes]
    keys: tuple[str, ...] = (KEY,)
    threshold: int = 1


def ledgers(seed: int, number: int) -> Case:
    """A random ledger: mostly a node's, otherwise that of a job, of a rotated run or of a lineage."""
    draw = random.Random(f"ledger {seed} {number}")
    make = draw.choices((_node, _job, _segments, _lineage), (70, 15, 7, 8))[0]
    return make(draw, f"ledger-{number:04d}")


def mutants(seed: int, number: int) -> Case:
    """A mutant of the files that a verifier gets."""
    family = FAMILIES[number % len(FAMILIES)]
    return _of_mutant(mutant(family, seed * 1_000_000 + number), f"mutant-{number:04d}-{family}")


def _of_mutant(one: Mutant, name: str) -> Case:
    files = {path: data for path, data in one.files.items() if isinstance(data, bytes) and path != "daemon.log"}
    others = tuple(path for path in files if path.endswith(".pub") and path != KEY)
    if "--children" not in one.options:
        files = {path: data for path, data in files.items() if not path.startswith("children/")}
    return Case(name, files, (KEY, *others), 2 if "--threshold" in one.options else 1)


def _node(draw: random.Random, name: str) -> Case:
    child = _child(draw, "ledger", Node())
    key = draw.choice((FIRST, FIRST, P256))
    payload = parse_envelope(child.files[LEDGER]).payload
    return Case(name, {LEDGER: signed(payload, key), JOURNAL: child.files[JOURNAL], KEY: key.public_pem})


def _child(draw: random.Random, stem: str, node: Node) -> Child:
    journal = tell(random_run(draw, node), SECRETS)
    payload = encode(statement_of(journal, *SECRETS.values()))
    return Child(entry_of(payload, journal), {f"{stem}.json": signed(payload), f"{stem}.journal.jsonl": journal})


def _nodes(draw: random.Random) -> list[Child]:
    hosts = tuple(f"node-{rank}" for rank in range(draw.randint(1, 4)))
    found = []
    for rank, host in enumerate(hosts):
        boot = f"00000000-0000-4000-8000-0000000b{rank:02d}00"
        context = replace(CONTEXT, node=host, rank=rank, job_nodes=hosts, boot_id=boot)
        found.append(_child(draw, f"{host}/ledger", Node(context, str(rank + 1))))
    return found


def _job_statement(draw: random.Random) -> tuple[dict[str, Any], list[Child]]:
    children = _nodes(draw)
    hosts = [child.entry["node"] for child in children]
    here = [child for child in children if len(children) == 1 or draw.random() < 0.9] or children[:1]
    return merged("job", here, jobNodes=hosts), here


def _job(draw: random.Random, name: str) -> Case:
    statement, here = _job_statement(draw)
    return _merged_case(name, statement, here if draw.random() < 0.7 else [])


def _segments(draw: random.Random, name: str) -> Case:
    with tempfile.TemporaryDirectory() as folder:
        journals = random_segments(draw)(Path(folder))
    children = []
    for number, journal in enumerate(journals, 1):
        payload, stem = encode(statement_of(journal, *SECRETS.values())), f"ledger-{number:04d}"
        files = {f"{stem}.json": signed(payload), f"{stem}.journal.jsonl": journal}
        children.append(Child(entry_of(payload, journal), files))
    here = [child for child in children if draw.random() < 0.9] or children
    alone = {"jobNodes": [], "completeness": {"declaredNodes": "1"}}
    return _merged_case(name, merged("job", here, **alone), here)


def _lineage(draw: random.Random, name: str) -> Case:
    entries = []
    for number in range(draw.randint(1, 3)):
        statement, _ = _job_statement(draw)
        run = statement["predicate"]["run"] | {"id": f"run-{number}"}
        for entry in statement["predicate"]["children"]:
            entry["run"] = run["id"]
        payload = encode({**statement, "predicate": {**statement["predicate"], "run": run}})
        entry = job_entry(json.loads(payload)["predicate"], hashlib.sha256(payload).hexdigest(), [FIRST.keyid])
        entries.append(Child(entry, {f"run-{number}.json": signed(payload)}))
    # Devices of several jobs overlap in time, which only shows where the jobs' ledgers are handed over.
    return _merged_case(name, merged("lineage", entries), entries[: draw.randint(0, 2)])


def _merged_case(name: str, statement: dict[str, Any], here: list[Child]) -> Case:
    files = {LEDGER: signed(encode(statement)), KEY: FIRST.public_pem}
    files |= {f"children/{path}": data for path, data in handed(here).items()}
    return Case(name, files)


def write(case: Case, folder: Path) -> Path:
    """The folder of the case."""
    for path, data in case.files.items():
        (folder / case.name / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / case.name / path).write_bytes(data)
    return folder / case.name
