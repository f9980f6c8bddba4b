"""Detect backward passes for some gradients only, such as `backward(inputs=…)` with some layers: they skip nodes of the
graph, and with them products that a whole backward pass has. Likewise if the graph was cut before some layers
(`detach`, or layers that ran without gradients)."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.integrations.modules.state import is_plain
from flopsd.integrations.operators.backward import (
    MAX_NODES,
    graph_task,
    is_for_all_gradients,
    leaves_behind,
    running_node,
)

Leaf = Callable[[], Any]  # weak
# The number of the first autograd node that a forward pass made, and how many it made; 0: not known.
Made = tuple[int, int]


@dataclass(slots=True)
class _Alike:
    """Passes whose forward passes made the same number of autograd nodes. `was_cut`: the graph of one was.
    `was_assumed`: one was taken to be whole without a look at its graph."""

    was_cut: bool = False
    was_assumed: bool = False


class PartialBackward:
    """Checks one model's backward passes. One that `backward` without `inputs` began runs all nodes of its graph.
    Whether that graph was cut takes milliseconds to see if it is large: it is looked at if the parameters that it
    should lead to are given, or if it is the first of its number of nodes; then it should lead to those given last. The
    others are taken to be like these."""

    def __init__(self, checked: Callable[[], None], doubted: Callable[[], None]) -> None:
        """`checked` is called after the nodes of a pass were checked: the furthest parameter may be another. `doubted`
        is called if a graph was cut, and so may be those of passes that were taken to be whole."""
        self._checked, self._doubted = checked, doubted
        self._alike: dict[int, _Alike] = {}
        self._furthest: Leaf | None = None  # None: not known
        self._expected: list[tuple[Leaf, ...]] = []
        self._last: list[tuple[Leaf, ...]] = []  # the groups that were given last
        self._arrivals: list[_Arrivals] = []  # of backward passes that go on, or ended with an error

    def expect(self, trained: Sequence[list[Any]]) -> None:
        """Check `trained`, as in `begin`, with the next backward pass if that of its own forward pass never comes."""
        if self._arrivals and graph_task is not None and graph_task() == -1:
            for one in self._arrivals:
                one.end()
            self._arrivals.clear()
        if trained:
            self._expected = [_weak(group) for group in trained]

    @property
    def furthest(self) -> Any:
        """The parameter furthest from the start of the last graph that was checked whole; None if not known."""
        return self._furthest and self._furthest()

    def begin(self, made: Made, trained: Sequence[list[Any]] = ()) -> Callable[[], bool] | None:
        """To be called once per backward pass, in a hook on its first node. Return None if the pass is partial, or
        else a function that returns at its end whether it was. `made`: the autograd nodes of its forward pass.
        `trained`: groups of parameters, of each of which a whole pass reaches some."""
        if self._expected:
            trained, self._expected = trained or _held(self._expected), []
        begin, nodes = made
        alike = self._alike.get(nodes)
        is_first, is_given = alike is None, bool(trained)
        if alike is None:
            alike = self._alike[nodes] = _Alike()
        if not is_given and not is_first and self._furthest is not None and is_for_all_gradients():
            alike.was_assumed = True
            return None if alike.was_cut else _no
        if (behind := leaves_behind(running_node(), begin, MAX_NODES)) is None:
            return None
        found, has_functions = behind
        self._furthest = next(iter(_weak(found[-1:])), None)
        self._checked()
        if is_given:
            self._last = list(map(_weak, trained))
        elif alike.was_cut:
            return None
        elif is_first:
            trained = _held(self._last)
        reached = {id(leaf) for leaf in found}
        hidden = [group for group in trained if not any(id(one) in reached for one in group)]
        is_cut, missing = bool(hidden) and not has_functions, set(map(id, hidden))
        # A parameter that PyTorch swaps loses the hooks that are put on it later.
        watched = [group for group in trained if id(group) in missing or all(map(is_plain, group))]
        self._arrivals.append(arrivals := _Arrivals(watched))
        return functools.partial(self._end, alike, arrivals, is_cut=is_cut, is_given=is_given)

    def forget(self) -> None:
        """The next pass is checked whole."""
        self._furthest = None

    def _end(self, alike: _Alike, arrivals: _Arrivals, *, is_cut: bool, is_given: bool) -> bool:
        """`is_cut`: the graph shows it. `is_given`: the parameters are certainly of this pass."""
        if arrivals in self._arrivals:
            self._arrivals.remove(arrivals)
        if not (arrivals.end() or is_cut):
            alike.was_assumed |= not is_given
            return False
        if is_given:
            if alike.was_assumed and not alike.was_cut:
                self._doubted()
            alike.was_cut = True
        return True


def _no() -> bool:
    return False


class _Arrivals:
    """Watches whether gradients arrive at some parameter of each group, perhaps from another pass with the same loss.
    The graph alone does not show it: functions in Python, such as reentrant checkpointing, have graphs of their own, or
    return no gradient."""

    def __init__(self, groups: Sequence[list[Any]]) -> None:
        self._missing = set(range(len(groups)))
        self._handles = [
            one.register_hook(GradientHook(self._arrive, at))
            for at, group in enumerate(groups)
            for one in group
            if one.requires_grad
        ]

    def _arrive(self, at: int, gradient: Any) -> None:
        if gradient is not None:
            self._missing.discard(at)

    def end(self) -> bool:
        """Stop watching. Return whether any group got none."""
        for one in self._handles:
            one.remove()
        return bool(self._missing)


class GradientHook(functools.partial[None]):
    """A hook on a parameter that is not copied or saved with the parameter."""

    __torch_unserializable__ = True  # or PyTorch would warn at each save


def _held(groups: Iterable[tuple[Leaf, ...]]) -> list[list[Any]]:
    """The parameters of each group that are trained still."""
    held = ([one for leaf in group if (one := leaf()) is not None and one.requires_grad] for group in groups)
    return [group for group in held if group]


def _weak(leaves: Iterable[Any]) -> tuple[Leaf, ...]:
    """Weak references to parameters. Distributed tensors are left out: PyTorch replaces them in a conversion."""
    return tuple(weakref.ref(one) for one in leaves if is_plain(one))
