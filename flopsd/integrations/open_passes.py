"""Forward passes that record gradients, until it shows whether they have a backward pass: a hook on the nodes of
autograd that made their logits and loss is called when one begins, and freed with them when none can begin any more.
With one a pass is training, also of a frozen model that a gradient passes on its way to something else."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from flopsd.integrations.model_sessions import Counted, Deferred

# The task of autograd that this thread works on: -1 outside of a backward pass.
graph_task: Callable[[], int] | None = getattr(torch._C, "_current_graph_task_id", None)
OpenPass = tuple[Counted, Any, Deferred]  # and a tensor, of how many of its tokens are no padding


class OpenPasses:
    """Those of one model. `again` is called where one has a second backward pass, `failed` after an error."""

    def __init__(self, again: Callable[[], None], failed: Callable[[], None]) -> None:
        self._again, self._failed = again, failed
        # A pass and the task of its first backward pass, if that has begun, and the hook, which the graph alone holds.
        self.open: dict[int, tuple[list[Any], weakref.ref[Any]]] = {}

    def follow(self, one: OpenPass, output: Any) -> bool:
        """Wait for a backward pass from `output`, which the forward pass returned; False: it is no training, and can
        have none."""
        nodes = [tensor.grad_fn for tensor in _results(output) if tensor.grad_fn is not None]
        if not nodes and one[0].phase != "train":
            return False
        state: list[Any] = [one, None]
        hook = functools.partial(self._begin, state)
        self.open[id(state)] = state, weakref.ref(hook)
        for node in nodes:
            node.register_prehook(hook)
        return True

    def take_without_backward(self, *, all_of_them: bool) -> Iterator[tuple[OpenPass, bool]]:
        """Those that can have no backward pass any more; `all_of_them`: those too that still can, and whether each
        can."""
        for key, (state, hook) in list(self.open.items()):
            can_have_one = hook() is not None
            if all_of_them or not can_have_one:
                del self.open[key]
                one, state[0] = state[0], None
                yield one, can_have_one

    def _begin(self, state: list[Any], *_: object) -> None:
        """A node of a pass has its turn in a backward pass."""
        try:
            one, task = state
            if one is not None:
                del self.open[id(state)]
                state[0], state[1] = None, graph_task and graph_task()
                counted, unpadded, deferred = one
                if counted.phase == "train":
                    counted.add(unpadded, deferred)
                else:
                    counted.add_to(counted.tally, "train", unpadded, deferred)
            elif task is not None and graph_task is not None and task != graph_task():
                state[1] = graph_task()
                self._again()
        except Exception:  # noqa: BLE001 (logged there)
            self._failed()


def _results(output: Any) -> Iterable[Any]:
    """Tensors that a backward pass may begin at, or pass: logits and loss alone where all others are made of them. The
    loss is not made of the logits that are returned where mixed precision converts these after it."""
    if isinstance(output, torch.Tensor):
        return (output,)
    logits = getattr(output, "logits", None)
    if isinstance(logits, torch.Tensor) and getattr(output, "hidden_states", None) is None:
        loss = getattr(output, "loss", None)
        return (loss, logits) if isinstance(loss, torch.Tensor) else (logits,)
    values = output.values() if isinstance(output, Mapping) else output
    found = values if isinstance(values, Iterable) else ()
    inner = [one for value in found for one in (value if isinstance(value, list | tuple) else (value,))]
    return [one for one in inner if isinstance(one, torch.Tensor)]
