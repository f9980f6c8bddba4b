"""Detect forward passes that skip layers or run one more than once, which the configuration does not show: an early
exit, layers dropped at random, a custom loop over some layers.

Hooks on all layers and their parts cost more than all other counting, so only passes 1, 2, 4, 8, … have them, counted
separately for passes with and without gradients.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from flopsd.integrations.modules.hooks import AttachedHooks
from flopsd.integrations.passes.recomputation_watch import is_compiled


class LayerWatch:
    """Watches the layers of one model in the calling thread; passes of replicas in other threads are not seen."""

    def __init__(self) -> None:
        self._passes = {False: 0, True: 0}
        self._thread = 0
        # Call counts: for each list of layers, the holder's and then each layer's; for each kind of part, each part's.
        self._layers: list[list[int]] = []
        self._parts: list[list[int]] = []
        # The first trained layer of each list, and its trained parameters when it ran: FSDP 2 replaces them then.
        self._trained: list[tuple[Any, list[Any]]] = []
        self.hooks = AttachedHooks()

    def next_is_watched(self, *, records: bool) -> bool:
        """Count a pass that records gradients or does not, and return whether to watch it."""
        self._trained = []
        passes = self._passes[records] = self._passes[records] + 1
        return passes & (passes - 1) == 0

    def begin(self, lists: Iterable[tuple[Any, list[Any]]]) -> None:
        """Watch a pass until `end`. `lists`: modules, each with the layers that it holds and should run."""
        self.hooks.remove()
        self._layers, self._parts, self._thread = [], [], threading.get_ident()
        for holder, layers in lists:
            if any(is_compiled(inner) or isinstance(inner, torch.jit.ScriptModule) for inner in holder.modules()):
                continue
            self._layers.append(self._counts([holder, *layers]))
            for layer in itertools.islice(filter(_trained, layers), 1):
                ran: list[Any] = []
                self._trained.append((layer, ran))
                self.hooks.before(layer, functools.partial(self._keep_trained, ran))
            alike = defaultdict(list)  # corresponding parts of layers of the same class
            for layer in layers:
                for name, part in _parts(layer):
                    alike[type(layer), name, type(part)].append(part)
            self._parts += [self._counts(parts) for parts in alike.values() if len(parts) > 1]

    def end(self, *, failed: bool = False) -> bool:
        """Stop watching. Return whether a layer ran a different number of times than its holder, or corresponding parts
        ran differently often; False for a pass that `failed`, which does not show it."""
        if not self.hooks or self._thread != threading.get_ident():
            return False
        self.hooks.remove()
        return not failed and (any(map(_differs, self._layers)) or any(len(set(calls)) > 1 for calls in self._parts))

    def take_trained(self, *, ran_before: bool) -> list[list[Any]]:
        """If this pass was watched, once: the trained parameters of the first layer with any in each list that
        ran, or with `ran_before` in each list. A whole backward pass reaches them."""
        trained, self._trained = self._trained, []
        return [ran or _trained(layer) for layer, ran in trained if ran or ran_before]

    def restart(self) -> None:
        """Start over, since the model has changed."""
        self._passes = {False: 0, True: 0}

    def _counts(self, modules: list[Any]) -> list[int]:
        """The call counts of the modules from now on, updated by hooks."""
        calls = [0] * len(modules)
        for at, module in enumerate(modules):
            self.hooks.before(module, functools.partial(self._pass, calls, at))
        return calls

    def _keep_trained(self, ran: list[Any], layer: Any, *_: object) -> None:
        if threading.get_ident() == self._thread:
            ran[:] = _trained(layer)

    def _pass(self, calls: list[int], at: int, *_: object) -> None:
        if threading.get_ident() == self._thread:
            calls[at] += 1


def _parts(layer: Any) -> Iterator[tuple[str, Any]]:
    """The named parts of a layer. Modules inside parts, such as experts, are not included: a pass may skip some."""
    for name, part in layer.named_children():
        if isinstance(part, torch.nn.ModuleList):
            yield from ((f"{name}.{inner}", one) for inner, one in part.named_children())
        else:
            yield name, part


def _trained(layer: Any) -> list[Any]:
    return [parameter for parameter in layer.parameters() if parameter.requires_grad]


def _differs(calls: list[int]) -> bool:
    holder, *layers = calls
    # A custom loop may call the layers and not their holder.
    expected = max(holder, 1 if any(layers) else 0)
    return any(one != expected for one in layers)
