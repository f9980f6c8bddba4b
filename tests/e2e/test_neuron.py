"""`flopsd run --source neuron` from start to sealed ledger, neuron-monitor found on PATH, at the real clock."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.neuron import MONITOR, SAMPLES, alive
from tests.support.process import environment, flopsd, predicate, started, wait_until

INF2 = "neuron_monitor_inf2_xlarge_real_effective_flops.json"


def metering(folder: Path) -> Mapping[str, str]:
    """An environment whose neuron-monitor meters on its own, and is idle until `executions` is written."""
    shutil.copy(SAMPLES / INF2, folder / "template.json")
    path = f"{MONITOR.parent}{os.pathsep}{os.environ['PATH']}"
    return environment(None, PATH=path, NEURON_STANDIN=str(folder))


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
    told = predicate(ledger)
    true, (chip,) = sum(periods(tmp_path)), told["devices"]
    counted = int(chip["executed"]["measured"])
    print(f"counted {counted}, true {true}, coverage {chip['observedSeconds']} s of {chip['spanSeconds']} s")
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
    done = flopsd("seal", "--state-dir", str(state), "--ledger", str(tmp_path / "ledger.json"))
    assert done.returncode == 0, done.stderr
    (chip,) = predicate(tmp_path / "ledger.json")["devices"]
    counted = int(chip["executed"]["measured"])
    assert counted in [pytest.approx(n * 100 * 2**30, rel=1e-9) for n in range(1, len(periods(tmp_path)))]
