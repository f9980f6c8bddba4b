"""`python -m tests.agreement.members [--sample N]`: each member of journals and payloads as "", 0, null, [], {} and
true.

Prints every case in which an implementation's verdict or reason differs from flopsd's. The statement of a journal is
the one that follows from it, whatever its members are, so that an implementation that takes a wrong type accepts the
ledger.
"""

import argparse
import base64
import copy
import json
import logging
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conformance.vectors import Vector, vectors_in
from flopsd.core.ledger.statement import encode
from flopsd.journal.framing import GENESIS, frame
from tests.make_vectors import files as vectors
from tests.make_vectors.files import Files, claimed, parsed, signed, statement_of
from tests.make_vectors.records import follows, journal_of
from tests.second_implementation import verify as second
from tests.support.process import in_process
from tests.support.story import VECTORS
from tests.support.vector_arguments import arguments_of
from tests.vector_mutants import javascript, python

J = dict[str, Any]
Step = str | int
VALUES: tuple[Any, ...] = ("", 0, None, [], {}, True)
JOURNALS = (
    "activity", "phases", "cycles", "lying", "operators", "neuron", "middle", "torn", "seal", "named_late", "clocked",
)  # fmt: skip
PAYLOADS = ("valid/declared-phases", "valid/energy-as-published", "valid/middle-segment", "valid/sealed-by-in-kms",
            "valid/earlier-seal", "merged/job", "merged/job-with-a-basis", "merged/lineage-with-a-hole", "merged/segments")  # fmt: skip


def paths(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The paths of every member, and of the first item of each list."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, one in value.items():
            yield from paths(one, (*path, name))
    elif isinstance(value, list) and value:
        yield from paths(value[0], (*path, 0))


def changes(value: Any, path: tuple[Step, ...]) -> Iterator[tuple[str, Any]]:
    """The value with each of the other values at that path, and its text."""
    for to in VALUES:
        found = part = copy.deepcopy(value)
        for step in path[:-1]:
            part = part[step]
        if repr(part[path[-1]]) != repr(to):
            part[path[-1]] = copy.deepcopy(to)
            yield f"{'.'.join(map(str, path))} = {json.dumps(to)}", found


def chained(records: list[J]) -> bytes:
    head, lines = GENESIS, b""
    for record in records:
        line, head = frame(head, record)
        lines += line
    return lines


def stated(journal: bytes, said: J) -> bytes:
    try:
        return encode(follows(journal, said))
    except Exception:  # noqa: BLE001 - the second implementation without its laws takes anything
        return encode(claimed(journal, said))


def of_journals() -> Iterator[tuple[str, Any, bytes]]:
    """A name for each case, its original statement, and its journal."""
    seen = set()
    for base in JOURNALS:
        journal = journal_of(base)
        records, said = [dict(line.record()) for line in parsed(journal)], statement_of(journal)
        for at, record in enumerate(records):
            for path in paths(record):
                if (shape := (record["kind"], *path)) not in seen:
                    seen.add(shape)
                    for what, one in changes(record, path):
                        bent = chained([*records[:at], one, *records[at + 1 :]])
                        yield f"{base}/{at + 1}: {record['kind']}.{what}", said, bent


def of_payloads() -> Iterator[tuple[str, Any, bytes | None]]:
    seen = set()
    for base in PAYLOADS:
        folder = VECTORS / base
        statement = json.loads(base64.b64decode(json.loads((folder / "ledger.json").read_bytes())["payload"]))
        journal = folder / "ledger.journal.jsonl"
        for path in paths(statement):
            if (shape := (base.partition("/")[0], *path)) not in seen:
                seen.add(shape)
                for what, one in changes(statement, path):
                    yield f"{base}: {what}", encode(one), journal.read_bytes() if journal.exists() else None


def by_flopsd(vector: Vector, root: Path) -> tuple[int, str | None]:
    done = in_process("verify", "--json", *arguments_of(vector, root))
    return done.returncode, json.loads(done.stdout).get("code") if done.stdout.startswith("{") else done.stderr[-80:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.members", description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="so many of them, drawn by --seed; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.disable()
    made = [*of_journals(), *of_payloads()]
    if asked.sample:
        made = random.Random(asked.seed).sample(made, asked.sample)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files: Files = {common: (VECTORS / common).read_bytes() for common in ("peaks.yaml", "policy.yaml")}
        for number, (what, said, journal) in enumerate(made):
            payload = said if isinstance(said, bytes) else stated(journal or b"", said)
            files |= vectors.vector(f"valid/{number:05d}", what, signed(payload), journal)
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        laid = vectors_in(root)
        third = javascript.baseline(laid)
        differ = 0
        for vector in laid:
            one, two = by_flopsd(vector, root), python.verdict(second, vector, root)
            if not one == two == third[vector.name]:
                differ += 1
                print(f"{vector.expected['what']}: flopsd {one}, second {two}, third {third[vector.name]}", flush=True)
    print(f"{differ} of {len(made)} differ")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
