"""The log names each step towards a threshold once, and never an upper bound as if it were reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from flopsd.core.declarations import Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.model import Device
from flopsd.settings.data_files import parse_policy
from flopsd.telemetry.threshold_log import CHECK_SECONDS, ThresholdLog
from tests.support.runs import A100, H100, Run
from tests.unit.attestation.test_lineage_base import POLICY

TRAINS = OperatorDeclarations(Phase.TRAIN, Method.FULL, Recomputation.NONE)


def told(caplog: pytest.LogCaptureFixture, run: Run, seconds: int) -> list[str]:
    watch = ThresholdLog(run.clock)
    for _ in range(seconds):
        run.meter(1)
        watch.each_tick(run.writer.snapshot)
    return [record.message for record in caplog.records if "threshold" in record.message.lower()]


def run_of(tmp_path: Path, limit: int, device: Device) -> Run:
    rules = parse_policy(POLICY.replace("LIMIT", str(limit)).encode(), "small")
    return Run(tmp_path, devices=(device,), declared=TRAINS, policies=(rules,))


def test_each_step_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alone = run_of(tmp_path / "first", 10**30, H100)
    alone.meter(CHECK_SECONDS)
    a_minute = alone.writer.snapshot.view.bases.guidelines.updates.low_flop
    assert a_minute
    limit = a_minute * 10
    said = told(caplog, run_of(tmp_path / "second", limit, H100), 12 * CHECK_SECONDS)
    assert len(said) == len(set(said))
    assert any("% of the threshold whole" in line for line in said)
    assert sum("ABOVE THE THRESHOLD of whole (section 3): It is registered." in line for line in said) == 1
    assert said[-1].startswith("ABOVE")


def test_a_ceiling_is_never_told_as_reached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bounded = run_of(tmp_path / "state", 1000, A100)  # only an upper bound is known, and it is far above
    assert told(caplog, bounded, 2 * CHECK_SECONDS) == []
    high = bounded.writer.snapshot.view.bases.guidelines.updates.high_flop
    assert high is not None
    assert high > 1000
