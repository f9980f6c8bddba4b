"""The policy printed in docs/thresholds.md, used to estimate, seal and verify; and each typo reported with its line."""

import re
from pathlib import Path

import pytest

from flopsd.core.declarations import Method, OperatorDeclarations, Phase, Recomputation
from flopsd.errors import PolicyError
from flopsd.settings.data_files import load_policies, own_policies, parse_policy
from tests.second_implementation.arithmetic import payload_of
from tests.support.paths import ROOT
from tests.support.process import in_process
from tests.support.runs import H100, finished

(TEXT,) = re.findall(r"```yaml\n(id: our-regime\n.*?)```", (ROOT / "docs" / "thresholds.md").read_text(), re.S)
TRAINED = OperatorDeclarations(Phase.TRAIN, Method.FULL, Recomputation.NONE)
OPEN_CONDITION = "the model is offered to the public"


def flat(text: str) -> str:
    return " ".join(text.split())


def policy(folder: Path, threshold: str = "1e24") -> str:
    file = folder / "our-regime.yaml"
    file.write_text(TEXT.replace("1e24", threshold))
    return str(file)


def test_the_printed_policy_has_ten_lines() -> None:
    assert len(TEXT.splitlines()) == 10
    (rule,) = parse_policy(TEXT.encode(), "our-regime.yaml").rules
    assert (rule.status, rule.other_conditions) == ("text", (OPEN_CONDITION,))


@pytest.mark.parametrize(("tokens", "answer"), [("1e17", "Above"), ("1e9", "Far below")])
def test_an_estimate_by_the_printed_policy(tmp_path: Path, tokens: str, answer: str) -> None:
    planned = ("--parameters", "1e9", "--tokens", tokens, "--sequence-length", "1024", "--method", "full")
    said = flat(in_process("estimate", *planned, "--policy", policy(tmp_path)).stdout)
    assert f"{answer}" in said
    assert ("not decided here: our-regime: the model is offered" in said) is (answer == "Above")
    assert "eu-ai-act" not in said, "what is chosen, and nothing beside it"


def test_a_run_is_sealed_and_verified_by_the_printed_policy(tmp_path: Path) -> None:
    ours = policy(tmp_path, "1e3")
    chosen = ["eu-ai-act", ours]
    run = finished(tmp_path / "state", 5, devices=(H100,), policies=load_policies(chosen), declared=TRAINED)
    ledger = tmp_path / "ledger.json"
    sealed = run.seal(ledger, policy_files=chosen)
    (beside,) = sealed.companions
    assert own_policies(chosen) == (Path(ours),), "a packaged policy needs no file"
    assert beside.read_bytes() == Path(ours).read_bytes()
    Path(ours).unlink()
    predicate = payload_of(ledger)["predicate"]
    (found,) = [one for one in predicate["findings"] if one["policy"] == "our-regime"]
    totals = predicate["totals"]
    counted = [totals["guidelines"]["cumulative"], totals["integerOperations"]["guidelines"]["cumulative"]]
    for end in ("low", "high"):
        assert int(found["value"][end]) == sum(int(one[end]) for one in counted), "FLOP and integer operations"
    assert int(counted[1]["high"]) > 0, "no counter tells integers apart, so there may be some"
    arguments = (str(ledger), "--key", str(sealed.public_key), "--policy", str(beside))
    for words in ([], ["report"], ["report", "--format", "html"]):
        verb, *more = words or ["verify"]
        said = flat(in_process(verb, *arguments, *more).stdout)
        assert "our-regime: Above the threshold that applies (other conditions are not decided here)" in said
        assert "eu-ai-act: Indeterminate" in said or "eu-ai-act: Far below" in said
        assert OPEN_CONDITION in said
    (other := tmp_path / "other.yaml").write_text(beside.read_text() + "#")
    unused = in_process("verify", *arguments, "--policy", str(other), code=0).stderr
    assert unused == f"flopsd: {other} was not used: it is neither the peak table nor a policy of the ledger\n"
    refused = in_process("verify", *arguments[:3], code=3)
    assert f"judged by a policy that is not flopsd's own: {beside}" in flat(refused.stdout)
    assert f"accept it with --policy {beside}" in flat(refused.stderr)


TYPOS = [
    ("at_least:", "at_leest:", "line 7: rule large-model: at_leest: unknown; known: id"),
    ("at_least:", "at_leest:", "line 5: rule large-model: at_least: must have one of greater_than, at_least"),
    ('"1e24"', "1.0e+24", "line 7: rule large-model: at_least: must be a positive whole number"),
    ("counted", "yes", "line 3: policy: integer_operations: must be one of not counted, counted, is true"),
    ("id: our-regime\n", "", "policy: id: must be small letters"),
    (
        "      - the",
        "      - [the]\n      - the",
        "line 9: rule large-model: other_conditions: must be a list of texts",
    ),
    ("title: Reg", "id: twice\ntitle: Reg", "line 2: id is given twice, first on line 1"),
    ("rules:", "rules", "not YAML: "),
]


@pytest.mark.parametrize(("right", "wrong", "problem"), TYPOS)
def test_a_typo_is_an_error_that_names_the_line(right: str, wrong: str, problem: str) -> None:
    with pytest.raises(PolicyError) as fault:
        parse_policy(TEXT.replace(right, wrong).encode(), "our.yaml")
    assert any(one.startswith("our.yaml: ") and problem in one for one in fault.value.problems), fault.value.problems
    assert fault.value.hint


def test_several_names_in_one_word_are_explained_by_the_message() -> None:
    words = (
        "estimate",
        "--parameters",
        "1e9",
        "--tokens",
        "1e9",
        "--sequence-length",
        "9",
        "--policy",
        "eu-ai-act,our",
    )
    in_process(*words, code=1, says=("eu-ai-act,our: cannot be read", "hint: several: each with its own --policy"))


def test_an_unknown_name_lists_the_packaged_ones() -> None:
    refused = in_process(
        "estimate", "--parameters", "1e9", "--tokens", "1e9", "--sequence-length", "9", "--policy", "sb-53"
    )
    assert refused.returncode != 0
    assert "sb-53: cannot be read" in flat(refused.stderr)
    assert "us-ca-sb-53" in refused.stderr
