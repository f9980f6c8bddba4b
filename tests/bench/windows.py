"""The cost of kernel windows in a training step on the CPU: a step without a window, and a window. `python -m
tests.bench.windows`.

The windows use PyTorch's own profiler of the CPU; the cost of CUPTI on a GPU is not included.
"""

import os
import statistics
import time
import warnings
from typing import Any

from tests.bench.measuring import Say

PAIRS, CALLS, WINDOWS = 120, 100_000, 12


def windows(say: Say) -> None:
    import torch

    from flopsd.integrations.kernel_windows import KernelWindows
    from tests.bench.operators import _step
    from tests.train.kernel_records import H100, profiler_with, records_of
    from tests.train.operator_cases import DEVICE, Counters
    from tests.train.trainers import llama

    class Client(Counters):
        def now_ns(self) -> int:
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    os.environ.setdefault("FLOPSD_DEVICE_UUID", DEVICE)
    torch.set_num_threads(1)
    never = KernelWindows(Client(), first_seconds=10**6, profile=lambda: None)
    began = time.perf_counter_ns()
    for _ in range(CALLS):
        never.begin_step()
        never.end_step()
    own_ns = (time.perf_counter_ns() - began) / CALLS
    say("kernel windows, a step with none", f"{own_ns:.0f} ns, {own_ns / 500_000:.5f} %", "0.01 % of 50 ms")

    size: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "vocab_size": 512}
    model = llama(max_position_embeddings=512, **size).train()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    for _ in range(3):
        _step(model, optimizer, 64)
    with_it: list[int] = []
    without: list[int] = []
    for at in range(2 * PAIRS):
        if at % 4 in (1, 2):
            never.begin_step()
            with_it.append(_step(model, optimizer, 64))
            never.end_step()
        else:
            without.append(_step(model, optimizer, 64))
    ratio = statistics.median(with_it) / statistics.median(without)
    step = f"{statistics.median(without) / 1e6:.0f} ms"
    say(f"kernel windows, steps of {step} with to without, none open", f"{ratio:.4f}", "1.001")

    events = records_of(H100)
    found = Client(current_phase="train")
    open_ = KernelWindows(found, first_seconds=0, every_seconds=0, profile=lambda: profiler_with(events))
    costs, slower = [], []
    for _ in range(WINDOWS):
        open_._next_ns = 0  # skip the limit on the share of time
        before = found.work["train"]["kernel_window_cost_ns"]
        open_.begin_step()
        slower.append(_step(model, optimizer, 64))
        open_.end_step()
        costs.append((found.work["train"]["kernel_window_cost_ns"] - before) / 1e6)
        wait_s = (open_._next_ns - found.now_ns()) / 1e9
    assert open_.ended is None
    cost = statistics.median(costs[1:])
    say(f"kernel windows, opening and reading one of {len(events)} records", f"{cost:.1f} ms", "0.5 % of the time")
    say("kernel windows, the first", f"{costs[0]:.0f} ms", "0.5 % of the time")
    say(
        "kernel windows, a step inside of one to one without",
        f"{statistics.median(slower[1:]) / statistics.median(without):.2f}",
        "none",
    )
    say("kernel windows, the next one at the earliest after", f"{wait_s:.1f} s", "200 times what one took")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    windows(lambda what, figure, budget: print(f"{what:<74} {figure:>30}   budget {budget}", flush=True))
