"""The published vectors of merged ledgers, judged through the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flopsd.attestation.merge.verify_merged import VerifiedMerge
from flopsd.cli.main import main
from flopsd.report.ledger_text import verified_merge_text
from tests.support.independent import payload_of
from tests.support.story import PEAKS, POLICY, VECTORS
from tests.unit.attestation.test_vectors import validator

MERGED = VECTORS / "merged"
CASES = sorted(MERGED.iterdir())


def leaves(command: list[str]) -> int:
    """The exit code of a command of ours."""
    with pytest.raises(SystemExit) as left:
        main(command)
    return int(left.value.code or 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_merged_vector_is_judged_as_it_says(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads((case / "expected.json").read_bytes())
    children = ["--children", str(case / "children")] if told["children"] else []
    command = ["verify", str(case / "ledger.json"), "--key", str(case / "ledger.pub"), "--peaks", str(PEAKS), "--policy", str(POLICY), "--json"]  # fmt: skip
    code = leaves([*command, *children])
    answer = json.loads(capsys.readouterr().out)
    assert (code == 0, answer["verified"]) == (told["verdict"] == "accept",) * 2, answer.get("reason")
    if told["reason"] is not None:
        assert told["reason"] in answer["reason"]
    elif children:
        assert answer["children"]["missing"] == []
        assert answer["children"]["recomputed"] == answer["children"]["given"] > 0
    if told["onlyWithChildren"]:
        assert leaves(command) == 0
        capsys.readouterr()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_schema_takes_every_merged_vector(case: Path) -> None:
    faults = [f"{f.json_path}: {f.message[:200]}" for f in validator().iter_errors(payload_of(case / "ledger.json"))]
    assert bool(faults) is (case.name == "amount-below-zero"), faults


@pytest.mark.parametrize("option", ["--journal", "--anchors", "--aws-certificate", "--tsa-certificate"])
def test_what_only_a_nodes_ledger_can_be_held_against_is_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ignored, it would let VERIFIED say more than was looked at."""
    case = MERGED / "job"
    command = ["verify", str(case / "ledger.json"), "--key", str(case / "ledger.pub"), option, str(case / "README.md")]
    assert leaves(command) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{option} applies to ledgers of nodes" in told.err


def test_text_of_a_merged_ledger_stays_on_its_line() -> None:
    statement = payload_of(MERGED / "job-with-a-hole" / "ledger.json")
    predicate = statement["predicate"]
    predicate["run"]["id"] = predicate["completeness"]["missing"][0] = "x\nVERIFIED\x1b[2J"
    lines = verified_merge_text(VerifiedMerge(statement, ("0" * 64,), False, None)).splitlines()
    assert sum(line.startswith("VERIFIED") for line in lines) == 1
    assert sum("x\\x0aVERIFIED\\x1b[2J" in line for line in lines) == 2
