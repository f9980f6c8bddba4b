"""Count the operators of backward passes, by hooks on the nodes of the graph that autograd kept of a forward pass.

Nothing here runs after `backward` to leave a mode that was entered before it. So each node enters and leaves its own
mode, and none is left behind, even after an error: autograd restores the state of its thread.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Any

import torch

from flopsd.core.dataclass import dataclass
from flopsd.integrations.modules.products import tensors_of
from flopsd.integrations.operators.mode import CountingMode, OperatorFlop

MAX_NODES, MAX_OUTPUTS = 200_000, 16
# Nodes whose operators are not dispatched one by one: those of torch.compile and torch.cuda.make_graphed_callables.
COMPILED, GRAPHED = GRAPHS = "CompiledFunction", "GraphedBackward"
_MARK, _LEAF, _AUTOGRAD = "flopsd", "torch::autograd::AccumulateGrad", "torch.autograd"
# The autograd task that this thread runs: -1 outside a backward pass.
graph_task: Callable[[], int] | None = getattr(torch._C, "_current_graph_task_id", None)
# A kind of backward pass of a forward pass: its number (first, second, …); the outputs where it begins, each with the
# nodes that it runs, unless it runs all; and whether it records gradients itself.
Way = tuple[int, tuple[tuple[int, bytes], ...], bool]
_NO_OUTPUT = -1
_sequence_number: Callable[[], int] | None = getattr(torch._C._autograd, "_get_sequence_nr", None)
_will_run: Callable[[Any], bool] | None = getattr(torch._C, "_will_engine_execute_node", None)


@dataclass(slots=True)
class _Pass:
    """A running backward pass."""

    number: int
    counted: OperatorFlop | None
    has_gradients: bool
    outputs: dict[int, bytes] = field(default_factory=dict)

    @property
    def way(self) -> Way:
        return self.number, tuple(sorted(self.outputs.items())), self.has_gradients


@dataclass(slots=True)
class BackwardPasses:
    """The backward passes of one forward pass. `ended` is called after each, with its counts if it was counted, and
    whether it ended with an error."""

    ended: Callable[[Way, OperatorFlop | None, bool], None]
    is_counted: bool
    tasks: dict[int, _Pass] = field(default_factory=dict)


class _End:
    """Called at the end of a backward pass. After an error autograd frees it without a call."""

    _ended: Callable[[bool], None] | None = None

    def __init__(self, ended: Callable[[bool], None]) -> None:
        self._ended = ended

    def __call__(self, *, failed: bool = False) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(failed)

    def __del__(self) -> None:
        self(failed=True)


class BackwardCounter:
    """Hooks the backward passes of all attached models."""

    def __init__(self, guard: Callable[[Callable[..., None]], Callable[..., None]], failed: Callable[[], None]) -> None:
        self._guard, self._failed = guard, failed
        self._tracked: deque[int] = deque(maxlen=64)  # current and recent tasks

    def is_tracked(self, task: int) -> bool:
        return task in self._tracked

    def watch(self, passes: BackwardPasses, output: Any, inputs: Any, begin: int) -> frozenset[str]:
        """Hook the nodes that computed `output` from `inputs` since `begin`, a `sequence_number`: earlier nodes, such
        as those of a cache that an earlier pass filled, belong to that pass. Return which of `GRAPHS` are among them,
        if the backward pass is counted."""
        graphs: set[str] = set()
        roots = _nodes_of(output)
        for at, node in enumerate(roots):
            node.register_prehook(self._guard(functools.partial(self._enter_task, passes, at)))
        if passes.is_counted:
            # All nodes share two hooks: a thousand more objects would trigger a full garbage collection in Python.
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
            ended = self._guard(functools.partial(self._leave_task, passes, one))
            torch.autograd.Variable._execution_engine.queue_callback(_End(ended))
        if at != _NO_OUTPUT:
            one.outputs[at] = _chosen()

    def _leave_task(self, passes: BackwardPasses, one: _Pass, failed: bool) -> None:
        passes.ended(one.way, one.counted, failed)

    def _enter_node(self, passes: BackwardPasses, modes: dict[int, list[CountingMode]], _: Any) -> None:
        assert graph_task is not None
        if (task := graph_task()) not in passes.tasks:  # it began at a tensor that is not an output
            self._enter_task(passes, _NO_OUTPUT)
        counted = passes.tasks[task].counted
        assert counted is not None
        # In a backward pass with gradients of gradients they are always enabled: recomputation cannot be distinguished.
        mode = CountingMode(counted, self._failed, backward=not torch.is_grad_enabled())
        mode.__enter__()
        modes.setdefault(threading.get_ident(), []).append(mode)  # the nodes of a thread may run inside one another


def _leave_node(modes: dict[int, list[CountingMode]], *_: Any) -> None:
    if own := modes.get(threading.get_ident()):  # none if counting has ended
        own.pop().__exit__(None, None, None)


def _nodes_of(value: Any) -> Sequence[Any]:
    """The nodes that made the tensors in a value, each once, in order, at most MAX_OUTPUTS."""
    found: dict[Any, None] = {}
    for tensor in tensors_of(value):
        if (node := tensor.grad_fn) is not None:
            found[node] = None
            if len(found) >= MAX_OUTPUTS:
                break
    return list(found)


def sequence_number() -> int:
    """The sequence number of this thread's next autograd node; 0 if PyTorch does not show it."""
    return 0 if _sequence_number is None else _sequence_number()


def _graph(roots: Sequence[Any], ends: Sequence[Any] = (), begin: int = 0) -> Iterator[Any]:
    """The nodes that `roots` lead to, nearest first, without `ends`, and only those made since `begin`."""
    seen, following = set(ends), deque(roots)
    while following and len(seen) < MAX_NODES:
        node = following.popleft()
        if node is None or node in seen or (begin and node._sequence_nr() < begin):
            continue
        seen.add(node)
        yield node
        following += [before for before, _ in node.next_functions]


def _chosen() -> bytes:
    """Which nodes behind the first one run, if not all; empty if all do. In a pass for some gradients only, such as
    that of autograd.grad, which runs no leaf, some do not."""
    if _will_run is None or is_for_all_gradients():
        return b""
    found = bytes(map(_runs, _graph([torch._C._current_autograd_node()])))
    return b"" if set(found) <= {1} else found


def computes_all_gradients() -> bool:
    """Whether the running node computes the gradients of all its inputs: not of those that the pass is not for."""
    if _will_run is None or is_for_all_gradients():
        return True
    return all(_runs(one) for one, _ in torch._C._current_autograd_node().next_functions if one is not None)


def is_for_all_gradients() -> bool:
    """Whether `backward` without `inputs` began the running backward pass: then autograd runs each node. False if it is
    not known. The nodes of a GPU run in a thread of autograd's own, while the caller waits."""
    frame, own = sys._getframe(1), threading.get_ident()
    found, last = _is_whole_call(frame)
    if found is not None or not str(last.f_globals.get("__name__")).startswith("flopsd."):
        return bool(found)
    calls = [_is_whole_call(one)[0] for thread, one in sys._current_frames().items() if thread != own]
    return True in calls and False not in calls


def _is_whole_call(frame: Any) -> tuple[bool | None, Any]:
    """Whether the innermost call of autograd from this frame on is one for all gradients, None without such a call; and
    the frame where the search ended."""
    while True:
        if frame.f_globals.get("__name__") == _AUTOGRAD and (name := frame.f_code.co_name) in ("backward", "grad"):
            inputs = frame.f_locals.get("inputs", name)  # () in older versions of PyTorch
            return name == "backward" and (inputs is None or (isinstance(inputs, tuple) and not inputs)), frame
        if frame.f_back is None:
            return None, frame
        frame = frame.f_back


def running_node() -> Any:
    """The node that this thread runs, in a hook on it; None if PyTorch does not show it."""
    return None if _will_run is None else torch._C._current_autograd_node()


def leaves_behind(node: Any, begin: int, most: int) -> tuple[list[Any], bool] | None:
    """In a backward pass: the parameters of the leaves behind `node`, nearest first, among at most `most` nodes made
    since `begin`, and whether there may be more in the graphs of functions written in Python. None if one of the nodes
    does not run: then the backward pass is for some gradients only."""
    leaves, has_functions = list[Any](), False
    for one in itertools.islice(_graph([node], begin=begin), 1, most) if _will_run is not None else ():
        if not (runs := _runs(one)):
            return None
        if runs == 1 and one.name() == _LEAF:
            leaves.append(one.variable)
        has_functions = has_functions or isinstance(one, torch.autograd.function.BackwardCFunction)
    return leaves, has_functions or _will_run is None


def _runs(node: Any) -> int:
    assert _will_run is not None
    try:
        return int(_will_run(node))
    except RuntimeError:  # a leaf whose gradient is returned instead
        return 2
