"""A training job as SageMaker runs it: the real toolkit runs a script, flopsd is process 1 of its container."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flopsd.metricline import metric_definitions
from tests.support.process import flopsd, predicate
from tests.support.sagemaker import FLOPSD, JOB, SAMPLES, TRAIN, Job, entrypoint
from tests.support.scenario import Scenario, Segment, h100

pytestmark = [pytest.mark.tool("unshare", "ip", "hostname")]
BUSY = (Segment(1000, hmma=0.5, util=100, watts=500),)
SCRIPT = Path(__file__).resolve().parents[1] / "support" / "train_script.py"
HOMOGENEOUS = json.loads((SAMPLES / "resourceconfig_homogeneous_awsdocs.json").read_text())
ONE = {**HOMOGENEOUS, "hosts": ["algo-1"]}

Make = Callable[..., Job]


def scenario() -> Scenario:
    return Scenario((h100(BUSY),))


@pytest.fixture
def make(tmp_path: Path, standin: Path) -> Make:
    """A job of one host whose script the toolkit runs, in a mode."""
    if importlib.util.find_spec("sagemaker_training") is None:
        (pytest.fail if os.environ.get("FLOPSD_REQUIRE_TOOLS") == "1" else pytest.skip)("no sagemaker-training")
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        (pytest.fail if os.environ.get("FLOPSD_REQUIRE_TOOLS") == "1" else pytest.skip)("no right to make namespaces")

    def made(mode: str, name: str = "job", *, checkpoints: bool = False, patience: float = 0, **variables: str) -> Job:
        hyperparameters = {"mode": mode, "patience": patience, "sagemaker_program": SCRIPT.name,
                           "sagemaker_submit_directory": "/opt/ml/code"}  # fmt: skip
        return Job(tmp_path / name, standin, ONE, hyperparameters, variables, SCRIPT, checkpoints)

    return made


@pytest.mark.parametrize("mode", ["succeed", "exit", "crash", "segfault"])
def test_exit_code_and_failure_file_are_the_scripts_own_and_the_ledger_lies_where_it_is_kept(make: Make, mode: str) -> None:
    """The same job with and without flopsd before it: the platform sees the same end."""
    alone = make(mode, "alone").machine("algo-1", scenario())
    without = alone.run(TRAIN)
    machine = make(mode).machine("algo-1", scenario())
    done = machine.run(*entrypoint(TRAIN))
    assert done.code == without.code, done.stderr
    assert (done.code == 0) == (mode == "succeed")
    assert machine.failure() == alone.failure()
    assert (machine.failure() is None) == (mode == "succeed")
    assert (machine.ml / "output/success").exists() == (alone.ml / "output/success").exists() == (mode == "succeed")
    told = predicate(machine.ledger)
    assert told["run"] == {"id": JOB, "jobName": JOB, "platform": "sagemaker-training",
                           "jobArn": f"arn:aws:sagemaker:eu-west-1:123456789012:training-job/{JOB}"}  # fmt: skip
    assert told["node"] == {"name": "algo-1", "rank": 0, "roster": ["algo-1"], "instanceType": None}
    assert told["incarnations"][0]["childExitCode"] == done.code
    assert int(told["totals"]["executed"]["measured"]) > 0
    kept = sorted(str(path.relative_to(machine.ml / "output")) for path in (machine.ml / "output").rglob("*") if path.is_file())
    end = "success" if mode == "succeed" else "failure"
    assert kept == ["data/flopsd/algo-1.journal.jsonl", "data/flopsd/algo-1.json", "data/flopsd/algo-1.pub", "data/metrics.json", end]
