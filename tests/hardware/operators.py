"""flopsd's count of operators on a GPU for each way of launching them, beside the calculated products of the steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

WIDTH, ROWS, STEPS = 1024, 4096, 8
# Two layers: two forward products, and the backward ones except the gradient of the first layer's input.
STEP_FLOP = 5 * 2 * ROWS * WIDTH**2
CAPTURED = 3  # steps before a capture, as PyTorch requires


class Declared:
    """A substitute for a client."""

    current_phase = "train"

    def __init__(self) -> None:
        self.flop, self.words = 0, set[str]()

    def count(self, _: str, **counters: int) -> None:
        self.flop += counters["operator_flop"]

    def counting(self, phase: str, **counters: int) -> Callable[[], None]:
        return partial(self.count, phase, **counters)

    def declare(self, **facts: Any) -> None:
        self.words.update(words for listed in facts.get("operators_not_counted", {}).values() for words in listed)

    def another_session(self) -> Declared:
        return self


def counted(device: str) -> dict[str, dict[str, Any]]:
    """{flop, known, words, fault, queued} by way of launching; `queued`: number of steps not yet finished when the
    last one was launched."""
    return {way: _outcome(run, device) for way, run in WAYS.items()}


def _outcome(run: Callable[[Any, str, Declared], dict[str, Any]], device: str) -> dict[str, Any]:
    import torch

    declared = Declared()
    try:
        found = run(torch, device, declared)
    except Exception as fault:  # noqa: BLE001 (whatever PyTorch raises where it cannot do this)
        found = {"known": None, "fault": f"{type(fault).__name__}: {fault}"[:300]}
    return {"fault": None, "queued": None, **found, "flop": declared.flop, "words": sorted(declared.words)}


def _model(torch: Any, device: str) -> Any:
    layers = (torch.nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.bfloat16) for _ in range(2))
    return torch.nn.Sequential(*layers).to(device)


def _attached(model: Any, declared: Declared) -> Any:
    from flopsd.integrations.operator_counter import OperatorCounter

    OperatorCounter(declared, device="GPU-of-this-probe").attach(model)
    return model


def _steps(torch: Any, model: Any, device: str, steps: int) -> None:
    rows = torch.ones(ROWS, WIDTH, dtype=torch.bfloat16, device=device)
    for _ in range(steps):
        model(rows).sum().backward()


def _eager(torch: Any, device: str, declared: Declared) -> dict[str, Any]:
    _steps(torch, _attached(_model(torch, device), declared), device, STEPS)
    return {"known": STEPS * STEP_FLOP}


def _queued(torch: Any, device: str, declared: Declared) -> dict[str, Any]:
    model, steps = _attached(_model(torch, device), declared), 50 * STEPS
    ends = [torch.cuda.Event() for _ in range(steps)]
    for end in ends:
        _steps(torch, model, device, 1)
        end.record()
    return {"known": steps * STEP_FLOP, "queued": [sum(not end.query() for end in ends), steps]}


def _reduce_overhead(torch: Any, device: str, declared: Declared) -> dict[str, Any]:
    model = _model(torch, device)
    compiled = torch.compile(model, mode="reduce-overhead")
    _attached(compiled, declared)
    _steps(torch, compiled, device, STEPS)
    return {"known": STEPS * STEP_FLOP}


def _graphed_callables(torch: Any, device: str, declared: Declared) -> dict[str, Any]:
    rows = torch.ones(ROWS, WIDTH, dtype=torch.bfloat16, device=device)
    model = torch.cuda.make_graphed_callables(_model(torch, device), (rows,))
    _steps(torch, _attached(model, declared), device, STEPS)
    return {"known": STEPS * STEP_FLOP}


def _own_graph(torch: Any, device: str, declared: Declared) -> dict[str, Any]:
    model = _attached(_model(torch, device), declared)
    rows, beside = torch.ones(ROWS, WIDTH, dtype=torch.bfloat16, device=device), torch.cuda.Stream()
    with torch.cuda.stream(beside):
        _steps(torch, model, device, CAPTURED)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(rows).sum().backward()
    for _ in range(STEPS):
        graph.replay()
    return {"known": (CAPTURED + STEPS) * STEP_FLOP}


WAYS: dict[str, Callable[[Any, str, Declared], dict[str, Any]]] = {
    "eager": _eager,
    "many steps": _queued,
    "torch.compile with CUDA graphs": _reduce_overhead,
    "make_graphed_callables": _graphed_callables,
    "a CUDA graph of the loop": _own_graph,
}
