"""From a blinded GPU to somebody's webhook, through the real daemon, Prometheus and Alertmanager, and back."""

from __future__ import annotations

import os
import queue
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.monitoring import alertmanager, hurried, prometheus, webhook
from tests.support.process import daemon_pid, environment, free_port, started
from tests.support.scenario import Fault, Scenario, Segment, h100

BUSY = (Segment(700, hmma=0.5, fp32=0.1, util=100, watts=500), Segment(300, util=0, watts=120))
SECONDS = 60


def next_of(alerts: queue.SimpleQueue[dict[str, Any]], name: str, status: str) -> dict[str, Any]:
    while True:
        alert = alerts.get(timeout=SECONDS)
        if (alert["labels"]["alertname"], alert["status"]) == (name, status):
            return alert


@pytest.mark.minute
@pytest.mark.tool("prometheus", "prometheus-alertmanager")
def test_a_blinded_gpu_reaches_a_webhook(tmp_path: Path, standin: Path) -> None:
    """The committed rules, with ranges of ten seconds and no waiting; the other GPU raises none."""
    blinded = Fault(8_000, 24_000, "no_permission")  # what the profiling counters of another user's GPU answer
    scenario = Scenario((h100(BUSY), h100(BUSY, (blinded,))))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    state, address = tmp_path / "state", f"127.0.0.1:{free_port()}"
    with (
        webhook() as (hook, alerts),
        alertmanager(tmp_path, hook) as manager,
        started("run", "--state-dir", str(state), "--source", "nvml", "--listen", address, "--run-id", "blinded",
                "--no-seal", "--precision", "bf16", env=env) as program,
        prometheus(tmp_path / "p", [{"targets": [address]}], rules=hurried(tmp_path, "10s"), alertmanager=manager),
    ):  # fmt: skip
        fired = next_of(alerts, "FlopsdDeviceBlind", "firing")
        resolved = next_of(alerts, "FlopsdDeviceBlind", "resolved")
        os.kill(daemon_pid(state), signal.SIGTERM)
        program.finish()
    assert fired["labels"]["severity"] == "critical"
    assert (fired["labels"]["uuid"], fired["labels"]["gpu"]) == (scenario.uuid(1), "1")
    assert fired["labels"]["run_id"] == "blinded"
    assert fired["annotations"]["summary"].startswith("GPU 1 of ")
    assert fired["annotations"]["runbook_url"] == "docs/runbook.md#flopsddeviceblind"
    assert resolved["labels"] == fired["labels"]
    assert "<no value>" not in str(fired["annotations"])
