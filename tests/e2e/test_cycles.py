"""Running cycle counters through the real program: ten times killed with SIGKILL, and not a cycle is lost."""

from __future__ import annotations

import os
import signal
from fractions import Fraction
from pathlib import Path

from flopsd.core.ledger.history import read_history
from flopsd.core.ledger.journal_codec import Record
from flopsd.core.model import Evidence, GapReason, Pipe, Totals
from flopsd.journal.journal import read_journal, read_live
from tests.support.process import daemon_pid, environment, predicate, started, wait_until
from tests.support.scenario import Scenario, Segment, h100

LOAD = (
    Segment(130, mhz=1980, util=100, watts=690, hmma=0.93, fp32=0.05),
    Segment(270, mhz=1230, util=10, watts=140, hmma=0.2, imma=0.01),
    Segment(50, mhz=1755, util=100, watts=610, hmma=0.48),
)
RATES = {Pipe.TENSOR_HMMA: 4096, Pipe.TENSOR_IMMA: 8192, Pipe.FP32: 256}


def test_ten_sigkills_lose_no_flop(tmp_path: Path, standin: Path) -> None:
    scenario = Scenario((h100(LOAD, counters="average"), h100(LOAD, counters="sum")))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    state, ledger = tmp_path / "state", tmp_path / "ledger.json"
    arguments = ("run", "--source", "nvml", "--state-dir", str(state), "--run-id", "ten", "--listen", "off", "--interval", "0.3",
                 "--checkpoint", "0.5", "--ledger", str(ledger))  # fmt: skip
    for kill in range(11):
        with started(*arguments, env=env) as program:
            program.wait_for(f"daemon start {kill + 1},")
            wait_until(lambda at=kill + 1: _counts(state, at), f"a checkpoint with cycles in daemon start {kill + 1}")
            if kill == 10:
                os.kill(daemon_pid(state), signal.SIGTERM)
                assert program.finish() == 0, program.text
            else:
                os.kill(daemon_pid(state), signal.SIGKILL)
                program.finish()

    records = [line.record() for line in read_journal(ledger.with_suffix(".journal.jsonl"))]
    history = read_history(records)
    assert len(history.incarnations) == 11
    for index in range(2):
        uuid = scenario.uuid(index)
        tallies = [incarnation.tallies[uuid] for incarnation in history.incarnations]
        first = _first_totals(records, uuid)
        last = tallies[-1].totals
        assert last is not None
        for pipe in (Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.FP32):
            counted = sum(t.active_sm_cycles.get((Evidence.CYCLES, pipe), 0) for t in tallies)
            before = first[2].get(pipe, 0)  # what cycles had counted when the first totals were journalled
            assert counted - before == last.sm_cycles[pipe] - first[0].sm_cycles[pipe]
        true = Fraction(
            sum(
                scenario.gpus[index].sm_cycles(
                    pipe, first[1] - scenario.epoch_ns, tallies[-1].totals_ns - scenario.epoch_ns, 132
                )
                * rate
                for pipe, rate in RATES.items()
            )
        )
        told = sum((last.sm_cycles[pipe] - first[0].sm_cycles[pipe]) * rate for pipe, rate in RATES.items())
        print(
            f"GPU {index}: {told} FLOP over ten SIGKILLs, closed form {int(true)}: {float(told / Fraction(true)) - 1:+.6%}"
        )
        assert abs(told - true) < true / 10_000  # when a sample was taken is known to the length of the call
        missed = sum(t.total_gap_ns for t in tallies) - sum(t.recovered_ns for t in tallies)
        before_and_after = tallies[0].gap_ns.get(GapReason.STARTING, 0) + tallies[-1].gap_ns.get(GapReason.STOPPING, 0)
        assert missed == before_and_after

    sealed = predicate(ledger)
    assert all(device["evidence"] == "cycles" for device in sealed["devices"])
    assert [device["counters"]["running"]["origin"] for device in sealed["devices"]] == [
        "GPM pipes x132, elapsed x132",
        "GPM pipes x1, elapsed x1",
    ]
    assert int(sealed["coverage"]["coveragePpm"]) > 985_000


def _counts(state: Path, at_least: int) -> bool:
    history = read_history(line.record() for line in read_live(state / "journal.jsonl"))
    if len(history.incarnations) < at_least:
        return False
    tallies = history.incarnations[-1].tallies.values()
    return len(tallies) == 2 and all(Evidence.CYCLES in tally.observed_ns for tally in tallies)


def _first_totals(records: list[Record], uuid: str) -> tuple[Totals, int, dict[Pipe, int]]:
    """The first journalled totals of a device, when they were read, and what cycles had counted by then."""
    for end in range(1, len(records) + 1):
        tally = next((i.tallies[uuid] for i in read_history(records[:end]).incarnations if uuid in i.tallies), None)
        if tally is not None and tally.totals is not None:
            counted = {pipe: n for (evidence, pipe), n in tally.active_sm_cycles.items() if evidence is Evidence.CYCLES}
            return tally.totals, tally.totals_ns, counted
    raise AssertionError("no totals were journalled")
