"""Killed at any moment: what a checkpoint line acknowledged is never lost, and nothing false is sealed."""

from __future__ import annotations

import random
import re
import signal
import threading
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from flopsd.core.model import Pipe
from flopsd.errors import JournalDamagedError
from flopsd.journal.journal import read_journal, read_live
from flopsd.system.clock import SystemClock
from tests.support.extent import Extent, sampled
from tests.support.process import environment, flopsd, predicate, started, truth, wait_until
from tests.support.scenario import Scenario, Segment, h100

# One clock: a polled clock that jumps within a poll is several percent off either way (its doubt says so), and would
# hide here what this is about: that nothing is counted twice.
LOAD = (
    Segment(130, mhz=1980, util=100, watts=690, hmma=0.93, fp32=0.05),
    Segment(270, mhz=1980, util=10, watts=140, hmma=0.2, imma=0.01),
)
RATES = {Pipe.TENSOR_HMMA: 4096, Pipe.TENSOR_IMMA: 8192, Pipe.FP32: 256}
LINE = re.compile(
    r"flopsd-checkpoint .* records=(\d+) bytes=(\d+) head=([0-9a-f]{64}) low_flop=(\d+) measured_flop=(\S+)"
)


def options(state: Path, ledger: Path) -> tuple[str, ...]:
    return ("run", "--source", "nvml", "--state-dir", str(state), "--run-id", "crashes", "--listen", "off", "--interval",
            "0.1", "--checkpoint", "0.2", "--ledger", str(ledger))  # fmt: skip


def hold(acknowledged: list[str], journal: Path) -> None:
    """Every acknowledged checkpoint is in the journal as it was told."""
    lines = {line.number: (line.end, line.head.hex()) for line in read_live(journal)}
    for records, size, head, _, _ in LINE.findall("".join(acknowledged)):
        assert lines.get(int(records)) == (int(size), head), f"checkpoint {records} was told and is not there"


def good_part(copy: Path) -> bytes:
    size = 0
    try:
        for line in read_journal(copy):
            size = line.end
    except JournalDamagedError:
        pass  # copied in the middle of a write
    return copy.read_bytes()[:size]


@pytest.mark.minute
@sampled(4)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sigkills_at_any_moment_lose_nothing_that_was_acknowledged(
    tmp_path: Path, standin: Path, seed: int, extent: Extent
) -> None:
    kills = 21 // extent.step
    rng, clock = random.Random(seed), SystemClock()
    counters = ("none", "average", "sum")[seed - 1]
    scenario = Scenario((h100(LOAD, counters=counters),))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    state, ledger, log = tmp_path / "state", tmp_path / "ledger.json", tmp_path / "daemon.log"
    journal, copies, torn = state / "journal.jsonl", list[bytes](), 0
    acknowledged: list[str] = []
    for kill in range(kills + 1):
        with started(*options(state, ledger), env=env) as program:
            if kill == kills:
                program.wait_for(r"daemon start \d+,")
                wait_until(lambda: _measured(journal), "a measured checkpoint in the last incarnation")
                program.process.send_signal(signal.SIGTERM)
                assert program.finish() == 0, program.text
            else:
                if kill == 0 and counters != "none":
                    wait_until(lambda: _measured(journal, "cycles"), "a checkpoint with running counters")
                elif kill % 4:
                    program.wait_for(r"daemon start \d+,")  # else killed while it starts and recovers
                clock.wait(threading.Event(), rng.uniform(0, 1.3))
                if journal.exists():
                    (tmp_path / "copy").write_bytes(journal.read_bytes())
                    copies.append(good_part(tmp_path / "copy"))
                program.process.kill()
                program.finish()
            acknowledged += program.out.splitlines(keepends=True)
        if journal.exists():
            torn += journal.read_bytes() != good_part(journal)
            hold(acknowledged, journal)
    sealed = ledger.with_suffix(".journal.jsonl")
    assert all(sealed.read_bytes().startswith(copy) for copy in copies)
    log.write_text("".join(acknowledged))
    told = [(int(low), int(measured)) for *_, low, measured in LINE.findall(log.read_text()) if measured != "unknown"]
    assert told == sorted(told)  # totals only grow
    assert all(a[1] <= b[1] for a, b in pairwise(told))
    done = flopsd("verify", str(ledger), "--key", str(ledger.with_suffix(".pub")), "--anchors", str(log))
    assert done.returncode == 0, done.stdout
    text = " ".join(done.stdout.split())  # lines are wrapped
    assert f"{len(LINE.findall(log.read_text()))} checkpoints in" in text
    assert "1 record after the last anchor" in text  # the end itself
    found = predicate(ledger)
    executed = {name: int(found["totals"]["executed"][name]) for name in ("low", "measured", "high")}
    records = [line.record() for line in read_journal(sealed)]
    true = truth(scenario, 0, records[0]["ns"], records[-1]["ns"], 132, RATES)
    assert executed["low"] <= true <= executed["high"]
    assert executed["measured"] <= true * 1.001
    if (
        counters != "none"
    ):  # they ran on while the daemon was dead: only before the first reading and after the last is a gap
        assert executed["measured"] >= true * 0.99
        coverage = found["coverage"]
        edges = (
            g
            for g in coverage["gaps"]
            if (g["incarnation"], g["reason"]) == (1, "starting") or g["reason"] == "stopping"
        )
        missed = Decimal(coverage["gapSeconds"]) - Decimal(coverage["recoveredSeconds"])
        assert missed == sum(Decimal(gap["seconds"]) for gap in edges)
    print(
        f"\n{kills} SIGKILLs, counters {counters}: {len(acknowledged)} checkpoints told and none lost, {len(copies)} live copies, "
        f"{torn} torn tails, {len(found['incarnations'])} incarnations; low {executed['low'] / true:.3f}, measured "
        f"{executed['measured'] / true:.4f}, high {executed['high'] / true:.3f} of what was executed"
    )


def _measured(journal: Path, evidence: str = "") -> bool:
    """Whether the journal's newest incarnation has a checkpoint with measured work, by this evidence."""
    seen = False
    for line in read_live(journal) if journal.exists() else ():
        record = line.record()
        if record["kind"] == "begin":
            seen = False
        elif record["kind"] == "checkpoint":
            by = [kind for device in record["devices"] for kind in device["observed_ns"]]
            seen = seen or (evidence in by if evidence else by != [])
    return seen
