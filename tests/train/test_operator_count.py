"""A fine-tune on the stand-in's A100, which has only utilization: PyTorch's operators, in step with the GPU's work."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from flopsd.core.model import Pipe
from flopsd.system.clock import NS_PER_S
from tests.support.process import environment, flopsd, predicate
from tests.support.scenario import Scenario, Segment, a100

pytestmark = pytest.mark.training()
GPU = a100((Segment(1000, mhz=1200, hmma=0.75),))
TENSOR_FLOP = 2048  # BF16, per SM and cycle

# On PyTorch's device "meta", which dispatches every operator and computes none: a CPU cannot keep up with an A100. A
# step begins when the simulated GPU gets to it. The daemon waits until PyTorch is loaded. Prints FlopCounterMode's
# count of a step, and the number of steps.
PROCESS = """
import os, sys, time
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
import flopsd.client
from flopsd.integrations.operator_counter import OperatorCounter

rate, device, journal, socket, end = int(sys.argv[1]), *sys.argv[2:]
torch.set_num_threads(1)
class Model(nn.Sequential):
    def forward(self, real, simulated):  # a pass is of shapes only, and not counted, if all its tensors are
        return super().forward(simulated)

with torch.device("meta"):
    model = Model(*(nn.Linear(8192, 8192, bias=False, dtype=torch.bfloat16) for _ in range(4)))
optimizer = torch.optim.AdamW(model.parameters())

def step():
    model(torch.empty(0), torch.empty(8192, 8192, dtype=torch.bfloat16, device="meta")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()

with FlopCounterMode(display=False) as counter:
    step()
flop = counter.get_total_flops()
print("loaded", flush=True)
client = flopsd.client.connect(open(socket).read().strip())
client.declare(method="full")
client.set_phase("train")
OperatorCounter(client, device=device).attach(model, optimizer)
while not os.path.exists(journal) or b'"declaration"' not in open(journal, "rb").read():
    time.sleep(0.02)
began, steps = time.monotonic(), 0
while time.monotonic() < began + 4:
    time.sleep(max(0, began + (steps + 1) * flop / rate - time.monotonic()))
    step()
    steps += 1
client.close()
open(end, "w").close()
print(flop, steps)
"""


def test_a_fine_tune_on_an_a100_has_a_figure_and_a_verdict(tmp_path: Path, standin: Path) -> None:
    scenario = Scenario((GPU,))
    rate = int(GPU.sm_cycles(Pipe.TENSOR_HMMA, 0, NS_PER_S, 108)) * TENSOR_FLOP
    state, ledger, socket, end = (tmp_path / name for name in ("state", "ledger.json", "socket", "end"))
    for pipe in (socket, end):
        os.mkfifo(pipe)
    process = (PROCESS, str(rate), scenario.uuid(0), str(state / "journal.jsonl"), str(socket), str(end))
    with subprocess.Popen([sys.executable, "-c", *process], stdout=subprocess.PIPE, text=True) as trains:
        assert trains.stdout is not None
        assert trains.stdout.readline() == "loaded\n"
        flopsd(
            "exec", "--state-dir", str(state), "--ledger", str(ledger), "--listen", "off", "--phase", "train",
            "--method", "full", "--precision", "bf16", "--base-flop", str(10**23 - 10**14), "--base-systemic", "false",
            "--", "sh", "-c", 'echo "$FLOPSD_SOCKET" >"$0"; cat "$1"', str(socket), str(end),
            env=environment(standin, scenario.write(tmp_path / "scenario.txt")), code=0,
        )  # fmt: skip
        flop, steps = map(int, trains.stdout.readline().split())
    found = predicate(ledger)
    truth = int(rate * Fraction(found["deviceSeconds"]))
    low, measured, high = (int(found["totals"]["executed"][name]) for name in ("low", "measured", "high"))
    assert low == measured == flop * steps
    assert 0 < low <= truth <= high
    (session,) = found["declared"]["sessions"]
    assert session["facts"]["device"] == scenario.uuid(0)
    (rule,) = (one for one in found["findings"] if one["rule"] == "base-not-gpai")
    assert (rule["state"], rule["restsOn"]) == ("above", "operator_count")
