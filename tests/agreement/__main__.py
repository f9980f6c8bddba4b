"""`make agreement`: random ledgers and mutants through every implementation, with each difference from flopsd.

The others must give flopsd's verdict and reason code; an implementation accepts only figures that it has recomputed.
"""

import argparse
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from conformance.judge import FAILED, judge
from conformance.run import counted, predicate_of
from conformance.vectors import Vector, vectors_in
from flopsd.cli import verify
from flopsd.cli.parser import Parser
from flopsd.errors import FlopsdError
from tests.agreement.cases import TRUSTED, Case, ledgers, mutants, write
from tests.second_implementation import verify as second
from tests.support.paths import ROOT

OTHERS = {"second": "tests/second_implementation/verify.py", "verifier": "verifier/batch.mjs"}
CORES = len(os.sched_getaffinity(0))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.agreement", description=__doc__)
    parser.add_argument("--ledgers", type=int, default=1000)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the cases here, and keep them")
    parser.add_argument("--with", dest="chosen", nargs="*", choices=OTHERS, default=list(OTHERS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flopsd-agreement-") as temporary:
        folder = arguments.keep or Path(temporary)
        print(f"{arguments.ledgers} ledgers and {arguments.mutants} mutants of seed {arguments.seed}")
        verdicts = made(folder, arguments.seed, arguments.ledgers, arguments.mutants)
        print("flopsd: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())), flush=True)
        return max((compared(name, folder) for name in arguments.chosen), default=0)


def compared(name: str, folder: Path) -> int:
    """1 if the implementation's verdict or reason differs from flopsd's."""
    vectors = vectors_in(folder)
    with ProcessPoolExecutor(CORES) as pool:
        if name == "second":
            answers = list(pool.map(_second, vectors, chunksize=10))
        else:
            shares = [vectors[begin::CORES] for begin in range(CORES)]
            by_name = dict(pair for share in pool.map(_third, shares) for pair in share)
            answers = [by_name[vector.name] for vector in vectors]
    outcomes = [
        judge(vector, status, out, predicate_of(vector)) for vector, (status, out) in zip(vectors, answers, strict=True)
    ]
    wrong = [outcome for outcome in outcomes if outcome.result == FAILED]
    print(f"{name} ({OTHERS[name]}): {counted(outcomes, 'passed')} alike, {counted(outcomes, 'in part')} in "
          f"part, {len(wrong)} otherwise")  # fmt: skip
    for outcome in wrong[:20]:
        print(f"  {outcome.vector.name}: {outcome.why}")
    return int(bool(wrong))


Answer = tuple[int, bytes]


def _second(vector: Vector) -> Answer:
    """The command run in this process: starting Python takes longer than a ledger."""
    out, before = io.StringIO(), Path.cwd()
    os.chdir(vector.folder)
    try:
        with redirect_stdout(out):
            return second.main(vector.expected["arguments"]), out.getvalue().encode()
    except Exception:  # noqa: BLE001 (a verifier that fails gives no verdict)
        return -1, b""
    finally:
        os.chdir(before)


def _third(vectors: Sequence[Vector]) -> list[tuple[str, Answer]]:
    asked = json.dumps([{"folder": str(one.folder), "arguments": one.expected["arguments"]} for one in vectors])
    done = subprocess.run(
        ["node", ROOT / "verifier" / "batch.mjs"], input=asked.encode(), capture_output=True, check=True
    )
    answers = map(json.loads, done.stdout.splitlines())
    return [(one.name, (said["status"], said["out"].encode())) for one, said in zip(vectors, answers, strict=True)]


def made(folder: Path, seed: int, of_ledgers: int, of_mutants: int) -> Counter[str]:
    """Write the cases as vectors with flopsd's results; returns the count of each verdict."""
    parts = [
        (folder, seed, kind, begin) for kind, count in ((0, of_ledgers), (1, of_mutants)) for begin in range(count)
    ]
    with ProcessPoolExecutor(CORES, initializer=logging.disable) as pool:
        return Counter(pool.map(_made, parts, chunksize=10))


def _made(part: tuple[Path, int, int, int]) -> str:
    folder, seed, kind, number = part
    return judged((ledgers, mutants)[kind](seed, number), folder)


def judged(case: Case, folder: Path) -> str:
    """Write the case as a vector below `folder`, with flopsd's verdict, which is returned."""
    place = write(case, folder / "valid")
    arguments = list(_arguments(case, place))
    try:
        code, said = _verified(arguments, place)
    except FlopsdError:  # --children where a mutant made the ledger that of a node
        arguments = arguments[: arguments.index("--children")]
        code, said = _verified(arguments, place)
    expected: dict[str, Any] = {
        "what": "random", "arguments": arguments, "verdict": {0: "accept", 3: "refuse"}[code], "code": said.get("code"),
        "clause": said.get("clause"), "path": said.get("path"), "schema": "not applicable",
    }  # fmt: skip
    (place / "expected.json").write_text(json.dumps(expected))
    return f"{case.name.partition('-')[0]}s {expected['verdict']}"


def _arguments(case: Case, place: Path) -> Iterator[str]:
    yield "ledger.json"
    for key in case.keys:
        yield from ("--key", key)
    for option, paths in TRUSTED.items():
        for path in paths:
            yield from (option, str(path))
    if case.threshold > 1:
        yield from ("--threshold", str(case.threshold))
    yield "--allow-replay"
    if (place / "children").is_dir():
        yield from ("--children", "children")


def _verified(arguments: Sequence[str], place: Path) -> tuple[int, dict[str, Any]]:
    """`flopsd verify --json` in this process: exit code and printed JSON. Raises FlopsdError for wrong arguments."""
    parser = Parser()
    parser.set_defaults(quiet=False)
    verify.add(parser.add_subparsers(dest="verb"))
    out, before = io.StringIO(), Path.cwd()
    os.chdir(place)
    try:
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            parsed = parser.parse_args(["verify", "--json", *arguments])
            return int(parsed.run(parsed)), json.loads(out.getvalue())
    finally:
        os.chdir(before)


if __name__ == "__main__":
    sys.exit(main())
