"""The real program on devices of each kind: their owner, the source that reads them, and the truth about them."""

import os
import shutil
import signal
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.model import Evidence
from flopsd.journal.reading import read_journal
from flopsd.sources.neuron.sysfs import Tree
from flopsd.system.clock import NS_PER_S, SystemClock
from tests.support.exporter import CLOCK, ENERGY, FP16, FP32, FP64, TENSOR, UTIL, Exporter, gpu
from tests.support.neuron import MONITOR, SAMPLES, alive
from tests.support.process import daemon_pid, environment, flopsd, get, in_process, predicate, started, wait_until
from tests.support.scenario import Process, Scenario, Segment, a100, h100

BUSY = (Segment(1000, hmma=0.5, util=90, watts=500),)


def test_only_this_jobs_devices_are_metered_and_a_lost_one_ends_without_a_ceiling(
    tmp_path: Path, standin: Path
) -> None:
    scenario, folder, ledger = Scenario((h100(BUSY), h100(BUSY))), tmp_path / "map", tmp_path / "ledger.json"
    folder.mkdir()
    for index in "01":
        (folder / index).write_text("4711\n")
    env = environment(standin, scenario.write(tmp_path / "s.txt"), DCGM_HPC_JOB_MAPPING_DIR=str(folder))
    with started("run", "--source", "nvml", "--devices", "job:4711", "--state-dir", str(tmp_path / "state"), "--listen", "127.0.0.1:0",
                 "--ledger", str(ledger), env=env) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        wait_until(lambda: _observed(url, scenario.uuid(1)) > 2, "two seconds of both")
        (folder / "1").write_text("4712\n")
        wait_until(lambda: 'reason="other_job"' in get(f"{url}/metrics")[1], "the second GPU is another job's")
        wait_until(lambda: _observed(url, scenario.uuid(0)) > 14, "some more of the first")
        program.process.terminate()
        assert program.finish() == 0, program.text
    sealed = predicate(ledger)
    first, second = sealed["devices"]
    assert float(second["gapSeconds"]) > 1
    gaps = [gap for gap in sealed["coverage"]["gaps"] if gap["reason"] == "other_job"]
    assert gaps
    assert all((gap["device"], gap["ceiling"]) == (second["uuid"], "0") for gap in gaps)
    # The second device is covered except for at most ten seconds at the end: since the last lookup it may be this
    # job's again.
    assert int(sealed["coverage"]["coveragePpm"]) > 600_000
    assert float(first["observedSeconds"]) > float(second["observedSeconds"]) + 1
    source = sealed["incarnations"][0]["sources"]["nvml"]
    assert source["devices"].endswith("2 of 2")


def test_under_exec_a_device_used_by_others_too_is_marked(tmp_path: Path, standin: Path) -> None:
    """The stand-in lists this test's own process on the GPU, which is not one of the job's."""
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


def test_an_unanswered_device_rule_is_exit_4_with_the_remedy(tmp_path: Path, standin: Path) -> None:
    env = environment(standin, Scenario((h100(BUSY),)).write(tmp_path / "s.txt"))
    done = flopsd("run", "--source", "nvml", "--devices", "job", "--state-dir", str(tmp_path / "state"), env=env)
    assert done.returncode == 4
    assert "hint: " in done.stderr
    flopsd("run", "--devices", "pods", env=env, code=2, says="'pods' is neither a rule nor a device")


def _observed(url: str, label: str) -> float:
    """The sum in seconds of the series with this text in their labels."""
    lines = (line for line in get(f"{url}/metrics")[1].splitlines() if label in line)
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("flopsd_observed_seconds_total{"))


FLOP_PER_SECOND = 50 * 108 * 14_100_000 * 2048  # 0.50 x 108 SMs x 1410 MHz x bf16


def page() -> str:
    """An A100 at a constant load, collected each second."""
    second = SystemClock().boottime_ns() // NS_PER_S
    return gpu({TENSOR: 0.5, FP64: 0, FP32: 0, FP16: 0, CLOCK: 1410, UTIL: 97, ENERGY: second * 400_000})


def test_one_gpu_listed_by_two_sources_is_counted_once_by_the_better(tmp_path: Path, standin: Path) -> None:
    """NVML bounds an A100, and the exporter measures it; when the exporter ends, NVML's ceiling remains."""
    scenario = Scenario((a100((Segment(1000, mhz=1410, util=97, watts=400),)),))
    ledger, exporter = tmp_path / "ledger.json", Exporter()
    exporter.page = page
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    with started("run", "--dcgm-url", exporter.url, "--dcgm-interval", "1", "--state-dir", str(tmp_path / "state"),
                 "--ledger", str(ledger), "--listen", "127.0.0.1:0", "--precision", "bf16", env=env) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        wait_until(lambda: _observed(url, 'evidence="activity"') > 3, "three seconds by the exporter")
        exporter.stop()
        before = _observed(url, 'evidence="utilization"')
        wait_until(lambda: _observed(url, 'evidence="utilization"') > before + 2, "two seconds by NVML")
        program.process.terminate()
        assert program.finish() == 0, program.text
    sealed = predicate(ledger)
    (device,) = sealed["devices"]
    assert device["source"] == "nvml"
    assert {row["evidence"] for row in device["work"] if row["flop"]["measured"]} == {"activity"}
    assert Decimal(device["observedSeconds"]) + Decimal(device["gapSeconds"]) == Decimal(device["spanSeconds"])
    assert "device 0: read by source nvml, evidence utilization (" in program.text
    measured, high = int(device["executed"]["measured"]), int(device["executed"]["high"])
    history = read_history(line.record() for line in read_journal(ledger.with_name("ledger.journal.jsonl")))
    (tally,) = history.incarnations[0].tallies.values()
    shown = FLOP_PER_SECOND * tally.observed_ns[Evidence.ACTIVITY] // NS_PER_S
    assert abs(measured / shown - 1) < 1e-6
    assert measured < FLOP_PER_SECOND * float(device["spanSeconds"]) < high


INF2 = "neuron_monitor_inf2_xlarge_real_effective_flops.json"


def metering(folder: Path) -> Mapping[str, str]:
    """An environment whose neuron-monitor meters on its own, and is idle until `executions` is written."""
    if Tree().chips:
        pytest.skip("the chips of this machine would be metered beside the stand-in's")
    shutil.copy(SAMPLES / INF2, folder / "template.json")
    return environment(None, FLOPSD_NEURON_MONITOR=str(MONITOR), NEURON_STANDIN=str(folder))


def periods(folder: Path) -> list[int]:
    """The FLOP of each period that the stand-in has printed."""
    file = folder / "truth"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def pids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().split()]


def test_a_run_counts_every_execution_and_its_ledger_verifies(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    with started("run", "--source", "neuron", "--state-dir", str(tmp_path / "state"), "--ledger", str(ledger),
                 "--listen", "off", env=metering(tmp_path)) as program:  # fmt: skip
        program.wait_for("run .*, daemon start 1,")
        wait_until(lambda: len(periods(tmp_path)) >= 3, "the first whole period")  # all idle so far
        (tmp_path / "executions").write_text("816")
        wait_until(lambda: len([flop for flop in periods(tmp_path) if flop]) >= 3, "three busy periods")
        (tmp_path / "executions").unlink()
        quiet = len(periods(tmp_path))
        wait_until(lambda: len(periods(tmp_path)) >= quiet + 2, "an idle period that is read")
        program.process.send_signal(signal.SIGTERM)
        assert program.finish() == 0, program.text
    sealed = predicate(ledger)
    true, (chip,) = sum(periods(tmp_path)), sealed["devices"]
    counted = int(chip["executed"]["measured"])
    assert true >= 3 * 816 * 2**30
    assert counted == pytest.approx(true, rel=1e-9)
    assert int(chip["executed"]["low"]) < true < int(chip["executed"]["high"])
    assert (chip["peakRow"], chip["model"], chip["evidence"], chip["source"]) == (
        "inferentia2", "inferentia2", "count", "neuron",
    )  # fmt: skip
    assert {work["evidence"] for work in chip["work"]} == {"count", "gap"}
    assert float(chip["gapSeconds"]) < 3.5  # before the first whole period, and after the last document
    assert "REDACTED" not in ledger.read_text()
    assert not alive(pids(tmp_path)[0])


def test_a_killed_daemon_leaves_no_monitor_and_its_journal_has_the_flop(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "executions").write_text("100")
    with started("run", "--source", "neuron", "--state-dir", str(state), "--listen", "off",
                 env=metering(tmp_path)) as program:  # fmt: skip
        wait_until(
            lambda: (state / "pending.jsonl").exists() and b"counted_flop" in (state / "pending.jsonl").read_bytes(),
            "counted FLOP",
        )
        program.process.kill()
        program.process.wait()
    wait_until(lambda: not alive(pids(tmp_path)[0]), "the monitor's end")
    in_process("seal", "--state-dir", str(state), "--ledger", str(tmp_path / "ledger.json"), code=0)
    (chip,) = predicate(tmp_path / "ledger.json")["devices"]
    counted = int(chip["executed"]["measured"])
    assert counted in [pytest.approx(n * 100 * 2**30, rel=1e-9) for n in range(1, len(periods(tmp_path)))]
