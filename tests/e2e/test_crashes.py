"""Compared with the closed form: a daemon killed at any time never loses acknowledged work; and GPUs for half a
minute or a minute."""

import os
import random
import re
import signal
import threading
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.model import GapReason, Pipe
from flopsd.errors import JournalDamagedError
from flopsd.journal.reading import read_journal, read_live
from flopsd.system.clock import SystemClock
from tests.support.extent import Extent, sampled
from tests.support.process import daemon_pid, environment, in_process, predicate, started, truth, wait_until
from tests.support.proven_counters import write_proven
from tests.support.scenario import Scenario, Segment, a100, h100

# A constant clock: a polled clock that jumps within a poll is several percent off either way, as its doubt says, and
# would hide here what is tested: that nothing is counted twice.
LOAD = (
    Segment(130, mhz=1980, util=100, watts=690, hmma=0.93, fp32=0.05),
    Segment(270, mhz=1980, util=10, watts=140, hmma=0.2, imma=0.01),
)
RATES = {Pipe.TENSOR_HMMA: 4096, Pipe.FP32: 256}
RUN = "crashes"
LINE = re.compile(
    r"flopsd-checkpoint .* records=(\d+) bytes=(\d+) head=([0-9a-f]{64}) low_flop=(\d+) measured_flop=(\S+)"
)


def options(state: Path, ledger: Path) -> tuple[str, ...]:
    return ("run", "--source", "nvml", "--state-dir", str(state), "--run-id", RUN, "--listen", "off", "--interval",
            "0.1", "--checkpoint", "0.2", "--ledger", str(ledger))  # fmt: skip


def hold(acknowledged: list[str], journal: Path) -> None:
    """Every acknowledged checkpoint is in the journal as it was printed."""
    lines = {line.number: (line.end, line.head.hex()) for line in read_live(journal)}
    for records, size, head, _, _ in LINE.findall("".join(acknowledged)):
        assert lines.get(int(records)) == (int(size), head), f"checkpoint {records} was printed and is not there"


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
def test_sigkills_at_any_time_lose_no_acknowledged_work(
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
    if counters != "none":
        write_proven(state, scenario, RUN)
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
                    program.wait_for(r"daemon start \d+,")  # otherwise it is killed while it starts and recovers
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
    shown = [(int(low), int(measured)) for *_, low, measured in LINE.findall(log.read_text()) if measured != "unknown"]
    assert shown == sorted(shown)  # totals only grow
    assert all(a[1] <= b[1] for a, b in pairwise(shown))
    done = in_process("verify", str(ledger), "--key", str(ledger.with_suffix(".pub")), "--anchors", str(log), code=0)
    text = " ".join(done.stdout.split())  # lines are wrapped
    assert f"{len(LINE.findall(log.read_text()))} checkpoints in" in text
    assert "1 record after the last anchor" in text  # the end record itself
    found = predicate(ledger)
    executed = {name: int(found["totals"]["executed"][name]) for name in ("low", "measured", "high")}
    records = [line.record() for line in read_journal(sealed)]
    true = truth(scenario, 0, records[0]["ns"], records[-1]["ns"], 132, RATES)
    assert executed["low"] <= true <= executed["high"]
    assert executed["measured"] <= true * 1.001
    if counters != "none":  # they kept running while the daemon was dead
        coverage = found["coverage"]
        down = Decimal(coverage["gapSecondsByReason"]["daemon_down"])
        assert Decimal(coverage["recoveredSeconds"]) >= down > 0
        assert executed["measured"] >= true * 0.8  # without the time before the first reading and after the last
    print(
        f"\n{kills} SIGKILLs, counters {counters}: {len(acknowledged)} checkpoints printed and none lost, {len(copies)} live copies, "
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
            by = list(record["tallies"].get("observed_ns", ()))
            seen = seen or (evidence in by if evidence else by != [])
    return seen


pytestmark = pytest.mark.minute
IDLE_FIRST, IDLE_LAST = 10, 3  # seconds: a daemon that starts next to other tests is slow
H100_RATES = {Pipe.TENSOR_HMMA: 4096, Pipe.FP64: 128, Pipe.FP32: 256, Pipe.FP16: 512}
A100_RATES = {Pipe.TENSOR_HMMA: 2048, Pipe.FP64: 64, Pipe.FP32: 128, Pipe.FP16: 512}


def training(index: int, seconds: int) -> tuple[Segment, ...]:
    """Idle at first, then bursts down to 50 ms that differ from GPU to GPU, the last of `seconds` idle again. Idle
    edges make the closed form of the whole time comparable, whenever daemon and job begin."""
    burst = 50 + 10 * index
    step = (
        Segment(burst, util=100, watts=690, hmma=0.93, fp32=0.05),
        Segment(500 - burst, util=0, watts=140),
        Segment(430, util=100, watts=610, hmma=0.48 + index / 100, fp32=0.11, fp16=0.02, fp64=0.001, imma=0.01),
        Segment(70, util=3, watts=150, fp32=0.004),
    )
    return (Segment(IDLE_FIRST * 1000), *step * (seconds - IDLE_FIRST - IDLE_LAST), Segment(20_000))


def intervals(history: History, uuid: str) -> list[tuple[int, int]]:
    """The observed intervals of a device by the journal: its spans without its gaps."""
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


@pytest.mark.minute
@pytest.mark.parametrize(
    ("seconds", "kills"),
    [(30, 2), pytest.param(60, 0, marks=pytest.mark.exhaustive), pytest.param(60, 2, marks=pytest.mark.exhaustive)],
)
def test_eight_h100_match_the_closed_form_eight_a100_are_bounded_and_kill_gaps_add_up(
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
    stated = predicate(ledger)
    history = read_history(line.record() for line in read_journal(ledger.with_name("ledger.journal.jsonl")))
    end_ns = scenario.epoch_ns + (seconds + 10) * 10**9
    true = sum(truth(scenario, i, scenario.epoch_ns, end_ns, 132, H100_RATES) for i in range(8))
    seen = sum(truth(scenario, i, begin, end, 132, H100_RATES)
               for i in range(8) for begin, end in intervals(history, scenario.uuid(i)))  # fmt: skip
    measurable, bounded = stated["devices"][:8], stated["devices"][8:]
    low, measured, high = (sum(int(d["executed"][k]) for d in measurable) for k in ("low", "measured", "high"))
    error = measured / seen - 1
    gap_s = float(stated["coverage"]["gapSecondsByReason"].get("daemon_down", 0))
    print(f"8 x H100 through exec, {kills} kills: error of the measured part {error:+.6%}, {measured / true:.4%} of the "
          f"truth measured, {gap_s:.3f} s of {stated['coverage']['spanSeconds']} device seconds down")  # fmt: skip
    assert abs(error) <= 0.001
    assert kills or abs(measured / true - 1) <= 0.001
    assert low <= true <= high
    assert low <= measured <= (true if kills else high)
    assert len(stated["incarnations"]) == kills + 1
    for device in measurable:
        spans = [t.span_ns for inc in history.incarnations for u, t in inc.tallies.items() if u == device["uuid"]]
        gaps = sum(g.end_ns - g.begin_ns for g in history.gaps if g.device == device["uuid"])
        observed = sum(end - begin for begin, end in intervals(history, device["uuid"]))
        assert observed + gaps == sum(spans)
        down = [g for g in history.gaps if g.device == device["uuid"] and g.reason is GapReason.DAEMON_DOWN]
        assert len(down) == kills
        # At most an interval of a second is lost, and the time of a start.
        assert all(g.end_ns - g.begin_ns < 4 * 10**9 for g in down)
    true = sum(truth(scenario, i, scenario.epoch_ns, end_ns, 108, A100_RATES) for i in range(8, 16))
    ceiling = sum(int(device["executed"]["high"]) for device in bounded)
    print(f"8 x A100: at most {ceiling} FLOP, truth {true}, {ceiling / true:.2f} times too high")
    assert ceiling >= true
    for device in bounded:
        assert device["evidence"] == "utilization"
        assert (device["executed"]["low"], device["executed"]["measured"]) == ("0", None)
