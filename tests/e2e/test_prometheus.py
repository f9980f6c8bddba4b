"""A real Prometheus scrapes a real daemon through its death and return: no counter ever falls."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.free import free_port
from tests.support.monitoring import prometheus
from tests.support.process import daemon_pid, environment, query, started, wait_until
from tests.support.scenario import Fault, Scenario, Segment, a100, h100

BUSY = (Segment(700, hmma=0.5, fp32=0.1, util=100, watts=500), Segment(300, util=0, watts=120))


def ups(url: str) -> list[float]:
    series = query(url, "up[10m]")
    return [float(value) for _, value in series[0]["values"]] if series else []


@pytest.mark.minute
@pytest.mark.tool("prometheus", "promtool", "curl")
def test_no_counter_falls_through_a_restart(tmp_path: Path, standin: Path) -> None:
    scenario = Scenario((h100(BUSY, (Fault(20_000, 24_000, "gpu_lost"),)), a100(BUSY)))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    state, address = tmp_path / "state", f"127.0.0.1:{free_port()}"
    with started(
        "exec", "--state-dir", str(state), "--listen", address, "--no-seal", "--", "sleep", "600", env=env
    ) as program:
        program.wait_for("metrics at")
        with prometheus(tmp_path, [{"targets": [address]}]) as url:
            wait_until(lambda: sum(ups(url)) >= 28, "28 scrapes before the kill")
            os.kill(daemon_pid(state), signal.SIGKILL)
            program.wait_for("daemon start 2")
            wait_until(lambda: sum(ups(url)) >= 58, "a minute of scrapes in all")
            series = query(url, '{__name__=~"flopsd_.+_total"}[10m]')
            names = {one["metric"]["__name__"] for one in series}
            resets = {name: query(url, f"sum(resets({name}[10m]))")[0]["value"][1] for name in names}
            scraped = len(ups(url))
        page = subprocess.run(["curl", "-sf", f"http://{address}/metrics"], capture_output=True, check=True).stdout
        checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
        os.kill(program.process.pid, signal.SIGTERM)
        program.finish()
    assert {
        "flopsd_flop_total",
        "flopsd_flop_ceiling_total",
        "flopsd_energy_joules_total",
        "flopsd_gap_seconds_total",
    } <= names
    for one in series:
        values = [float(value) for _, value in one["values"]]
        assert values == sorted(values), one["metric"]
    assert set(resets.values()) == {"0"}, resets
    flop = [float(one["values"][-1][1]) for one in series if one["metric"]["__name__"] == "flopsd_flop_total"]
    assert max(flop) > 0
    print(f"{len(series)} counter series over {scraped} scrapes and a restart, no fall")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
