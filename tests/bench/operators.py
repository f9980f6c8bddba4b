"""The cost of counting operators in a training step: with repeated shapes, and with new ones.

Measured in pairs, alternately without and with, so that a drift affects both. `python -m tests.bench.operators`
"""

import statistics
import time
import warnings
from typing import Any

from tests.bench.measuring import Say

RUNS, STEPS, BUDGET = 3, 24, "1 % of a step of 50 ms"


def operators(say: Say) -> None:
    import torch

    from flopsd.integrations.operator_counter import OperatorCounter
    from tests.bench.client import _Switch
    from tests.train.operator_cases import DEVICE, Counters
    from tests.train.trainers import llama

    size: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "vocab_size": 512}
    model = llama(max_position_embeddings=512, **size).train()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    counter = OperatorCounter(Counters(), device=DEVICE)
    _step(model, optimizer, 64)
    counter.attach(model, optimizer)
    _step(model, optimizer, 64)
    switch = _Switch(None, None, model)
    hooks = [dict(one) for one in (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)]

    def turn(*, on: bool) -> None:
        switch.turn(on=on)
        for place, all_ in zip(
            (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks), hooks, strict=True
        ):
            place.clear()
            place.update(all_ if on else {})

    turn(on=True)
    for _ in range(9):  # past the first passes, which are inspected again
        _step(model, optimizer, 64)
    ratios, steps = [], []
    for _ in range(RUNS):
        with_it: list[int] = []
        without: list[int] = []
        for at in range(2 * STEPS):
            turn(on=(on := at % 4 in (1, 2)))
            (with_it if on else without).append(_step(model, optimizer, 64))
        ratios.append(statistics.median(with_it) / statistics.median(without))
        steps.append(statistics.median(without))
    step = f"{statistics.median(steps) / 1e6:.0f} ms"
    found = f"{statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})"
    say(f"operators, steps of {step} with to without, shapes repeat", found, "1.01")
    turn(on=True)
    tensors = sum(1 for _ in model.parameters())
    new = {on: [_new_shape(model, optimizer, turn, 2 * at, on=on) for at in range(40, 64)] for on in (False, True)}
    more_ms = (statistics.median(new[True]) - statistics.median(new[False])) / 1e6
    ratio = statistics.median(new[True]) / statistics.median(new[False])
    say("operators, a step of a new shape, twice for each: ratio, more", f"{ratio:.2f}, {more_ms:.0f} ms", "none")
    own = statistics.median(_own(model, turn) for _ in range(RUNS))
    say(f"operators, a pass of {tensors} parameters, its own time", f"{own:.1f} us, {own / 500:.3f} %", BUDGET)


def _step(model: Any, optimizer: Any, length: int) -> int:
    """CPU time of this thread in nanoseconds."""
    import torch

    ids = torch.ones(4, length, dtype=torch.long)
    began = time.thread_time_ns()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    optimizer.step()
    spent = time.thread_time_ns() - began
    optimizer.zero_grad()
    return spent


def _new_shape(model: Any, optimizer: Any, turn: Any, length: int, *, on: bool) -> int:
    turn(on=on)
    return _step(model, optimizer, length + on)


def _own(model: Any, turn: Any) -> float:
    """Microseconds that hooks take in a forward and backward pass in which the model computes nothing."""
    import torch

    weight = torch.ones(1, requires_grad=True)
    backbone = model.model
    forwards = backbone.forward, model.forward
    backbone.forward = lambda **_: weight * 1
    model.forward = lambda **named: (backbone(input_ids=named["input_ids"]) * 1,)
    ids = torch.ones(4, 64, dtype=torch.long)
    times: dict[bool, list[int]] = {True: [], False: []}
    for at in range(2000):
        turn(on=(on := at % 4 in (1, 2)))
        began = time.thread_time_ns()
        model(input_ids=ids, labels=ids, use_cache=True)[0].backward()
        times[on].append(time.thread_time_ns() - began)
    backbone.forward, model.forward = forwards
    return (statistics.median(times[True]) - statistics.median(times[False])) / 1e3


def main() -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    operators(lambda what, figure, budget: print(f"{what:<74} {figure:>30}   budget {budget}", flush=True))


if __name__ == "__main__":
    main()
