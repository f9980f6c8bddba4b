"""Whose device it is, through the real program: a scheduler's folder, the job's own processes, sharing with others."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.process import daemon_pid, environment, flopsd, get, predicate, started, wait_until
from tests.support.scenario import Process, Scenario, Segment, h100

BUSY = (Segment(1000, hmma=0.5, util=90, watts=500),)


def test_only_this_jobs_devices_are_metered_and_a_lost_one_ends_without_a_ceiling(
    tmp_path: Path, standin: Path
) -> None:
    scenario, folder, ledger = Scenario((h100(BUSY), h100(BUSY))), tmp_path / "map", tmp_path / "ledger.json"
    folder.mkdir()
    for gpu, job in ((0, "4711"), (1, "4711")):
        (folder / str(gpu)).write_text(f"{job}\n")
    env = environment(standin, scenario.write(tmp_path / "s.txt"), DCGM_HPC_JOB_MAPPING_DIR=str(folder))
    with started("run", "--source", "nvml", "--devices", "job:4711", "--state-dir", str(tmp_path / "state"), "--listen", "127.0.0.1:0",
                 "--ledger", str(ledger), env=env) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        wait_until(lambda: _seconds(url, "observed", scenario.uuid(1)) > 2, "two seconds of both")
        (folder / "1").write_text("4712\n")
        wait_until(lambda: 'reason="other_job"' in get(f"{url}/metrics")[1], "the second GPU is another job's")
        wait_until(lambda: _seconds(url, "observed", scenario.uuid(0)) > 14, "some more of the first")
        program.process.terminate()
        assert program.finish() == 0, program.text
    told = predicate(ledger)
    first, second = told["devices"]
    assert float(second["gapSeconds"]) > 1
    gaps = [gap for gap in told["coverage"]["gaps"] if gap["reason"] == "other_job"]
    assert gaps
    assert all((gap["device"], gap["ceiling"]) == (second["uuid"], "0") for gap in gaps)
    assert int(told["coverage"]["coveragePpm"]) > 900_000
    assert float(first["observedSeconds"]) > float(second["observedSeconds"]) + 1
    source = told["incarnations"][0]["sources"]["nvml"]
    assert source["devices"].endswith("2 of 2")


def test_under_exec_a_device_that_others_use_too_says_so(tmp_path: Path, standin: Path) -> None:
    """The stand-in lists this test's own process on the GPU: it is not one of the job's."""
    scenario = Scenario((h100(BUSY, processes=(Process(0, 10**9, os.getpid()),)), h100(BUSY)))
    env = environment(standin, scenario.write(tmp_path / "s.txt"))
    state = tmp_path / "state"
    with started(
        "exec", "--state-dir", str(state), "--listen", "off", "--checkpoint", "0.5", "--", "sleep", "3", env=env
    ) as program:
        wait_until(lambda: (state / "lock").exists() and daemon_pid(state), "the daemon")
        assert program.finish() == 0, program.text
    (ledger,) = state.glob("*.ledger.json")
    shared, alone = predicate(ledger)["devices"]
    assert "others" in shared["sharedWith"]
    assert alone["sharedWith"] is None


def test_a_rule_that_nobody_answers_is_exit_4_with_the_remedy(tmp_path: Path, standin: Path) -> None:
    env = environment(standin, Scenario((h100(BUSY),)).write(tmp_path / "s.txt"))
    done = flopsd("run", "--source", "nvml", "--devices", "job", "--state-dir", str(tmp_path / "state"), env=env)
    assert done.returncode == 4
    assert "hint: " in done.stderr
    done = flopsd("run", "--devices", "pods", env=env)
    assert done.returncode == 2
    assert "'pods' is neither a rule nor a device" in done.stderr


def _seconds(url: str, kind: str, uuid: str) -> float:
    lines = get(f"{url}/metrics")[1].splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(f"flopsd_{kind}_seconds_total{{") and uuid in line
    )
