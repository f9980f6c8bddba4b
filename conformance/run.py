"""Runs a command over all vectors, and reports by clause."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conformance.judge import FAILED, PARTLY, PASSED, Outcome, judge
from conformance.vectors import Vector


def run(command: Sequence[str], vectors: Sequence[Vector], timeout_s: float) -> list[Outcome]:
    """What the command does with each vector, in their order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda vector: run_one(command, vector, timeout_s), vectors))


def run_one(command: Sequence[str], vector: Vector, timeout_s: float) -> Outcome:
    arguments = [*command, *vector.expected["arguments"]]
    try:
        done = subprocess.run(
            arguments, cwd=vector.folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(vector, FAILED, f"no verdict after {timeout_s:g} s")
    return judge(vector, done.returncode, done.stdout, predicate_of(vector))


def predicate_of(vector: Vector) -> Any:
    """The predicate in the payload of a valid vector; None where there is none to compare."""
    if vector.expected["verdict"] != "accept":
        return None
    text = json.loads((vector.folder / vector.expected["arguments"][0]).read_bytes())["payload"]
    padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    return json.loads(base64.b64decode(padded))["predicate"]


def as_json(command: Sequence[str], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The report of a run, for programs."""
    return {
        "format": "flopsd-conformance/1",
        "command": list(command),
        "passed": counted(outcomes, PASSED),
        "inPart": counted(outcomes, PARTLY),
        "failed": counted(outcomes, FAILED),
        "vectors": [outcome.as_json() for outcome in outcomes],
    }


def counted(outcomes: Sequence[Outcome], result: str) -> int:
    return sum(outcome.result == result for outcome in outcomes)


def lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The report of a run, for people: the clauses that refusals are about, the valid vectors, then every fault."""
    by_clause: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_clause.setdefault(outcome.vector.expected["clause"] or "accepted", []).append(outcome)
    yield f"{'clause':12} {'passed':>7} {'in part':>8} {'failed':>7}"
    for clause in sorted(by_clause, key=_order):
        of_clause = by_clause[clause]
        numbers = [counted(of_clause, result) for result in (PASSED, PARTLY, FAILED)]
        yield f"{clause:12} {numbers[0]:7} {numbers[1]:8} {numbers[2]:7}"
    numbers = [counted(outcomes, result) for result in (PASSED, PARTLY, FAILED)]
    yield f"{'all':12} {numbers[0]:7} {numbers[1]:8} {numbers[2]:7}"
    for outcome in outcomes:
        if outcome.result == FAILED:
            yield f"FAILED {outcome.vector.name}: {outcome.why}"


def _order(clause: str) -> tuple[bool, str, int]:
    family, _, number = clause.partition("-")
    return clause == "accepted", family, int(number or 0)
