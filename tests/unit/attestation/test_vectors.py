"""The published vectors: flopsd does with each what it says, the schema too, and the generator makes them again."""

from __future__ import annotations

import json
import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from flopsd.attestation.ledger_files import journal_beside
from flopsd.attestation.merge.verify_merged import VerifiedMerge
from flopsd.attestation.same_run import SealedRun, compare
from flopsd.attestation.signing.keys import load_public
from flopsd.attestation.verify import Verified, open_ledger, verify_ledger
from flopsd.core.envelope import parse_envelope
from flopsd.errors import NotVerifiedError
from flopsd.report.ledger_text import verified_merge_text
from flopsd.settings.data_files import Tables
from tests.support.independent import payload_of
from tests.support.paths import SCHEMA
from tests.support.process import in_process
from tests.support.story import PEAKS, POLICY, VECTORS
from tests.support.vectors import all_vectors, write

CASES = sorted(path.parent for path in VECTORS.glob("*valid/*/expected.json"))


def expected(case: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((case / "expected.json").read_bytes())
    return found


def judge(case: Path, peaks: Path = PEAKS, policy: Path = POLICY) -> Verified:
    how = expected(case)
    keys = [load_public(str(case / name)) for name in how["keys"]]
    tables = Tables([str(peaks)] if how.get("peaks", True) else [], [str(policy)] if policy.exists() else [])

    def sealed(name: str) -> SealedRun:
        opened = open_ledger(case / f"{name}.json", keys, how["threshold"])
        verified = verify_ledger(opened, tables=tables, allow_replay=how["allowReplay"])
        return SealedRun(name, journal_beside(opened.path), verified)

    found = sealed("ledger")
    if "also" in how:
        compare(found, sealed(how["also"]))
    return found.verified


def judge_releases(releases: Path) -> list[str]:
    """Every golden ledger of every release, the oldest first; NotVerifiedError where one is no longer believed."""
    found = sorted(path.parent for path in releases.glob("*/*/expected.json"))
    for case in found:
        judge(case, case.parent / "peaks.yaml", case.parent / "policy.yaml")
    return [f"{case.parent.name}/{case.name}" for case in found]


@lru_cache(maxsize=1)
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_bytes())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_each_vector_is_judged_as_it_says(case: Path) -> None:
    how, readme = expected(case), (case / "README.md").read_text()
    assert readme.count(" --key ") == len(how["keys"])
    assert (" --also " in readme) == ("also" in how)
    assert (" --peaks " in readme) == how.get("peaks", True)
    assert ("--allow-replay" in readme, "--threshold" in readme) == (how["allowReplay"], how["threshold"] > 1)
    assert case.parent.name == ("valid" if how["verdict"] == "accept" else "invalid")
    if how["verdict"] == "accept":
        assert judge(case).statement["predicate"]["kind"] == "node"
        return
    with pytest.raises(NotVerifiedError) as caught:
        judge(case)
    assert how["reason"] in str(caught.value)
    assert how["reason"] in readme


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_schema_does_with_each_payload_what_it_says(case: Path) -> None:
    how = expected(case)
    if how["schema"] == "not applicable":
        return
    payload = json.loads(parse_envelope((case / "ledger.json").read_bytes()).payload)
    faults = [f"{fault.json_path}: {fault.message[:200]}" for fault in validator().iter_errors(payload)]
    assert bool(faults) == (how["schema"] == "refuses"), faults


def test_the_vectors_are_what_this_flopsd_writes() -> None:
    """Goldens: a change of the format shows here. FLOPSD_UPDATE_GOLDEN=1 renews them."""
    made = all_vectors()
    if os.environ.get("FLOPSD_UPDATE_GOLDEN") == "1":
        write(made)
    files = [path for kind in ("valid", "invalid", "merged") for path in (VECTORS / kind).rglob("*") if path.is_file()]
    there = {str(path.relative_to(VECTORS)): path for path in files if path.name not in ("README.md", "expected.json")}
    assert sorted(made) == sorted(there)
    for name, data in made.items():
        assert there[name].read_bytes() == data, f"{name} is not what this flopsd writes"


def test_the_vectors_go_through_every_kind_of_evidence_and_gap_of_note() -> None:
    evidence, reasons, pipes = set(), set(), set()
    for case in CASES:
        if case.parent.name == "valid":
            predicate = judge(case).statement["predicate"]
            work = [row for device in predicate["devices"] for row in device["work"]]
            evidence |= {row["evidence"] for row in work}
            pipes |= {row["pipe"] for row in work}
            reasons |= set(predicate["coverage"]["gapSecondsByReason"])
    assert evidence == {"cycles", "activity", "count", "utilization", "gap"}
    assert pipes == {None, "tensor", "tensor_hmma", "tensor_imma", "tensor_dfma", "fp64", "fp32", "fp16"}
    assert {"daemon_down", "driver_timeout", "unknown_device", "other_job", "metered_as_mig", "replaced"} <= reasons


def test_the_ledgers_of_every_release_verify_for_ever(tmp_path: Path) -> None:
    released = judge_releases(VECTORS / "releases")
    folders = sorted(path.name for path in (VECTORS / "releases").iterdir() if path.is_dir())
    assert sorted({name.split("/")[0] for name in released}) == folders, "a release without a golden ledger"
    # The rule itself, on what a release would add.
    shutil.copytree(VECTORS / "valid", tmp_path / "0.9.9")
    shutil.copy(PEAKS, tmp_path / "0.9.9")
    shutil.copy(POLICY, tmp_path / "0.9.9")
    assert len(judge_releases(tmp_path)) == len(list((VECTORS / "valid").iterdir()))
    (tmp_path / "0.9.9" / "p256" / "ledger.journal.jsonl").write_bytes(b"")
    with pytest.raises(NotVerifiedError, match="is truncated"):
        judge_releases(tmp_path)


MERGED = VECTORS / "merged"
MERGED_CASES = sorted(MERGED.iterdir())


@pytest.mark.parametrize("case", MERGED_CASES, ids=lambda case: case.name)
def test_each_merged_vector_is_judged_as_it_says(case: Path) -> None:
    how = expected(case)
    children = ["--children", str(case / "children")] if how["children"] else []
    command = ["verify", str(case / "ledger.json"), "--key", str(case / "ledger.pub"), "--peaks", str(PEAKS), "--policy", str(POLICY), "--json"]  # fmt: skip
    done = in_process(*command, *children)
    answer = json.loads(done.stdout)
    assert (done.returncode == 0, answer["verified"]) == (how["verdict"] == "accept",) * 2, answer.get("reason")
    if how["reason"] is not None:
        assert how["reason"] in answer["reason"]
    elif children:
        assert answer["children"]["missing"] == []
        assert answer["children"]["recomputed"] == answer["children"]["given"] > 0
    if how["onlyWithChildren"]:
        assert in_process(*command).returncode == 0


@pytest.mark.parametrize("case", MERGED_CASES, ids=lambda case: case.name)
def test_the_schema_takes_every_merged_vector(case: Path) -> None:
    faults = [f"{f.json_path}: {f.message[:200]}" for f in validator().iter_errors(payload_of(case / "ledger.json"))]
    assert bool(faults) is (case.name == "amount-below-zero"), faults


@pytest.mark.parametrize("option", ["--journal", "--anchors", "--aws-certificate", "--tsa-certificate"])
def test_what_only_a_nodes_ledger_can_be_held_against_is_refused(option: str) -> None:
    case = MERGED / "job"
    done = in_process(
        "verify", str(case / "ledger.json"), "--key", str(case / "ledger.pub"), option, str(case / "README.md")
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
