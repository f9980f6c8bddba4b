"""The real program reading a dcgm-exporter beside NVML, held against what that exporter shows."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from flopsd.core.ledger.history import read_history
from flopsd.core.model import Evidence
from flopsd.journal.journal import read_journal
from flopsd.system.clock import NS_PER_S, SystemClock
from tests.support.exporter import CLOCK, ENERGY, FP16, FP32, FP64, TENSOR, UTIL, Exporter, gpu
from tests.support.process import environment, get, predicate, started, wait_until
from tests.support.scenario import Scenario, Segment, a100

FLOP_PER_SECOND = 50 * 108 * 14_100_000 * 2048  # 0.50 x 108 SMs x 1410 MHz x bf16


def page() -> str:
    """An A100 at a constant load, collected each second."""
    second = SystemClock().boottime_ns() // NS_PER_S
    return gpu({TENSOR: 0.5, FP64: 0, FP32: 0, FP16: 0, CLOCK: 1410, UTIL: 97, ENERGY: second * 400_000})


def test_one_gpu_by_two_sources_is_counted_once_and_by_the_better(tmp_path: Path, standin: Path) -> None:
    """NVML bounds an A100, the exporter measures it; when the exporter goes, NVML's ceiling is what is left."""
    scenario = Scenario((a100((Segment(1000, mhz=1410, util=97, watts=400),)),))
    ledger, exporter = tmp_path / "ledger.json", Exporter()
    exporter.page = page
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    with started("run", "--dcgm-url", exporter.url, "--dcgm-interval", "1", "--state-dir", str(tmp_path / "state"),
                 "--ledger", str(ledger), "--listen", "127.0.0.1:0", "--precision", "bf16", env=env) as program:  # fmt: skip
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
    measured, high = int(device["executed"]["measured"]), int(device["executed"]["high"])
    history = read_history(line.record() for line in read_journal(ledger.with_name("ledger.journal.jsonl")))
    (tally,) = history.incarnations[0].tallies.values()
    shown = FLOP_PER_SECOND * tally.observed_ns[Evidence.ACTIVITY] // NS_PER_S
    print(f"{device['model']}: measured {measured:.5e}, shown by the exporter {shown:.5e}")
    assert abs(measured / shown - 1) < 1e-6
    assert measured < FLOP_PER_SECOND * float(device["spanSeconds"]) < high


def _observed(url: str, evidence: str) -> float:
    lines = get(f"{url}/metrics")[1].splitlines()
    told = [
        line for line in lines if line.startswith("flopsd_observed_seconds_total{") and f'evidence="{evidence}"' in line
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in told)
