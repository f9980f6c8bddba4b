"""A real fine-tune on the CPU under `flopsd exec`: phases, three bases and their reconciliation in a verified
ledger."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import environment, predicate, started
from tests.support.scenario import Gpu, Scenario, Segment, a100, h100
from tests.train.finetune import STEPS

pytestmark = pytest.mark.training("transformers", "peft", "accelerate")
LOAD = (Segment(1000, mhz=1755, util=100, watts=500, hmma=0.4, fp32=0.05),)


def finetune(
    tmp_path: Path, standin: Path, method: str, *options: str, gpu: Gpu | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The predicate of the run, and the script's output."""
    simulated = Scenario((gpu or h100(LOAD),))
    scenario = simulated.write(tmp_path / "scenario.txt")
    ledger = tmp_path / "ledger.json"
    arguments = (
        "exec", "--source", "nvml", "--state-dir", str(tmp_path / "state"), "--run-id", "finetune", "--listen", "off",
        "--interval", "0.1", "--checkpoint", "1", "--checkpoint-output", "stderr", "--ledger", str(ledger), *options,
        "--", sys.executable, "-m", "tests.train.finetune", str(tmp_path / "out"), method,
    )  # fmt: skip
    with started(
        *arguments, env=environment(standin, scenario, HF_HUB_OFFLINE="1", FLOPSD_DEVICE_UUID=simulated.uuid(0))
    ) as program:
        code = program.finish()
    assert code == 0, program.text
    printed = json.loads(next(line for line in program.out.splitlines() if line.startswith('{"flopCounter"')))
    return predicate(ledger), printed


@pytest.mark.parametrize("method", [pytest.param("full", marks=pytest.mark.exhaustive), "lora"])
def test_a_fine_tune_has_phases_and_three_bases(tmp_path: Path, standin: Path, method: str) -> None:
    # The simulated GPU works while PyTorch is loaded too: undeclared, that work would be too much for a measured
    # figure.
    declaring = ("--base-flop", "1e15", "--base-model", "a tiny", "--base-systemic", "false", "--phase", "train", "--method", method)  # fmt: skip
    found, printed = finetune(tmp_path, standin, method, *declaring)
    totals, declared = found["totals"], found["declared"]
    by_phase = totals["executed"]["byPhase"]
    for phase in ("train", "evaluate"):
        assert int(by_phase[phase]["measured"]) > 0, by_phase
    assert (declared["method"], declared["recomputation"]) == (method, None)
    (session,) = declared["sessions"]
    assert (session["facts"]["method"], session["facts"]["recomputation"]) == (method, "full")
    assert session["work"]["train"]["steps"] == str(printed["steps"]) == str(STEPS)
    assert session["work"]["train"]["tokens"] == str(STEPS * 2 * 4 * 64)
    assert session["work"]["evaluate"]["tokens"] == str(2 * 16 * 64)
    assert sum(int(work["operator_flop"]) for work in session["work"].values()) == printed["flopCounter"]
    architecture = totals["architecture"]
    ratio = int(architecture["executed"]["computed"]) / printed["flopCounter"]
    assert 0.98 <= ratio <= 1.02, (architecture, printed)
    guidelines = totals["guidelines"]
    low, measured, high = (int(guidelines[name]) for name in ("low", "measured", "high"))
    assert 0 < low <= measured < int(totals["executed"]["measured"])  # recomputation is subtracted
    assert measured <= high == int(totals["executed"]["high"])
    claimed = guidelines["asClaimed"]
    assert int(claimed["high"]) == high - int(by_phase["evaluate"]["high"]), "evaluation is the process's word"
    assert {claim["process"] for claim in claimed["claims"]} == {session["process"]["pid"]}
    # Contradictions between the three bases are named: the simulated GPU does far more than this model needs.
    named = {ratio["name"]: ratio["warning"] for ratio in found["reconciliation"]}
    assert named["executed/architecture"] == "MORE_EXECUTED_THAN_THE_MODEL_NEEDS"
    assert named["guidelines/architecture"] == "MORE_EXECUTED_THAN_THE_MODEL_NEEDS"
    states = {finding["rule"]: (finding["applies"], finding["state"]) for finding in found["findings"]}
    assert states["base-not-gpai"] == (True, "below")


@pytest.mark.exhaustive
def test_without_counters_the_operator_count_is_the_measured_figure(tmp_path: Path, standin: Path) -> None:
    found, printed = finetune(tmp_path, standin, "full", "--phase", "train", gpu=a100((Segment(1000, 1410, util=100),)))
    executed = found["totals"]["executed"]
    assert int(executed["low"]) == int(executed["measured"]) == printed["flopCounter"] < int(executed["high"])
    assert executed["method"] == ["operator_count"]
