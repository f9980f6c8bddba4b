"""Detect backward passes for some gradients only, such as `backward(inputs=…)` with some layers: they skip nodes of the
graph, and with them products that a whole backward pass has. Likewise if the graph was cut before some layers
(`detach`, or layers that ran without gradients)."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flopsd.integrations.modules.state import is_plain
from flopsd.integrations.operators.backward import MAX_NODES, graph_task, leaves_behind, reaches, running_node

_NEAR, _LAST = 256, 8
Leaf = Callable[[], Any]  # weak


class PartialBackward:
    """Checks one model's backward passes. Checking all nodes of a large graph takes milliseconds: this is done in
    passes 1, 2, 4, 8, …, and in all passes once one skipped nodes that the short check had missed. The short check is
    whether the pass reaches the parameter nearest to its start, and one of those furthest from it. Hooks on two of
    them show it; autograd is asked, which takes longer, only at the end of a pass that did not call both."""

    def __init__(self, checked: Callable[[], None]) -> None:
        """`checked` is called after the nodes of a pass were checked: the furthest parameter may be another."""
        self._checked = checked
        self._passes = 0
        self._looks_at_all = self._is_cut = False
        self._near, self._furthest = _Watched(), _Watched()
        # None: not known. The graph of a pass, such as one without images, may contain only some of them.
        self._far: tuple[Leaf, ...] | None = None
        self._expected: list[tuple[Leaf, ...]] = []
        self._arrivals: _Arrivals | None = None  # of a backward pass that goes on, or ended with an error

    def expect(self, trained: Sequence[list[Any]]) -> None:
        """Check `trained`, as in `begin`, with the next backward pass if that of its own forward pass never comes."""
        if self._arrivals is not None and graph_task is not None and graph_task() == -1:
            self._arrivals.end()
            self._arrivals = None
        if trained:
            self._expected = [_weak(group) for group in trained]

    @property
    def furthest(self) -> Any:
        """The parameter furthest from the start of the last graph that was checked whole; None if not known."""
        return self._far[0]() if self._far else None

    def begin(self, trained: Sequence[list[Any]] = ()) -> Callable[[], bool] | None:
        """To be called once per backward pass, in a hook on its first node. Return None if the pass is partial, or
        else a function that returns at its end whether it was. `trained`: groups of parameters, of each of which a
        whole pass reaches some; without any, the pass is taken to be cut as the last one with groups was."""
        self._passes += 1
        if self._expected:
            trained, self._expected = trained or [found for one in self._expected if (found := _held(one))], []
        if self._is_cut and not trained:
            return None
        node = running_node()
        is_due = bool(trained) or self._looks_at_all or not self._passes & (self._passes - 1)
        if not is_due and self._near.is_watched and self._furthest.is_watched:
            return functools.partial(self._end_short, node)
        return self._check(node, trained, is_due=is_due)

    def forget(self) -> None:
        """Remove the hooks on parameters. The next pass is checked whole."""
        self._near.forget()
        self._furthest.forget()
        self._far = None

    def _check(self, node: Any, trained: Sequence[list[Any]], *, is_due: bool) -> Callable[[], bool] | None:
        """As `begin`, for a pass whose first node is `node`: all of its nodes, if that `is_due`."""
        if not _is_reached(self._near.leaf):
            leaf = next(leaves_behind(node, _NEAR), self)
            if leaf is None:
                return None
            if leaf is not self and (near := _weak([leaf])):
                self._near.watch(near[0])
        seems_whole = self._far is not None and (not self._far or any(map(_is_reached, self._far)))
        if seems_whole and not is_due:
            return lambda: False
        found = list(leaves_behind(node, MAX_NODES))
        if None in found:
            self._looks_at_all = self._looks_at_all or seems_whole
            return None
        self._far = _weak(reversed(found[-_LAST:]))
        if self._far:
            self._furthest.watch(self._far[0])
        self._checked()
        reached = {id(leaf) for leaf in found}
        # Functions written in Python, such as reentrant checkpointing, have graphs of their own.
        hidden = [group for group in trained if not any(id(one) in reached for one in group)]
        self._arrivals = arrivals = _Arrivals(hidden)
        return functools.partial(self._end, arrivals)

    def _end_short(self, node: Any) -> bool:
        """The short check at the end of the pass that began at `node`: autograd still answers what it ran."""
        assert graph_task is not None
        if self._near.task == self._furthest.task == graph_task():
            return False
        was_partial = self._check(node, (), is_due=False)
        return was_partial is None or was_partial()

    def _end(self, arrivals: _Arrivals) -> bool:
        self._is_cut = arrivals.end()
        return self._is_cut


class _Watched:
    """A parameter, and the backward pass that last added to its gradient, by autograd's number."""

    def __init__(self) -> None:
        self.leaf: Leaf = lambda: None
        self.task = -1
        self._handle: Any = None

    @property
    def is_watched(self) -> bool:
        return self._handle is not None and self.leaf() is not None

    def watch(self, leaf: Leaf) -> None:
        self.forget()
        self.leaf, parameter = leaf, leaf()
        # A hook on the gradient would also be called for one that is returned instead, as by autograd.grad.
        if parameter is not None and parameter.requires_grad:  # frozen since, perhaps
            self._handle = parameter.register_post_accumulate_grad_hook(GradientHook(self._arrive))

    def forget(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self.leaf, self._handle = lambda: None, None

    def _arrive(self, _: object) -> None:
        assert graph_task is not None
        self.task = graph_task()


class _Arrivals:
    """Watches whether gradients arrive at some parameter of each group."""

    def __init__(self, groups: Sequence[list[Any]]) -> None:
        self._missing = set(range(len(groups)))
        self._handles = [
            one.register_hook(GradientHook(self._arrive, at))
            for at, group in enumerate(groups)
            for one in group
            if one.requires_grad
        ]

    def _arrive(self, at: int, *_: object) -> None:
        self._missing.discard(at)

    def end(self) -> bool:
        """Stop watching. Return whether any group got none."""
        for one in self._handles:
            one.remove()
        return bool(self._missing)


class GradientHook(functools.partial[None]):
    """A hook on a parameter that is not copied or saved with the parameter."""

    __torch_unserializable__ = True  # or PyTorch would warn at each save


def _is_reached(leaf: Leaf) -> bool:
    parameter = leaf()
    return parameter is not None and parameter.requires_grad and reaches(parameter)


def _held(leaves: Iterable[Leaf]) -> list[Any]:
    return [parameter for leaf in leaves if (parameter := leaf()) is not None]


def _weak(leaves: Iterable[Any]) -> tuple[Leaf, ...]:
    """Weak references to parameters. Distributed tensors are left out: checking one is slower than a full check."""
    return tuple(weakref.ref(one) for one in leaves if is_plain(one))
