"""A rotated run of the real program, killed three times with the journal rotating all the while: nothing is lost
between its segments, and their merged ledger has the run's total."""

import random
import signal
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from flopsd.core.model import Evidence, Pipe
from flopsd.system.clock import SystemClock
from tests.support.process import environment, in_process, predicate, started, truth
from tests.support.proven_counters import write_proven
from tests.support.runs import history_of
from tests.support.scenario import Scenario, Segment, h100

LOAD = (
    Segment(130, mhz=1980, util=100, watts=690, hmma=0.93, fp32=0.05),
    Segment(270, mhz=1980, util=10, watts=140, hmma=0.2, imma=0.01),
)
RATES = {Pipe.TENSOR_HMMA: 4096, Pipe.FP32: 256}
KILLS = 3


@pytest.mark.exhaustive
@pytest.mark.minute
def test_three_kills_of_a_rotating_run_lose_nothing(tmp_path: Path, standin: Path) -> None:
    scenario, rng, clock = Scenario((h100(LOAD, counters="sum"),)), random.Random(28), SystemClock()
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    state, out = tmp_path / "state", tmp_path / "out"
    run = ("run", "--source", "nvml", "--state-dir", str(state), "--run-id", "endless", "--listen", "off", "--evidence",
           "off", "--interval", "0.1", "--checkpoint", "0.2", "--rotate-every", "10kB", "--ledger", str(out / "ledger.json"))  # fmt: skip
    log = tmp_path / "daemon.log"
    write_proven(state, scenario, "endless")
    for kill in range(KILLS + 1):
        with started(*run, env=env) as program:
            program.wait_for(r"daemon start \d+,")
            program.wait_for("segment [0-9]+ of the run is closed")
            clock.wait(threading.Event(), rng.uniform(2, 4))
            program.process.send_signal(signal.SIGKILL if kill < KILLS else signal.SIGTERM)
            assert program.finish() == (-9 if kill < KILLS else 0), program.text
            with log.open("a") as file:
                file.write(program.out)
    assert list((state / "segments").iterdir()) == []  # each is sealed, with its journal next to its ledger
    ledgers = sorted(out.glob("ledger-*.json"))
    parts = [history_of(ledger.with_suffix(".journal.jsonl")) for ledger in ledgers]
    assert [part.segment for part in parts] == list(range(1, len(ledgers) + 1))
    assert len(ledgers) > KILLS
    tallies = [start.tallies[scenario.uuid(0)] for part in parts for start in part.incarnations]
    for before, after in pairwise(tallies):
        assert before.watermark_ns == after.begin_ns  # not a nanosecond between them, kills included
    # Running counters give the true work: all of it is counted, and nothing twice.
    since = next(at for at, tally in enumerate(tallies) if tally.observed_ns.keys() == {Evidence.CYCLES})
    first, last = tallies[since - 1].totals, tallies[-1].totals
    assert first is not None
    assert last is not None
    for pipe in (Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.FP32):
        counted = sum(tally.active_sm_cycles.get((Evidence.CYCLES, pipe), 0) for tally in tallies[since:])
        assert counted == last.sm_cycles[pipe] - first.sm_cycles[pipe]
    for ledger in (ledgers[0], ledgers[-1]):  # the log has the lines of all segments
        in_process("verify", str(ledger), "--key", str(ledger.with_suffix(".pub")), "--anchors", str(log), code=0)
    job = tmp_path / "job.json"
    keys = ("--trust", str(ledgers[0].with_suffix(".pub")), "--key", str(state / "flopsd-key.pem"))
    in_process("merge", str(out), *keys, "--nodes", "1", "--ledger", str(job), code=0)
    merged = predicate(job)
    executed = {name: int(merged["totals"]["executed"][name]) for name in ("low", "measured", "high")}
    begin_ns, end_ns = parts[0].incarnations[0].begin["ns"], parts[-1].incarnations[-1].last_ns
    true = truth(scenario, 0, begin_ns, end_ns, 132, RATES)
    assert merged["completeness"]["complete"] is True
    assert executed["low"] <= true <= executed["high"]
    done = in_process("merge", str(ledgers[0]), *(map(str, ledgers[2:])), *keys, "--nodes", "1", "--ledger", str(tmp_path / "no"),
                  code=1)  # fmt: skip
    assert "no ledger of segment 2" in done.stderr
    print(
        f"\n{KILLS} SIGKILLs, {len(ledgers)} segments: low {executed['low'] / true:.3f}, measured "
        f"{executed['measured'] / true:.4f}, high {executed['high'] / true:.3f} of what was executed"
    )
