"""Keep forward passes that record gradients until it is known whether they have a backward pass: a hook on the autograd
nodes of their logits and loss is called when one begins, and is freed with the nodes when none can begin any more.
A pass with a backward pass is training, even that of a frozen model through which gradients pass to other modules.

A backward pass may also begin elsewhere, for instance at an inner state that a hook of the training took. A hook on the
parameter furthest from the model's outputs detects a backward pass that ran none of these nodes.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from flopsd.integrations.modules.state import is_plain
from flopsd.integrations.operators.backward import graph_task, sequence_number
from flopsd.integrations.passes.model_sessions import Deferred, PassCount
from flopsd.integrations.passes.partial_backward import GradientHook, Made, PartialBackward

TWICE = "backward passes after the first of one forward pass"
DEEPER = "gradients of gradients"
ELSEWHERE = "backward passes that begin elsewhere than at an output of a forward pass"
OpenPass = tuple[PassCount, Any, Deferred]  # second: a tensor with the number of tokens that are not padding, or None


def is_in_backward() -> bool:
    """Whether this thread is running a backward pass."""
    return graph_task is not None and graph_task() != -1


class OpenPasses:
    """The open passes of one model. `leave_out` takes a text on uncounted work of their backward passes. `failed` is
    called after an error, and `within` with a pass whose backward pass began at an inner state, or is for some
    gradients only: then it is not known which layers have gradients. `doubted` is called if that may also be so of
    passes that were counted as whole."""

    def __init__(
        self, leave_out: Callable[[str], None], failed: Callable[[], None], within: Callable[[OpenPass], None],
        doubted: Callable[[], None],
    ) -> None:  # fmt: skip
        self._leave_out, self._failed, self._within = leave_out, failed, within
        # A pass and the task of its first backward pass, if that has begun; and the hook, which only the graph keeps.
        self.open: dict[int, tuple[list[Any], weakref.ref[Any]]] = {}
        self.has_begun = False  # whether a backward pass has
        self.made_nodes = False  # whether one made autograd nodes, which only recomputation does
        self._partial = PartialBackward(self._watch_furthest, doubted)
        self._tasks: deque[int] = deque(maxlen=64)  # backward passes seen so far, by autograd's number, last first
        self._watched: Callable[[], Any] = lambda: None  # a parameter
        self._watch: Any = None  # the handle of the hook on that parameter

    def begin(self, model: Any) -> None:
        """Watch a trained parameter until a pass shows which one is furthest: the training may never call `model`."""
        plain = (one for one in model.parameters() if one.requires_grad and is_plain(one))
        self._watch_one(next(plain, None))

    def follow(self, one: OpenPass, output: Any, made: Made, trained: Sequence[list[Any]] = ()) -> bool:
        """Wait for a backward pass from `output`, which the forward pass returned. `made` and `trained` as in
        `PartialBackward`. Return False if the pass is not in phase `train` and can have none."""
        ends, inner = map(_nodes, _results(output))
        if not ends and not inner and one[0].phase != "train":
            return False
        self._partial.expect(trained)
        state: list[Any] = [one, None]
        hook = functools.partial(self._begin, state, made, trained)
        self.open[id(state)] = state, weakref.ref(hook)
        for node in ends:
            node.register_prehook(hook)
        for node in inner:  # after the ends, if these have a gradient too
            node.register_prehook(functools.partial(_begin_within, hook))
        return True

    def take_without_backward(self, *, all_of_them: bool) -> Iterator[tuple[OpenPass, bool]]:
        """Remove the passes that can no longer have a backward pass, with `all_of_them` all passes; yield each, and
        whether it can still have one."""
        for key, (state, hook) in list(self.open.items()):
            can_have_one = hook() is not None
            if state[1] is not None:  # its backward pass goes on in this thread, or ended with an error
                can_have_one, is_over = True, not is_in_backward()
            else:
                is_over = all_of_them or not can_have_one
            if is_over:
                del self.open[key]
                one, state[0] = state[0], None
                yield one, can_have_one

    def forget(self) -> None:
        """Remove the hooks on parameters; hooks in the graphs of passes stay."""
        self._watch_one(None)
        self._partial.forget()

    def _watch_furthest(self) -> None:
        """Hook the furthest parameter in the graph of a pass. Recomputed layers are not in that graph: they have
        backward passes of their own."""
        if (parameter := self._partial.furthest) is not self._watched() or parameter is None:
            self._watch_one(parameter)

    def _watch_one(self, parameter: Any) -> None:
        if self._watch is not None:
            self._watch.remove()
        self._watched, self._watch = lambda: None, None
        if parameter is not None and parameter.requires_grad and graph_task is not None:
            self._watched = weakref.ref(parameter)
            self._watch = parameter.register_hook(GradientHook(self._reach))

    def _reach(self, *_: object) -> None:
        """A backward pass reached the watched parameter. By then all nodes where it begins have run."""
        try:
            assert graph_task is not None
            if (task := graph_task()) in self._tasks:
                return
            self._tasks.appendleft(task)
            alive = [
                (key, state) for key, (state, hook) in self.open.items() if hook() is not None and state[1] is None
            ]
            for key, state in alive:
                del self.open[key]
                one, state[:] = state[0], (None, task)
                self._within(one)
            if not alive:
                self._leave_out(ELSEWHERE)
        except Exception:  # noqa: BLE001 (logged there)
            self._failed()

    def _begin(
        self, state: list[Any], made: Made, trained: Sequence[list[Any]], *_: object, is_within: bool = False
    ) -> None:
        """A backward pass runs a hooked node of a pass."""
        try:
            one, task = state
            now = graph_task and graph_task()
            self.has_begun = True
            if task is not None and task == now:  # at another of its nodes
                return
            if now is not None and now not in self._tasks:
                self._tasks.appendleft(now)
            if one is not None and task is None:
                state[1] = now
                if torch.is_grad_enabled():
                    self._leave_out(DEEPER)
                was_partial = None if is_within else self._partial.begin(made, trained)
                if was_partial is None:
                    self._take(state, self._within)
                if graph_task is not None:  # when it ends: after an error it is not known how far it came
                    begin = None if torch.is_grad_enabled() else (threading.get_ident(), sequence_number())
                    end = functools.partial(self._end, state, was_partial, begin)
                    torch.autograd.Variable._execution_engine.queue_callback(end)
                elif was_partial is not None:
                    self._take(state, _count_whole)
                self._watch_furthest()
            elif task is not None and now is not None:
                state[1] = now
                self._leave_out(TWICE)
        except Exception:  # noqa: BLE001 (logged there)
            self._failed()

    def _end(self, state: list[Any], was_partial: Callable[[], bool] | None, begin: tuple[int, int] | None) -> None:
        """The backward pass of a pass has ended without an error. `begin`: its thread and the number of its first
        autograd node."""
        if begin is not None and begin[0] == threading.get_ident() and begin[1] != sequence_number():
            self.made_nodes = True
        if was_partial is None:
            return
        try:
            count = self._within if was_partial() else _count_whole
        except Exception:  # noqa: BLE001 (logged there)
            self._failed()
        else:
            self._take(state, count)

    def _take(self, state: list[Any], count: Callable[[OpenPass], None]) -> None:
        """Count a pass of which a backward pass was seen."""
        try:
            one, state[0] = state[0], None
            if one is not None:
                del self.open[id(state)]
                count(one)
        except Exception:  # noqa: BLE001 (logged there)
            self._failed()


def _count_whole(one: OpenPass) -> None:
    counted, unpadded, deferred = one
    if counted.phase == "train":
        counted.add(unpadded, deferred)
    else:
        counted.add_to(counted.tally, "train", unpadded, deferred)


def _begin_within(begin: Callable[..., None], *_: object) -> None:
    begin(is_within=True)


def _results(output: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """The tensors at which a backward pass through the whole model begins, and the inner states, which come in lists.
    The loss is included: mixed precision converts the logits after it, so it is not computed from the returned ones."""
    if isinstance(output, torch.Tensor):
        return (output,), ()
    if isinstance(output, (dict, Mapping)):  # the outputs of transformers are of the first kind, which is tested faster
        found = list(output.values())
    else:
        found = list(output) if isinstance(output, Iterable) else []
    inner = _tensors([one for value in found if isinstance(value, (list, tuple)) for one in value])
    for name in ("logits", "last_hidden_state"):
        if isinstance(last := getattr(output, name, None), torch.Tensor):
            loss = getattr(output, "loss", None)
            return (loss, last) if isinstance(loss, torch.Tensor) else (last,), inner
    ends = _tensors(found)
    return (ends, inner) if ends else (inner, ())


def _tensors(values: Iterable[Any]) -> list[Any]:
    return [one for one in values if isinstance(one, torch.Tensor)]


def _nodes(tensors: Iterable[Any]) -> list[Any]:
    """The autograd nodes that made these tensors."""
    return [node for one in tensors if (node := one.grad_fn) is not None]
