"""Detect backward passes for some gradients only, such as `backward(inputs=…)` with some layers: they skip nodes of the
graph, and with them products that a whole backward pass has. Likewise if the graph was cut before some layers
(`detach`, or layers that ran without gradients)."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flopsd.integrations.modules.state import is_plain
from flopsd.integrations.operators.backward import MAX_NODES, graph_task, leaves_behind, reaches

_NEAR, _LAST = 256, 8
Leaf = Callable[[], Any]  # weak


class PartialBackward:
    """Checks one model's backward passes. Checking all nodes of a large graph takes milliseconds: this is done in
    passes 1, 2, 4, 8, …, and in all passes once one skipped nodes that the short check had missed. The short check is
    whether the pass reaches the parameter nearest to its start, and one of those furthest from it."""

    def __init__(self) -> None:
        self._passes = 0
        self._looks_at_all = self._is_cut = False
        self._near: Leaf = lambda: None
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
        trained, self._expected = trained or [found for one in self._expected if (found := _held(one))], []
        if self._is_cut and not trained:
            return None
        if not _is_reached(self._near):
            leaf = next(leaves_behind(_NEAR), self)
            if leaf is None:
                return None
            if leaf is not self:
                self._near = next(iter(_weak([leaf])), self._near)
        seems_whole = self._far is not None and (not self._far or any(map(_is_reached, self._far)))
        if seems_whole and not trained and not self._looks_at_all and self._passes & (self._passes - 1):
            return lambda: False
        found = list(leaves_behind(MAX_NODES))
        if None in found:
            self._looks_at_all = self._looks_at_all or seems_whole
            return None
        self._far = _weak(reversed(found[-_LAST:]))
        reached = {id(leaf) for leaf in found}
        # Functions written in Python, such as reentrant checkpointing, have graphs of their own.
        hidden = [group for group in trained if not any(id(one) in reached for one in group)]
        self._arrivals = arrivals = _Arrivals(hidden)
        return functools.partial(self._end, arrivals)

    def _end(self, arrivals: _Arrivals) -> bool:
        self._is_cut = arrivals.end()
        return self._is_cut


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
