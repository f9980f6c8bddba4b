"""Counts the operators of backward passes, by hooks on the nodes of the graph that autograd kept of a forward pass.

A mode that is entered before `backward` would have to be left by someone after it. Each node enters and leaves its own
instead, so that nothing stays behind, also after an error: autograd restores the state of its thread.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Any

import torch

from flopsd.core.dataclass import dataclass
from flopsd.integrations.module_products import tensors_of
from flopsd.integrations.operator_mode import CountingMode, OperatorFlop

MAX_NODES, MAX_OUTPUTS, MAX_NEAR = 200_000, 16, 32
# Nodes whose operators are not dispatched one by one: of torch.compile, and of torch.cuda.make_graphed_callables.
COMPILED, GRAPHED = GRAPHS = "CompiledFunction", "GraphedBackward"
_MARK, _LEAF = "flopsd", "torch::autograd::AccumulateGrad"
# The task of autograd that this thread works on: -1 outside of a backward pass.
graph_task: Callable[[], int] | None = getattr(torch._C, "_current_graph_task_id", None)
# Which backward pass of a forward pass: the first, second, …, the outputs that it came by, each with the nodes that it
# runs if these are not all, and whether it has gradients of its own.
Way = tuple[int, tuple[tuple[int, bytes], ...], bool]
_NO_OUTPUT = -1
_sequence_number: Callable[[], int] | None = getattr(torch._C._autograd, "_get_sequence_nr", None)
_will_run: Callable[[Any], bool] | None = getattr(torch._C, "_will_engine_execute_node", None)


@dataclass(slots=True)
class _Pass:
    """A backward pass that goes on."""

    number: int
    counted: OperatorFlop | None
    has_gradients: bool
    outputs: dict[int, bytes] = field(default_factory=dict)

    @property
    def way(self) -> Way:
        return self.number, tuple(sorted(self.outputs.items())), self.has_gradients


@dataclass(slots=True)
class BackwardPasses:
    """Those of one forward pass. `ended` takes what was counted, None where only its end is to be seen."""

    ended: Callable[[Way, OperatorFlop | None], None]
    is_counted: bool
    tasks: dict[int, _Pass] = field(default_factory=dict)


class BackwardCounter:
    """The hooks of all passes."""

    def __init__(self, guard: Callable[[Callable[..., None]], Callable[..., None]], failed: Callable[[], None]) -> None:
        self._guard, self._failed = guard, failed
        self._tracked: deque[int] = deque(maxlen=64)  # tasks that are counted, or were

    def is_tracked(self, task: int) -> bool:
        return task in self._tracked

    def watch(self, passes: BackwardPasses, output: Any, inputs: Any, begin: int) -> frozenset[str]:
        """Hook what `output` was computed by from `inputs` since `begin`, a `sequence_number`: nodes from before, such
        as of a cache that an earlier pass filled, are that pass's own. Which of `GRAPHS` are among it, where the
        backward pass is counted."""
        graphs: set[str] = set()
        roots = _nodes_of(output)
        for at, node in enumerate(roots):
            node.register_prehook(self._guard(functools.partial(self._enter_task, passes, at)))
        if passes.is_counted:
            # The same two for all nodes: a thousand objects more would have Python's garbage collector look at all.
            modes: dict[int, list[CountingMode]] = {}
            enter = self._guard(functools.partial(self._enter_node, passes, modes))
            leave = functools.partial(_leave_node, modes)
            for node in _graph(roots, _nodes_of(inputs), begin):
                if node.name() == _LEAF or _MARK in node.metadata:
                    continue
                node.metadata[_MARK] = True
                graphs.update(one for one in GRAPHS if one in node.name())
                node.register_prehook(enter)
                node.register_hook(leave)
        return frozenset(graphs)

    def _enter_task(self, passes: BackwardPasses, at: int, _: Any = None) -> None:
        assert graph_task is not None
        if (one := passes.tasks.get(task := graph_task())) is None:
            self._tracked.append(task)
            counted = OperatorFlop() if passes.is_counted else None
            one = passes.tasks[task] = _Pass(len(passes.tasks), counted, torch.is_grad_enabled())
            ended = functools.partial(self._leave_task, passes, one)
            torch.autograd.Variable._execution_engine.queue_callback(self._guard(ended))
        if at != _NO_OUTPUT:
            one.outputs[at] = _chosen()

    def _leave_task(self, passes: BackwardPasses, one: _Pass) -> None:
        passes.ended(one.way, one.counted)

    def _enter_node(self, passes: BackwardPasses, modes: dict[int, list[CountingMode]], _: Any) -> None:
        assert graph_task is not None
        if (task := graph_task()) not in passes.tasks:  # it came by what was not an output
            self._enter_task(passes, _NO_OUTPUT)
        counted = passes.tasks[task].counted
        assert counted is not None
        # With gradients of gradients they are enabled everywhere, and recomputation cannot be distinguished.
        mode = CountingMode(counted, self._failed, backward=not torch.is_grad_enabled())
        mode.__enter__()
        modes.setdefault(threading.get_ident(), []).append(mode)  # nodes of one thread run one within another


def _leave_node(modes: dict[int, list[CountingMode]], *_: Any) -> None:
    if own := modes.get(threading.get_ident()):  # none where counting ended before
        own.pop().__exit__(None, None, None)


def _nodes_of(value: Any) -> Sequence[Any]:
    """The nodes that made these tensors, each once, in their order."""
    found: dict[Any, None] = {}
    for tensor in tensors_of(value):
        if (node := tensor.grad_fn) is not None:
            found[node] = None
            if len(found) >= MAX_OUTPUTS:
                break
    return list(found)


def sequence_number() -> int:
    """That of the next node of autograd in this thread; 0 with a PyTorch that does not show it."""
    return 0 if _sequence_number is None else _sequence_number()


def _graph(roots: Sequence[Any], ends: Sequence[Any] = (), begin: int = 0) -> Iterator[Any]:
    """The nodes that these lead to, near ones first, of those since `begin`."""
    seen, following = set(ends), deque(roots)
    while following and len(seen) < MAX_NODES:
        node = following.popleft()
        if node is None or node in seen or (begin and node._sequence_nr() < begin):
            continue
        seen.add(node)
        yield node
        following += [before for before, _ in node.next_functions]


def _chosen() -> bytes:
    """Which nodes behind the one that begins run, where not all of the near ones do: in a pass for some gradients
    alone, such as that of autograd.grad, which runs no leaf."""
    if _will_run is None:
        return b""
    node = torch._C._current_autograd_node()
    if all(_runs(one) == 1 for one in itertools.islice(_graph([node]), 1, MAX_NEAR)):
        return b""
    return bytes(map(_runs, _graph([node])))


def leaves_behind(most: int) -> Iterator[Any]:
    """Within a hook on a node: the parameters of the leaves behind it, near ones first, of at most so many nodes. None,
    and no more, where one of these does not run in this backward pass, which then is one for some gradients alone."""
    if _will_run is None:
        return
    for one in itertools.islice(_graph([torch._C._current_autograd_node()]), 1, most):
        if not (runs := _runs(one)):
            yield None
            return
        if runs == 1 and one.name() == _LEAF:
            yield one.variable


def reaches(parameter: Any) -> bool:
    """Whether the backward pass that goes on adds to the gradient of `parameter`, which is a leaf."""
    assert _will_run is not None
    return _runs(torch.autograd.graph.get_gradient_edge(parameter).node) == 1


def _runs(node: Any) -> int:
    assert _will_run is not None
    try:
        return int(_will_run(node))
    except RuntimeError:  # of a leaf whose gradient is handed out instead
        return 2
