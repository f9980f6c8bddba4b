"""A training that counts its operators, under the real daemon on the stand-in's A100, and the counts that `kill -9`
loses."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import pytest

from flopsd.core.model import Pipe
from flopsd.system.clock import NS_PER_S
from tests.support.process import Program, daemon_pid, environment, predicate, started, wait_until
from tests.support.scenario import Scenario, Segment, a100

pytestmark = pytest.mark.training()
GPU = a100((Segment(1000, mhz=1200, hmma=0.75),))
RATE = int(GPU.sm_cycles(Pipe.TENSOR_HMMA, 0, NS_PER_S, 108)) * 2048  # FLOP/s of BF16

# On PyTorch's device "meta", a step as often as the simulated GPU can have done one, most of it between forward and
# backward pass. `log` gets a line for each message sent, with its FLOP, and for each finished step.
PROCESS = """
import os, sys, time
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
import flopsd.client
from flopsd.client.connection import DaemonConnection
from flopsd.integrations.operator_counter import OperatorCounter

rate, device = int(sys.argv[1]), sys.argv[2]
log = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
torch.set_num_threads(1)
class Model(nn.Sequential):
    def forward(self, real, simulated):  # a pass is of shapes only, and not counted, if all its tensors are
        return super().forward(simulated)

with torch.device("meta"):
    model = Model(*(nn.Linear(8192, 8192, bias=False, dtype=torch.bfloat16) for _ in range(4)))
optimizer = torch.optim.SGD(model.parameters())

def step(pause):
    loss = model(torch.empty(0), torch.empty(8192, 8192, dtype=torch.bfloat16, device="meta")).sum()
    time.sleep(pause)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

with FlopCounterMode(display=False) as counter:
    step(0)
flop = counter.get_total_flops()
send = DaemonConnection.send

def logged(self, kind, **fields):
    send(self, kind, **fields)
    if kind == "work":
        os.write(log, f"sent {fields['work']['train']['operator_flop']}\\n".encode())

DaemonConnection.send = logged
client = flopsd.client.connect()
client.declare(method="full")
client.set_phase("train")
OperatorCounter(client, device=device).attach(model, optimizer)
while not client._is_served:
    time.sleep(0.02)
os.write(log, f"began {os.getpid()} {flop}\\n".encode())
while True:
    step(flop / rate)
    os.write(log, b"step\\n")
"""


class Training:
    """The log of one process."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def lines(self, word: str) -> list[list[int]]:
        said = self.log.read_text().splitlines() if self.log.exists() else []
        return [[int(one) for one in line.split()[1:]] for line in said if line.startswith(word)]

    def wait_for_messages(self, more: int) -> None:
        before = len(self.lines("sent"))
        wait_until(lambda: len(self.lines("sent")) >= before + more, "messages of the process")

    @property
    def pid(self) -> int:
        return self.lines("began")[0][0]

    @property
    def step_flop(self) -> int:
        return self.lines("began")[0][1]

    @property
    def done_flop(self) -> int:
        """The FLOP of finished steps."""
        return len(self.lines("step")) * self.step_flop

    @property
    def sent_flop(self) -> list[int]:
        return [flop for (flop,) in self.lines("sent")]

    def lost(self, counted: int) -> str:
        return f"{(self.done_flop - counted) / self.step_flop:.2f} of {self.done_flop // self.step_flop} steps"


@contextmanager
def ending(training: Training) -> Iterator[None]:
    """End the process with the test: `exec` gives a job its own process group."""
    try:
        yield
    finally:
        for pid, _ in training.lines("began"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def journalled(journal: Path) -> int:
    """The FLOP in a journal of its one process; a kill may tear its last line."""
    lines = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    works = [one["work"] for line in lines for one in json.loads(line)["r"].get("sessions", ()) if "work" in one]
    return max((work.get("train", {}).get("operator_flop", 0) for work in works), default=0)


def test_a_kill_of_daemon_process_or_both_loses_at_most_the_steps_since_a_message(
    tmp_path: Path, standin: Path
) -> None:
    scenario, state, ledger = Scenario((GPU,)), tmp_path / "state", tmp_path / "ledger.json"
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"), OMP_NUM_THREADS="1", PYTHONPATH=os.getcwd())
    journal = state / "journal.jsonl"

    def command(log: Path) -> tuple[str, ...]:
        job = sys.executable, "-c", PROCESS, str(RATE), scenario.uuid(0), str(log)
        return (
            "exec", "--state-dir", str(state), "--ledger", str(ledger), "--listen", "off", "--phase", "train",
            "--method", "full", "--precision", "bf16", "--checkpoint", "0.5", "--run-id", "killed", "--", *job,
        )  # fmt: skip

    first, second = Training(tmp_path / "first"), Training(tmp_path / "second")
    with started(*command(first.log), env=env) as program, ending(first):
        wait_until(lambda: journal.exists() and journalled(journal), "the daemon has journalled the session")
        os.kill(daemon_pid(state), signal.SIGKILL)  # only the daemon: the process continues
        done, at = first.done_flop, len(first.sent_flop)
        program.wait_for("daemon start 2")
        done += first.step_flop  # a message before the kill contains a part of the current step
        wait_until(lambda: journalled(journal) > done, "the restarted daemon has all that ran before and meanwhile")
        assert journalled(journal) in first.sent_flop[at:], "as it was sent: nothing lost, and nothing twice"
        first.wait_for_messages(1)
        kill_all(program, state, first.pid)
    kept = journalled(journal)
    assert kept in first.sent_flop
    assert kept <= first.done_flop + first.step_flop
    with started(*command(second.log), env=env) as program, ending(second):
        second.wait_for_messages(2)
        os.kill(second.pid, signal.SIGKILL)  # only the process: the daemon seals
        assert program.finish() == 137, program.text
    found = predicate(ledger)
    low, measured, high = (int(found["totals"]["executed"][name]) for name in ("low", "measured", "high"))
    of_second = low - kept
    print(
        f"\nkilled -9: both lost {first.lost(kept)}, the process alone {second.lost(of_second)}, the daemon alone none"
    )
    assert of_second >= second.sent_flop[-1], "every message that was sent"
    assert of_second <= second.done_flop + second.step_flop
    truth = int(RATE * Fraction(found["deviceSeconds"]))
    assert 0 < low == measured <= truth <= high
    assert low <= first.done_flop + second.done_flop + 2 * first.step_flop
    assert len(found["incarnations"]) == 3
    assert found["declared"]["contradictions"] == []


def kill_all(program: Program, state: Path, pid: int) -> None:
    """Kill launcher, daemon and process, as when a machine stops: the launcher is first suspended, or it would seal."""
    program.process.send_signal(signal.SIGSTOP)
    for one in (daemon_pid(state), program.process.pid, pid):
        os.kill(one, signal.SIGKILL)
    program.process.communicate()
