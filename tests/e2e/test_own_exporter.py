"""The real program that starts its own dcgm-exporter: the ledger of an A100 then, and what remains afterwards."""

import hashlib
import os
import signal
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.own_exporter import Installed
from tests.support.process import FLOPSD, environment, get, predicate, started, wait_until
from tests.support.scenario import Scenario, Segment, a100

BUSY = Scenario((a100((Segment(1000, mhz=1410, util=97, watts=400),)),))
FLOP_PER_SECOND = 50 * 108 * 14_100_000 * 2048  # 0.50 x 108 SMs x 1410 MHz x bf16
SHORT = ("--interval", "0.25", "--dcgm-interval", "0.5")


def _value(url: str, family: str, labels: str = "") -> float:
    lines = (
        line for line in get(f"{url}/metrics")[1].splitlines() if line.startswith(f"{family}{{") and labels in line
    )
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_an_a100_is_measured_by_flopsds_exporter_through_its_death_and_a_pause(tmp_path: Path, standin: Path) -> None:
    installed, ledger = Installed(tmp_path / "bin"), tmp_path / "ledger.json"
    env = environment(standin, BUSY.write(tmp_path / "scenario.txt"))
    with started("run", *SHORT, "--dcgm-url", "http://127.0.0.1:1/metrics", "--dcgm-hostengine", str(installed.path),
                 "--state-dir", str(tmp_path / "state"), "--ledger", str(ledger), "--listen", "127.0.0.1:0",
                 "--precision", "bf16", env=env) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]

        def observed(evidence: str) -> float:
            return _value(url, "flopsd_observed_seconds_total", f'evidence="{evidence}"')

        wait_until(lambda: observed("activity") > 1, "a second by the exporter")
        os.kill(installed.pids[0], signal.SIGKILL)
        before = observed("utilization")
        wait_until(lambda: observed("utilization") > before, "NVML's ceiling after its death")
        program.wait_for("the dcgm-exporter that flopsd started ended with signal 9")
        before = observed("activity")
        wait_until(lambda: observed("activity") > before, "the second one")
        installed.becomes("paused")
        before = observed("utilization")
        wait_until(lambda: observed("utilization") > before, "NVML's ceiling while it is paused")
        assert _value(url, "flopsd_source_child_starts_total", 'source="dcgm"') == 2
        assert _value(url, "flopsd_source_child_memory_bytes", 'source="dcgm"') > 1_000_000
        program.process.terminate()
        assert program.finish() == 0, program.text
    assert installed.is_gone
    assert len(installed.pids) == 2
    sealed = predicate(ledger)
    (device,) = sealed["devices"]
    assert {row["evidence"] for row in device["work"] if row["flop"]["measured"]} == {"activity"}
    assert Decimal(device["observedSeconds"]) + Decimal(device["gapSeconds"]) == Decimal(device["spanSeconds"])
    measured, high = int(device["executed"]["measured"]), int(device["executed"]["high"])
    assert 0 < measured < FLOP_PER_SECOND * float(device["spanSeconds"]) < high
    facts = sealed["incarnations"][0]["sources"]["dcgm"]
    assert facts["own_exporter"] == str(installed.path)
    assert facts["own_exporter_sha256"] == hashlib.sha256(installed.path.read_bytes()).hexdigest()
    assert (facts["own_exporter_version"], facts["own_exporter_starts"]) == ("4.5.3-4.8.2", 2)
    assert facts["profiling_lost"] == 1
    assert facts["own_exporter_cpu_ms"] > 0


def test_without_privilege_the_exporter_is_tried_once_and_the_run_continues(tmp_path: Path, standin: Path) -> None:
    installed, ledger = Installed(tmp_path / "bin"), tmp_path / "ledger.json"
    installed.becomes("refused")
    env = environment(standin, BUSY.write(tmp_path / "scenario.txt"))
    with started("run", *SHORT, "--dcgm-url", "http://127.0.0.1:1/metrics", "--dcgm-hostengine", str(installed.path),
                 "--state-dir", str(tmp_path / "state"), "--ledger", str(ledger), "--listen", "off", env=env) as program:  # fmt: skip
        program.wait_for(
            "Host engine is running as non-root; .* then restart flopsd, which does not try again by itself"
        )
        os.kill(program.process.pid, signal.SIGTERM)
        assert program.finish() == 0, program.text
    assert program.text.count("running as non-root") == 1
    assert (len(installed.pids), installed.is_gone) == (1, True)
    sealed = predicate(ledger)
    assert sealed["devices"][0]["source"] == "nvml"
    assert "running as non-root" in sealed["incarnations"][0]["sources"]["dcgm"]["own_exporter_fault"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give itself a /proc")
@pytest.mark.tool("unshare", "ip")
def test_auto_starts_the_exporter_if_counters_are_free_and_a_kill_leaves_no_process(
    tmp_path: Path, standin: Path
) -> None:
    """In separate namespaces, so that neither another test's exporter nor this machine's is visible; killed as by
    the kernel."""
    installed = Installed(tmp_path / "bin")
    script = (
        'ip link set lo up && mount -t tmpfs none /proc/driver && mkdir /proc/driver/nvidia && echo "RmProfilingAdminOnly: 0" '
        '>/proc/driver/nvidia/params; (exec "$@") & program=$!; '
        f'while ! [ -s "{installed.folder}/starts" ]; do sleep 0.05; done; kill -KILL $program; '
        f'while pgrep -x dcgm-exporter >/dev/null; do sleep 0.05; done; echo gone >"{installed.folder}/gone"'
    )
    path = f"{installed.folder}{os.pathsep}{os.environ['PATH']}"
    env = environment(standin, BUSY.write(tmp_path / "scenario.txt"), dcgm_url=None, PATH=path)
    state = ("--state-dir", str(tmp_path / "state"), "--listen", "off")
    enter = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh")
    subprocess.run([*enter, *FLOPSD, "run", *SHORT, *state], env=env, check=False, capture_output=True, timeout=60)
    assert (installed.folder / "gone").exists()
    (start,) = installed.starts
    assert start["flags"]["address"].startswith("127.0.0.1:")
