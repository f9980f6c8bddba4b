"""A sidecar starts before the driver answers, or where there is none: it waits, and says so, and the job goes on."""

from __future__ import annotations

import signal
from pathlib import Path

from flopsd.system.clock import NS_PER_S, SystemClock
from tests.support.process import environment, flopsd, predicate, started
from tests.support.scenario import Scenario, Segment, h100


def test_a_driver_that_comes_later_is_found(tmp_path: Path, standin: Path) -> None:
    now_ns = SystemClock().boottime_ns()
    scenario = Scenario((h100((Segment(1000, hmma=0.5, util=100, watts=500),)),), driver_from_ms=2500, epoch_ns=now_ns)
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"), FLOPSD_WAIT_FOR_SOURCE="true")
    with started("run", "--state-dir", str(tmp_path / "state"), "--listen", "off", "--ledger", str(tmp_path / "l.json"),
                 "--evidence", "off", env=env) as program:  # fmt: skip
        program.wait_for("device 0: read by source nvml")
        assert SystemClock().boottime_ns() - now_ns >= 2.5 * NS_PER_S
        program.process.send_signal(signal.SIGTERM)
        assert program.finish() == 0, program.text
    assert len(predicate(tmp_path / "l.json")["devices"]) == 1


def test_where_none_comes_the_ledger_says_that_nothing_was_measured(tmp_path: Path) -> None:
    ledger = tmp_path / "l.json"
    options = ("run", "--state-dir", str(tmp_path / "state"), "--listen", "off", "--ledger", str(ledger),
               "--evidence", "off", "--duration", "1.5")  # fmt: skip
    assert flopsd(*options).returncode == 4
    assert not ledger.exists()
    done = flopsd(*options, "--wait-for-source", "true")
    assert done.returncode == 0, done.stderr
    found = predicate(ledger)
    assert (found["devices"], found["totals"]["executed"]["measured"]) == ([], None)
