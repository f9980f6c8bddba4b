"""The real program reading a dcgm-exporter, alone and beside NVML, held against what that exporter shows."""

from __future__ import annotations

import socket
from decimal import Decimal
from pathlib import Path

from flopsd.core.ledger.history import read_history
from flopsd.journal.journal import read_journal
from flopsd.system.clock import NS_PER_S, SystemClock
from tests.support.exporter import CLOCK, ENERGY, FP16, FP32, FP64, TENSOR, UTIL, Exporter, gpu
from tests.support.process import environment, flopsd, get, predicate, started, wait_until
from tests.support.scenario import Scenario, Segment, a100

SECONDS = 8
FLOP_PER_SECOND = 50 * 108 * 14_100_000 * 2048  # 0.50 x 108 SMs x 1410 MHz x bf16


def page() -> str:
    """An A100 at a constant load, collected each second."""
    second = SystemClock().boottime_ns() // NS_PER_S
    return gpu({TENSOR: 0.5, FP64: 0, FP32: 0, FP16: 0, CLOCK: 1410, UTIL: 97, ENERGY: second * 400_000})


def test_an_a100_is_measured_and_sealed(tmp_path: Path) -> None:
    state, ledger = tmp_path / "state", tmp_path / "ledger.json"
    exporter = Exporter()
    exporter.page = page
    with started("run", "--source", "dcgm", "--dcgm-url", exporter.url, "--dcgm-interval", "1", "--state-dir", str(state),
                 "--ledger", str(ledger), "--listen", "off", "--precision", "bf16", "--duration", str(SECONDS),
                 env=environment(None)) as program:  # fmt: skip
        assert program.finish() == 0, program.text
    exporter.stop()
    told = predicate(ledger)
    (device,) = told["devices"]
    history = read_history(line.record() for line in read_journal(ledger.with_name("ledger.journal.jsonl")))
    (tally,) = history.incarnations[0].tallies.values()
    observed_ns = tally.total_observed_ns
    executed = {bound: int(told["totals"]["executed"][bound]) for bound in ("low", "measured", "high")}
    true = FLOP_PER_SECOND * observed_ns // NS_PER_S
    print(f"{device['model']}: {observed_ns / NS_PER_S:.1f} of {SECONDS} s observed, "
          f"measured {executed['measured']:.5e}, shown {true:.5e}")  # fmt: skip
    assert observed_ns > (SECONDS - 5) * NS_PER_S
    assert abs(executed["measured"] / true - 1) < 1e-6
    assert executed["low"] < true < executed["high"]
    assert set(told["coverage"]["gapSecondsByReason"]) <= {"starting", "stopping"}


def test_one_gpu_by_two_sources_is_counted_once_and_by_the_better(tmp_path: Path, standin: Path) -> None:
    """NVML bounds an A100, the exporter measures it; when the exporter goes, NVML's ceiling is what is left."""
    scenario = Scenario((a100((Segment(1000, mhz=1410, util=97, watts=400),)),))
    ledger, exporter = tmp_path / "ledger.json", Exporter()
    exporter.page = page
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    with started("run", "--dcgm-url", exporter.url, "--dcgm-interval", "1", "--state-dir", str(tmp_path / "state"),
                 "--ledger", str(ledger), "--listen", "127.0.0.1:0", env=env) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        wait_until(lambda: _observed(url, "activity") > 3, "three seconds by the exporter")
        exporter.stop()
        before = _observed(url, "utilization")
        wait_until(lambda: _observed(url, "utilization") > before + 2, "two seconds by NVML")
        program.process.terminate()
        assert program.finish() == 0, program.text
    told = predicate(ledger)
    (device,) = told["devices"]
    assert device["source"] == "nvml"
    assert {row["evidence"] for row in device["work"] if row["flop"]["measured"]} == {"activity"}
    assert Decimal(device["observedSeconds"]) + Decimal(device["gapSeconds"]) == Decimal(device["spanSeconds"])
    assert "device 0: read by source nvml, evidence utilization" in program.text
    true = FLOP_PER_SECOND * float(device["spanSeconds"])
    assert int(device["executed"]["measured"]) < true < int(device["executed"]["high"])


def test_no_exporter_is_exit_4_with_how_to_start_one(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, so nobody else gets it, and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/metrics"
        done = flopsd("run", "--source", "dcgm", "--dcgm-url", url, "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 4
    assert "Connection refused" in done.stderr
    assert "the capability SYS_ADMIN" in done.stderr


def _observed(url: str, evidence: str) -> float:
    lines = get(f"{url}/metrics")[1].splitlines()
    told = [
        line for line in lines if line.startswith("flopsd_observed_seconds_total{") and f'evidence="{evidence}"' in line
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in told)
