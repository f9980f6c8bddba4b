"""What a training job's platform provides, the defaults there, and the request of the cookbook page."""

import io
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flopsd.core.figures import Figures
from flopsd.core.model import ESTIMATING
from flopsd.settings.platform import find_context
from flopsd.settings.sagemaker_defaults import checkpoint_folder, with_defaults
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.metric_lines import MetricLines, metric_definitions, metric_line
from flopsd.testing import FakeClock
from tests.support.paths import ROOT
from tests.support.runs import CONTEXT, STRANGER, Run
from tests.support.sagemaker import JOB, SAMPLES
from tests.support.settings import load_settings

NAMED = {"TRAINING_JOB_NAME": JOB, "TRAINING_JOB_ARN": f"arn:aws:sagemaker:eu-west-1:1:training-job/{JOB}"}


def tree(root: Path, sample: str, **changed: object) -> Path:
    config = root / "opt/ml/input/config"
    config.mkdir(parents=True, exist_ok=True)
    answer = json.loads((SAMPLES / f"{sample}.json").read_text()) | changed
    (config / "resourceconfig.json").write_text(json.dumps({k: v for k, v in answer.items() if v is not None}))
    return root


@pytest.mark.parametrize(
    ("changed", "rank", "instance_type"),
    [
        ({}, 0, "ml.p3.16xlarge"),
        ({"current_host": "algo-3", "current_instance_type": "ml.p3.8xlarge"}, 2, "ml.p3.8xlarge"),
        ({"current_host": "algo-3", "current_instance_type": None}, 2, "ml.p3.8xlarge"),  # by its group
        ({"current_host": "algo-3", "current_instance_type": None, "hosts": None}, 2, "ml.p3.8xlarge"),
        ({"current_host": "algo-9", "current_instance_type": None}, None, None),
    ],
)
def test_each_host_of_a_heterogeneous_cluster_has_its_own_groups_instance_type(
    tmp_path: Path, changed: dict[str, object], rank: int | None, instance_type: str | None
) -> None:
    found = find_context(NAMED, tree(tmp_path, "resourceconfig_heterogeneous_toolkit_test", **changed))
    assert (found.rank, found.instance_type) == (rank, instance_type)
    assert found.job_nodes == ("algo-1", "algo-2", "algo-3")
    assert found.attempt == found.boot_id


@pytest.mark.parametrize("changed", [{"hosts": "algo-1"}, {"instance_groups": {"a": 1}}, {"instance_groups": [7]},
                                     {"current_instance_type": 5}])  # fmt: skip
def test_a_resource_file_of_another_shape_is_tolerated(tmp_path: Path, changed: dict[str, object]) -> None:
    found = find_context(NAMED, tree(tmp_path, "resourceconfig_homogeneous_awsdocs", **changed))
    assert (found.platform, found.job_name, found.node) == ("sagemaker-training", JOB, "algo-1")
    assert found.instance_type is None
    (tmp_path / "opt/ml/input/config/resourceconfig.json").write_text("[" * 100_000)  # nested without end
    assert find_context(NAMED, tmp_path).platform == "sagemaker-training"
    assert find_context({"TRAINING_JOB_ARN": NAMED["TRAINING_JOB_ARN"]}, tmp_path).job_name == JOB


def test_defaults_apply_only_to_unset_settings_of_training_jobs(tmp_path: Path) -> None:
    job = find_context(NAMED, tree(tmp_path, "resourceconfig_homogeneous_awsdocs"))
    output = str(tmp_path / "opt/ml/output/data/flopsd/{node}.json")
    plain = with_defaults(Settings(), job, tmp_path)
    assert (plain.ledger, plain.ledger_copies) == (output, ())
    assert (plain.metric_line_seconds, plain.stop_window_seconds) == (60, 120)
    assert with_defaults(Settings(), CONTEXT, tmp_path) == Settings()

    (tmp_path / "opt/ml/checkpoints").mkdir()
    kept = str(tmp_path / "opt/ml/checkpoints/flopsd/{run}/{node}.json")
    assert with_defaults(Settings(), job, tmp_path).ledger_copies == (kept,)
    given = load_settings(
        {"ledger": "/x.json", "ledger_copies": ["s3://bucket/k.json"], "metric_line_seconds": "off"}, {}
    )
    mine = with_defaults(given, job, tmp_path)
    assert (mine.ledger, mine.ledger_copies, mine.metric_line_seconds) == ("/x.json", ("s3://bucket/k.json", kept), 0)
    assert with_defaults(mine, job, tmp_path) == mine


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        ('{"LocalPath": "/opt/ml/elsewhere", "S3Uri": "s3://b/p"}', "opt/ml/elsewhere"),
        ('{"S3Uri": "s3://b/p"}', "opt/ml/checkpoints"),
        ("not JSON", None),
        ("[" * 100_000, None),
        ('{"LocalPath": 7}', "opt/ml/checkpoints"),
        ("[]", "opt/ml/checkpoints"),
    ],
)
def test_the_checkpoint_folder_is_the_platforms(tmp_path: Path, config: str, folder: str | None) -> None:
    assert checkpoint_folder(tmp_path) is None
    root = tree(tmp_path, "resourceconfig_homogeneous_awsdocs")
    (root / "opt/ml/input/config/checkpointconfig.json").write_text(config)
    assert checkpoint_folder(tmp_path) == (None if folder is None else tmp_path / folder)


def numbers(line: str) -> dict[str, str]:
    found = {one["Name"]: re.search(one["Regex"], line) for one in metric_definitions()}
    return {name.removeprefix("flopsd:"): match[1] for name, match in found.items() if match}


def test_an_unknown_metric_gives_no_data_point(tmp_path: Path) -> None:
    """A device without a row has neither a ceiling nor a measured figure; a replay is not a measurement."""
    run = Run(tmp_path / "run")
    run.meter(3)
    figures = run.writer.snapshot.view.figures
    found = numbers(metric_line(run.writer.snapshot, 12))
    assert found == {"measured_flop": str(figures.measured_flop), "low_flop": str(figures.low_flop),
                     "high_flop": str(figures.high_flop), "rate_flop_per_second": "12", "coverage_percent": "100.00"}  # fmt: skip
    stranger = Run(tmp_path / "stranger", devices=(STRANGER,))
    stranger.meter(1)
    line = metric_line(stranger.writer.snapshot, None)
    assert "measured_flop=unknown" in line
    assert set(numbers(line)) <= {"low_flop", "coverage_percent"}
    replay = Run(tmp_path / "replay", replay=True)
    replay.meter(3)
    assert numbers(metric_line(replay.writer.snapshot, 12)) == {}
    assert numbers(f"flopsd-checkpoint run={JOB} measured_flop=5") == {}
    definitions = metric_definitions()
    assert 0 < len(definitions) <= 40
    assert all(len(one["Name"]) <= 255 and len(one["Regex"]) <= 500 for one in definitions), "SageMaker's limits"


@pytest.mark.parametrize(
    ("coverage_ppm", "percent"),
    [
        (None, "unknown"),
        (0, "0.00"),
        (99, "0.00"),
        (100, "0.01"),
        (10_000, "1.00"),
        (993_199, "99.31"),
        (10**6, "100.00"),
    ],
)
@pytest.mark.parametrize("replay", [False, True])
def test_the_coverage_in_the_line_has_two_decimals_rounded_down(
    coverage_ppm: int | None, percent: str, *, replay: bool
) -> None:
    view = SimpleNamespace(figures=Figures(7, None, 9), coverage_ppm=coverage_ppm)
    snapshot: Any = SimpleNamespace(view=view, replay=replay)
    assert metric_line(snapshot, 0) == (
        f"flopsd{'-replay' * replay}: measured_flop=unknown low_flop=7 high_flop=9 rate_flop_per_second=0 "
        f"coverage_percent={percent}"
    )


class Closed(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError


@pytest.mark.parametrize("out", [io.StringIO(), Closed()])
def test_a_new_device_has_a_rate_from_its_first_reading(out: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    def snapshot(*counted: tuple[str, int, int]) -> Any:
        devices = [
            SimpleNamespace(device=SimpleNamespace(uid=uid), now=SimpleNamespace(figures=Figures(0, flop, 0)),
                            tally=SimpleNamespace(known_ns=lambda evidence, ns=ns: ns * (evidence is ESTIMATING[0])))
            for uid, flop, ns in counted
        ]  # fmt: skip
        return SimpleNamespace(
            view=SimpleNamespace(figures=Figures(0, 0, 0), coverage_ppm=0), replay=False, devices=devices
        )

    lines = MetricLines(out, 60, snapshot(("a", 5, 5)), FakeClock())
    lines.write(snapshot(("a", 5, 5), ("b", 1, 1)))
    lines.write(snapshot(("a", 7, 6), ("b", 2, 3)))
    found = re.findall(r"rate_flop_per_second=(\S+)", out.getvalue())
    assert found == ([] if isinstance(out, Closed) else ["1000000000", "2500000000"])
    assert [("could not be written" in text) for text in caplog.messages] == [True] * (2 * isinstance(out, Closed))


def test_the_rate_is_the_one_since_the_previous_line(tmp_path: Path) -> None:
    run, out = Run(tmp_path), io.StringIO()
    lines = MetricLines(out, 60, run.writer.snapshot, run.clock)
    run.meter(59)
    lines.each_tick(run.writer.snapshot)
    assert out.getvalue() == ""
    run.meter(1)
    lines.each_tick(run.writer.snapshot)
    after = run.writer.snapshot.view.figures.measured_flop or 0
    rate = after // 60
    assert numbers(out.getvalue())["rate_flop_per_second"] == str(rate)
    out.truncate(0)
    run.clock.advance(60 * NS_PER_S)
    lines.each_tick(run.writer.snapshot)
    assert "rate_flop_per_second=unknown" in out.getvalue(), "a minute in which nothing was measured"
    out.truncate(0)
    run.meter(1)  # its reading also covers the minute before
    lines.write(run.writer.snapshot)
    assert int(numbers(out.getvalue())["rate_flop_per_second"]) == pytest.approx(rate, rel=1e-6), "not 61 times that"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/sagemaker.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.long
def test_the_request_in_the_docs_is_valid_for_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore checks every field by the service's own model; for the SDK's calls only the syntax is checked."""
    with_boto, estimator, trainer = blocks()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    printed = {("flopsd", "sagemaker", "metric-definitions"): json.dumps(metric_definitions())}
    monkeypatch.setattr(subprocess, "check_output", lambda command: printed[tuple(command)])
    asked: list[dict[str, Any]] = []
    import boto3
    from moto import mock_aws

    with mock_aws():
        session = boto3.session.Session()
        session.events.register(
            "provide-client-params.sagemaker.CreateTrainingJob", lambda params, **_: asked.append(params)
        )
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
        exec(compile(with_boto, "sagemaker.md", "exec"), {})
    (request,) = asked
    assert request["AlgorithmSpecification"]["ContainerEntrypoint"] == ["flopsd", "exec", "--"]
    assert request["AlgorithmSpecification"]["MetricDefinitions"] == metric_definitions()
    load_settings({}, request["Environment"])
    for block in (estimator, trainer):
        compile(block, "sagemaker.md", "exec")
        given = re.search(r"(?:environment)=(\{.*?\})", block)
        assert given is not None
        load_settings({}, json.loads(given[1]))
