"""Sixteen simulated GPUs through the real program, held against the scenario's closed form: for half a minute in the
ordinary run, for a minute in `make test-all`."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.core.ledger.history import History, read_history
from flopsd.core.model import GapReason, Pipe
from flopsd.journal.journal import read_journal
from flopsd.system.clock import SystemClock
from tests.support.process import daemon_pid, environment, predicate, started, truth, wait_until
from tests.support.scenario import Scenario, Segment, a100, h100

pytestmark = pytest.mark.minute
IDLE_FIRST, IDLE_LAST = 10, 3  # seconds: a daemon that starts beside other tests is slow
H100_RATES = {Pipe.TENSOR_HMMA: 4096, Pipe.TENSOR_IMMA: 8192, Pipe.FP64: 128, Pipe.FP32: 256, Pipe.FP16: 512}
A100_RATES = {Pipe.TENSOR_HMMA: 2048, Pipe.TENSOR_IMMA: 4096, Pipe.FP64: 64, Pipe.FP32: 128, Pipe.FP16: 512}


def training(index: int, seconds: int) -> tuple[Segment, ...]:
    """Idle at first, then bursts down to 50 ms that differ from GPU to GPU, the last of `seconds` idle again.

    Idle edges make the closed form of the whole time comparable, whenever daemon and job begin.
    """
    burst = 50 + 10 * index
    step = (
        Segment(burst, util=100, watts=690, hmma=0.93, fp32=0.05),
        Segment(500 - burst, util=0, watts=140),
        Segment(430, util=100, watts=610, hmma=0.48 + index / 100, fp32=0.11, fp16=0.02, fp64=0.001, imma=0.01),
        Segment(70, util=3, watts=150, fp32=0.004),
    )
    return (Segment(IDLE_FIRST * 1000), *step * (seconds - IDLE_FIRST - IDLE_LAST), Segment(20_000))


def intervals(history: History, uuid: str) -> list[tuple[int, int]]:
    """What of a device was observed, by the journal: its spans less its gaps."""
    found: list[tuple[int, int]] = []
    for incarnation in history.incarnations:
        for entry in incarnation.devices.values():
            if entry.device.uid != uuid:
                continue
            position = entry.begin_ns
            for gap in history.gaps:
                if gap.device == uuid and gap.incarnation == incarnation.number:
                    if gap.begin_ns > position:
                        found.append((position, gap.begin_ns))
                    position = gap.end_ns
            end = incarnation.tallies[uuid].watermark_ns
            if end > position:
                found.append((position, end))
    return found


def _age_s(scenario: Scenario) -> float:
    return (SystemClock().boottime_ns() - scenario.epoch_ns) / 1e9


@pytest.mark.parametrize(
    ("seconds", "kills"),
    [
        (30, 2),
        pytest.param(60, 0, marks=pytest.mark.exhaustive),
        pytest.param(60, 2, marks=pytest.mark.exhaustive),
    ],
)
def test_eight_h100_agree_with_the_closed_form_eight_a100_are_only_bounded_and_kills_leave_gaps_that_add_up(
    tmp_path: Path, standin: Path, seconds: int, kills: int
) -> None:
    slower = [tuple(replace(segment, mhz=1410) for segment in training(i, seconds)) for i in range(8)]
    scenario = Scenario((*(h100(training(i, seconds)) for i in range(8)), *map(a100, slower)))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    state, ledger = tmp_path / "state", tmp_path / "ledger.json"
    with started("exec", "--state-dir", str(state), "--ledger", str(ledger), "--listen", "off", "--checkpoint", str(seconds / 4),
                 "--", "sleep", str(seconds), env=env) as program:  # fmt: skip
        for kill in range(kills):
            wait_until(lambda at=IDLE_FIRST + 2 + 5 * kill: _age_s(scenario) > at, "the moment to kill")
            os.kill(daemon_pid(state), signal.SIGKILL)
            program.wait_for(f"daemon start {kill + 2}")
        assert program.finish() == 0, program.text
    told = predicate(ledger)
    history = read_history(line.record() for line in read_journal(ledger.with_name("ledger.journal.jsonl")))
    end_ns = scenario.epoch_ns + (seconds + 10) * 10**9
    true = sum(truth(scenario, i, scenario.epoch_ns, end_ns, 132, H100_RATES) for i in range(8))
    seen = sum(truth(scenario, i, begin, end, 132, H100_RATES)
               for i in range(8) for begin, end in intervals(history, scenario.uuid(i)))  # fmt: skip
    measurable, bounded = told["devices"][:8], told["devices"][8:]
    low, measured, high = (sum(int(d["executed"][k]) for d in measurable) for k in ("low", "measured", "high"))
    error = measured / seen - 1
    gap_s = float(told["coverage"]["gapSecondsByReason"].get("daemon_down", 0))
    print(f"8 x H100 through exec, {kills} kills: error of the measured part {error:+.6%}, {measured / true:.4%} of the "
          f"truth measured, {gap_s:.3f} s of {told['coverage']['spanSeconds']} device seconds down")  # fmt: skip
    assert abs(error) <= 0.001
    assert kills or abs(measured / true - 1) <= 0.001
    assert low <= true <= high
    assert low <= measured <= (true if kills else high)
    assert len(told["incarnations"]) == kills + 1
    for device in measurable:
        spans = [t.span_ns for inc in history.incarnations for u, t in inc.tallies.items() if u == device["uuid"]]
        gaps = sum(g.end_ns - g.begin_ns for g in history.gaps if g.device == device["uuid"])
        observed = sum(end - begin for begin, end in intervals(history, device["uuid"]))
        assert observed + gaps == sum(spans)
        down = [g for g in history.gaps if g.device == device["uuid"] and g.reason is GapReason.DAEMON_DOWN]
        assert len(down) == kills
        # An interval of a second is lost at most, and the time that starting took.
        assert all(g.end_ns - g.begin_ns < 4 * 10**9 for g in down)
    true = sum(truth(scenario, i, scenario.epoch_ns, end_ns, 108, A100_RATES) for i in range(8, 16))
    ceiling = sum(int(device["executed"]["high"]) for device in bounded)
    print(f"8 x A100: at most {ceiling} FLOP, truth {true}, {ceiling / true:.2f} times too high")
    assert ceiling >= true
    for device in bounded:
        assert device["evidence"] == "utilization"
        assert (device["executed"]["low"], device["executed"]["measured"]) == ("0", None)
