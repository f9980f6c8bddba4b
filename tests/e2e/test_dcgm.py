"""The real program reading a dcgm-exporter at its usual address, held against what that exporter shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from flopsd.clock import NS_PER_S, SystemClock
from flopsd.core.records import read_history
from flopsd.journal import read_journal
from tests.support.exporter import CLOCK, ENERGY, FP16, FP32, FP64, TENSOR, UTIL, Exporter, gpu
from tests.support.process import environment, flopsd, predicate, started

USUAL_PORT = 9400
SECONDS = 8
FLOP_PER_SECOND = 50 * 108 * 14_100_000 * 2048  # 0.50 x 108 SMs x 1410 MHz x bf16


def page() -> str:
    """An A100 at a constant load, collected each second."""
    second = SystemClock().boottime_ns() // NS_PER_S
    return gpu({TENSOR: 0.5, FP64: 0, FP32: 0, FP16: 0, CLOCK: 1410, UTIL: 97, ENERGY: second * 400_000})


def test_an_a100_is_measured_and_sealed(tmp_path: Path) -> None:
    state, ledger = tmp_path / "state", tmp_path / "ledger.json"
    try:
        exporter = Exporter(USUAL_PORT)
    except OSError as fault:
        pytest.skip(f"port {USUAL_PORT} is taken here: {fault}")
    try:
        exporter.page = page
        with started("run", "--source", "dcgm", "--state-dir", str(state), "--ledger", str(ledger), "--listen", "off",
                     "--precision", "bf16", "--duration", str(SECONDS), env=environment(None)) as program:  # fmt: skip
            assert program.finish() == 0, program.text
    finally:
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


def test_no_exporter_is_exit_4_with_how_to_start_one(tmp_path: Path) -> None:
    try:
        Exporter(USUAL_PORT).stop()
    except OSError as fault:
        pytest.skip(f"port {USUAL_PORT} is taken here: {fault}")
    done = flopsd("run", "--source", "dcgm", "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 4
    assert "Connection refused" in done.stderr
    assert "--cap-add SYS_ADMIN" in done.stderr
