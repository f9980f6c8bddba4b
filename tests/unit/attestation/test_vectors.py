"""The published vectors: flopsd's outcome for each matches its expectation."""

import json
import shutil
from argparse import ArgumentParser
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from conformance.clauses import clauses
from conformance.judge import PASSED, Outcome, is_below, judge
from conformance.run import predicate_of
from conformance.vectors import Vector
from flopsd.attestation.merge.verify_merged import VerifiedMerge
from flopsd.cli.main import _parser
from flopsd.report.ledger_text import verified_merge_text
from tests.second_implementation.arithmetic import payload_of
from tests.support.paths import ROOT, SCHEMA
from tests.support.process import in_process
from tests.support.story import PEAKS, POLICY, VECTORS
from tests.support.vector_arguments import arguments_of, published

ALL = published()

REFUSALS = SCHEMA.with_name("refusals-v1.json")
CODES = {one["code"]: one["clause"] for one in json.loads(REFUSALS.read_bytes())["codes"]}
# Codes that more than one clause may define; every other code has one clause.
OF_MANY_CLAUSES = (
    "statement_differs", "statement_malformed", "record_malformed", "entry_malformed", "child_differs", "law_4",
    "law_5", "too_few_signatures",
)  # fmt: skip
NODES = [vector for vector in ALL if not vector.name.startswith("merged/")]
MERGED = VECTORS / "merged"


@cache
def parser() -> ArgumentParser:
    return _parser("verify")


def outcome_of(vector: Vector, root: Path = VECTORS) -> Outcome:
    """As of `flopsd verify --json`, without making the parser again, which takes as long as verifying a vector."""
    arguments, printed = parser().parse_args(["verify", "--json", *arguments_of(vector, root)]), StringIO()
    with redirect_stdout(printed):
        code = arguments.run(arguments)
    return judge(vector, code, printed.getvalue().encode(), predicate_of(vector))


def predicate(vector: Vector) -> dict[str, Any]:
    found: dict[str, Any] = predicate_of(vector)
    return found


def judge_releases(releases: Path) -> list[str]:
    """Every golden ledger of every release, the oldest first; AssertionError if one no longer verifies."""
    found = [
        (root.name, vector)
        for root in sorted(path for path in releases.iterdir() if path.is_dir())
        for vector in (
            Vector(path.parent.name, path.parent, json.loads(path.read_bytes()))
            for path in sorted(root.glob("*/expected.json"))
        )
    ]
    for release, vector in found:
        outcome = outcome_of(vector, releases / release)
        assert outcome.result == PASSED, f"{release}/{vector.name}: {outcome.why}"
    return [f"{release}/{vector.name}" for release, vector in found]


@pytest.mark.long
def test_each_vector_gives_its_expected_outcome() -> None:
    """With its reason and place; flopsd leaves nothing out."""
    wrong = [f"{vector.name}: {fault}" for vector in ALL if (fault := _fault_of(vector))]
    assert wrong == []
    assert len(ALL) > 480


def _fault_of(vector: Vector) -> str:
    outcome, expected = outcome_of(vector), vector.expected
    if outcome.result != PASSED:
        return outcome.why
    if not (expected["verdict"] == "accept") == (expected["code"] is None) == (expected["clause"] is None):
        return "a code without a refusal, or a refusal without"
    if CODES.get(expected["code"]) not in (None, expected["clause"]) and expected["code"] not in OF_MANY_CLAUSES:
        return f"the clause of {expected['code']} is {CODES[expected['code']]}"
    if None not in (expected["path"], outcome.path) and not is_below(outcome.path, [expected["path"]]):
        return f"refused at {outcome.path}"
    if expected.get("acceptedWithoutChildren"):
        arguments = [word for word in arguments_of(vector) if word != "--children" and not word.endswith("/children")]
        return "" if in_process("verify", *arguments).returncode == 0 else "refused without its children too"
    return ""


def test_every_code_is_in_the_table_and_every_clause_on_the_pages() -> None:
    known = {clause.id for clause in clauses(ROOT / "docs")}
    assert {clause for clause in CODES.values() if clause not in known} == set()
    for vector in ALL:
        if vector.expected["verdict"] == "refuse":
            assert vector.expected["code"] in CODES, vector.name
            assert vector.expected["clause"] in known, vector.name


def test_the_vectors_cover_every_kind_of_evidence_gap_and_note() -> None:
    evidence, reasons, pipes = set(), set(), set()
    for vector in NODES:
        if vector.expected["verdict"] == "accept":
            found = predicate(vector)
            work = [row for device in found["devices"] for row in device["work"]]
            evidence |= {row["evidence"] for row in work}
            pipes |= {row["pipe"] for row in work}
            reasons |= set(found["coverage"]["gapSecondsByReason"])
    assert evidence == {"cycles", "activity", "count", "operator_count", "utilization", "gap"}
    assert pipes == {None, "tensor", "tensor_hmma", "tensor_imma", "tensor_dfma", "fp64", "fp32", "fp16"}
    assert {"daemon_down", "driver_timeout", "unknown_device", "other_job", "metered_as_mig", "replaced"} <= reasons


def test_the_ledgers_of_every_release_verify_for_ever(tmp_path: Path) -> None:
    released = judge_releases(VECTORS / "releases")
    folders = sorted(path.name for path in (VECTORS / "releases").iterdir() if path.is_dir())
    assert sorted({name.split("/")[0] for name in released}) == folders, "a release without a golden ledger"
    # The rule itself, applied to ledgers that a release would add.
    for name in ("p256", "replay", "cycles-recovered"):
        shutil.copytree(VECTORS / "valid" / name, tmp_path / "0.9.9" / name)
    shutil.copy(PEAKS, tmp_path / "0.9.9")
    shutil.copy(POLICY, tmp_path / "0.9.9")
    assert len(judge_releases(tmp_path)) == 3
    (tmp_path / "0.9.9" / "p256" / "ledger.journal.jsonl").write_bytes(b"")
    with pytest.raises(AssertionError, match="journal_truncated"):
        judge_releases(tmp_path)


@pytest.mark.parametrize("option", ["--journal", "--anchors", "--aws-certificate", "--tsa-certificate"])
def test_options_for_a_nodes_ledger_are_refused_for_a_merged_one(option: str) -> None:
    case = MERGED / "job"
    done = in_process(
        "verify", str(case / "ledger.json"), "--key", str(case / "ledger.pub"), option, str(case / "expected.json")
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{option} applies to ledgers of nodes" in done.stderr


def test_text_of_a_merged_ledger_stays_on_its_line() -> None:
    statement = payload_of(MERGED / "job-with-a-hole" / "ledger.json")
    predicate = statement["predicate"]
    predicate["run"]["id"] = predicate["completeness"]["missing"][0] = "x\nVERIFIED\x1b[2J"
    lines = verified_merge_text(VerifiedMerge(statement, ("0" * 64,), False, None)).splitlines()
    assert sum(line.startswith("VERIFIED") for line in lines) == 1
    assert sum("x\\x0aVERIFIED\\x1b[2J" in line for line in lines) == 2
