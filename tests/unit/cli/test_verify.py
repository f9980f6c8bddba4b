"""The output of `flopsd verify` for valid and invalid ledgers, and which options can be combined."""

import json
from typing import Any

import pytest

from flopsd.cli.main import main
from tests.support.golden import check_golden
from tests.support.paths import GOLDEN, VECTORS

JOB, NODE = "merged/job", "valid/declared-by-settings"
EVALUATION = "valid/declared-evaluation-that-evaluates"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(VECTORS)


def verify(case: str, *options: str) -> int:
    tables = ("--peaks", "peaks.yaml", "--policy", "policy.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["verify", f"{case}/ledger.json", "--key", f"{case}/ledger.pub", *tables, *options])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("name", "case", "options", "code"),
    [
        ("node", NODE, [], 0),
        ("mix", "valid/declared-mix", [], 0),
        ("claims", "valid/lying-declarations", [], 0),
        ("no-upper-bound", "valid/unknown-device", [], 0),
        ("no-device", "valid/starts-of-which-one-has-no-device", [], 0),
        ("only-gaps", "valid/gaps-of-63", [], 0),
        ("idle", "valid/gaps-of-1003", [], 0),
        ("own-count", "valid/model-own-count", [], 0),
        ("operator-count", "valid/operator-count", [], 0),
        ("evaluation", EVALUATION, ["--policy", f"{EVALUATION}/our.policy.yaml"], 0),
        ("segment", "valid/middle-segment", [], 0),
        ("rolling", "valid/unended-beyond-twice-a-checkpoint", [], 0),
        ("codes", "valid/codes-checked", [], 0),
        ("codes-of-one-start", "valid/codes-not-all-checkable", [], 0),
        ("replay", "valid/replay", ["--allow-replay"], 0),
        ("replay-refused", "valid/replay", [], 3),
        ("job", JOB, [], 0),
        ("job-with-a-hole", "merged/job-with-a-hole", [], 0),
        ("job-whole", JOB, ["--children", f"{JOB}/children"], 0),
        ("job-with-a-replay", "merged/replay-allowed", ["--allow-replay"], 0),
        ("lineage", "merged/lineage", [], 0),
        ("refused", "merged/sum-bent", [], 3),
        ("children-of-a-node", NODE, ["--children", "."], 2),
        ("anchors-of-a-job", JOB, ["--anchors", "x.log"], 2),
        ("no-key-enough", NODE, ["--threshold", "2"], 3),
        ("another-key", NODE, ["--threshold", "2", "--key", "valid/p256/ledger.pub"], 3),
    ],
)
def test_the_verdicts_match_their_goldens(
    name: str, case: str, options: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(case, *options) == code
    stated = capsys.readouterr()
    made = stated.out + stated.err
    assert verify(case, *options, "--json") == code
    if found := capsys.readouterr().out:
        facts: dict[str, Any] = json.loads(found)
        assert facts["verified"] == (facts.pop("predicate", None) is not None) == (code == 0)
        made += json.dumps(facts, indent=1) + "\n"
    check_golden(made, GOLDEN / f"verify-{name}.txt")
