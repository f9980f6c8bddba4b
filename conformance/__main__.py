"""`python -m conformance`: run a verifier over the test vectors, pack them, list the clauses. docs/conformance.md."""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
from pathlib import Path

from conformance import run as runner
from conformance.clauses import clauses
from conformance.decided import decided, undecided
from conformance.judge import FAILED
from conformance.pack import NAME, pack
from conformance.vectors import ROOT, unpack, vectors_in

VECTORS = ROOT / "tests" / "vectors"
REFUSALS = ROOT / "flopsd" / "core" / "ledger" / "schema" / "refusals-v1.json"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="run a command over the vectors: run [options] -- COMMAND [ARGUMENT...]")
    run.add_argument("--vectors", type=Path, default=VECTORS, help="a folder of vectors, or their archive")
    run.add_argument("--only", default="*", metavar="PATTERN", help="vectors of these names, such as 'invalid/law*'")
    run.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    run.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for one vector (default: 60)")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    packing = verbs.add_parser("pack", help="write the vectors as one archive with a manifest")
    packing.add_argument("-o", "--output", type=Path, default=Path(f"{NAME}.tar.gz"))
    verbs.add_parser("clauses", help="list the clauses of the format's pages with the vectors that decide each")
    arguments = parser.parse_args(words)
    if arguments.verb == "clauses":
        names, reasons = decided(VECTORS, vectors_in(VECTORS)), undecided(VECTORS)
        for clause in clauses(ROOT / "docs"):
            by = " ".join(names.get(clause.id, ())) or f"none: {reasons.get(clause.id)}"
            print(f"{clause.id}\t{clause.page}:{clause.line}\t{by}\t{clause.text}")
        return 0
    if arguments.verb == "pack":
        arguments.output.write_bytes(pack(VECTORS, REFUSALS))
        print(arguments.output)
        return 0
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no command: python -m conformance run -- COMMAND")
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.vectors if arguments.vectors.is_dir() else unpack(arguments.vectors, Path(folder))
        chosen = [vector for vector in vectors_in(root) if fnmatch.fnmatch(vector.name, arguments.only)]
        outcomes = runner.run(command, chosen, arguments.timeout)
    print("\n".join(runner.lines(outcomes)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(runner.as_json(command, outcomes), indent=1) + "\n")
    return 1 if not outcomes or any(outcome.result == FAILED for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
