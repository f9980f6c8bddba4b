"""The result of a command for a vector is judged as docs/conformance.md says."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.__main__ import REFUSALS, VECTORS, main
from conformance.judge import FAILED, PARTLY, PASSED, judge
from conformance.pack import pack
from conformance.vectors import COMMON, ROWS, Vector, unpack, vectors_in


def vector(**expected: Any) -> Vector:
    plain = {"verdict": "refuse", "code": "law_6", "clause": "LAW-6", "path": "statement.predicate.a[1].b"}
    return Vector("invalid/x", Path(), {**plain, **expected})


GOOD = vector(verdict="accept", code=None, clause=None, path=None)


@pytest.mark.parametrize(
    ("of", "status", "says", "result"),
    [
        (vector(), 3, {"verified": False, "code": "law_6"}, PASSED),
        (vector(), 3, {"verified": False, "code": "law_5"}, FAILED),
        (vector(), 3, {"verified": True, "code": "law_6"}, FAILED),
        (vector(), 0, {"verified": True}, FAILED),
        (vector(), 1, {"verified": False, "code": "law_6"}, FAILED),
        (vector(), 5, {"verified": False, "notVerified": ["statement.predicate.a"]}, PARTLY),
        (vector(), 5, {"verified": False, "notVerified": ["statement.predicate.a[10]"]}, FAILED),
        (vector(), 5, {"verified": False, "notVerified": []}, FAILED),
        (GOOD, 0, {"verified": True, "code": None, "predicate": {"n": 1}}, PASSED),
        (GOOD, 0, {"verified": True, "code": None, "predicate": {"n": True}}, FAILED),
        (GOOD, 0, {"verified": False}, FAILED),
        (GOOD, 3, {"verified": False, "code": "law_6"}, FAILED),
        (GOOD, 5, {"verified": False, "notVerified": ["statement.predicate.a"]}, PARTLY),
        (GOOD, 0, ["verified"], FAILED),
    ],
)
def test_a_verdict_counts_only_with_its_reason_and_omissions(of: Vector, status: int, says: Any, result: str) -> None:
    assert judge(of, status, json.dumps(says).encode(), {"n": 1}).result == result


def test_a_wrong_figure_is_reported_with_its_first_difference_and_rows() -> None:
    (of,) = [one for one in vectors_in(VECTORS) if one.name == "valid/two-signatures"]
    (plain,) = [one for one in vectors_in(VECTORS) if one.name == "valid/p256"]
    there, mine = {"a": "1", "b": [{"low": "2"}, "3"]}, {"b": [{"low": "4"}, "5"], "a": "1"}
    said = json.dumps({"verified": True, "predicate": mine}).encode()
    where = "the predicate that it computed is not that of the payload, first at predicate.b[0].low"
    rows = "; what they are made of: valid/two-signatures/rows.json"
    assert judge(of, 0, said, there).why == where + rows
    assert judge(plain, 0, said, there).why == where
    for code, more in (("statement_differs", rows), ("law_6", "")):
        refused = json.dumps({"verified": False, "code": code, "path": "statement.x"}).encode()
        assert judge(of, 3, refused, there).why == f"refused ({code} at statement.x); it is valid{more}"


def test_the_packed_vectors_match_the_folder_and_a_changed_file_is_detected(tmp_path: Path) -> None:
    vectors, rows = tmp_path / "vectors", Path("merged", "lineage", ROWS)
    for kind, some in (("valid", "p256"), ("invalid", "fork"), ("merged", "lineage")):
        shutil.copytree(VECTORS / kind / some, vectors / kind / some)
    for name in COMMON:
        shutil.copy(VECTORS / name, vectors)
    data = pack(vectors, REFUSALS)
    assert data == pack(vectors, REFUSALS)
    archive = tmp_path / "vectors.tar.gz"
    archive.write_bytes(data)
    root = unpack(archive, tmp_path / "there")
    assert [one.name for one in vectors_in(root)] == ["valid/p256", "invalid/fork", "merged/lineage"]
    assert (root / rows).read_bytes() == (VECTORS / rows).read_bytes()
    (root / "peaks.yaml").write_bytes(b"")
    archive.write_bytes(data)
    (root / "more").write_bytes(b"")
    with pytest.raises(ValueError, match="not those of its manifest"):
        unpack(archive, tmp_path / "there")


def test_a_command_that_refuses_all_vectors_fails_the_valid_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = 'import json,sys; print(json.dumps({"verified": False, "code": "law_7"})); sys.exit(3)'
    report = tmp_path / "report.json"
    for only, code, result in (("invalid/device-counted-twice", 0, PASSED), ("valid/no-device", 1, FAILED)):
        assert main(["run", "--only", only, "--json", str(report), "--", sys.executable, "-c", script]) == code
        assert [one["result"] for one in json.loads(report.read_bytes())["vectors"]] == [result]
    assert "FAILED valid/no-device: refused (law_7); it is valid" in capsys.readouterr().out
