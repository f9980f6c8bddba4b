"""Notices that a forward pass leaves layers out or runs one more than once, although the configuration does not say so:
an early exit, layers dropped at random, a custom loop over some of them.

Hooks on all layers and their parts cost more than all other counting, so passes 1, 2, 4, 8, … of each kind have them,
with gradients and without.
"""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from flopsd.integrations.module_hooks import AttachedHooks
from flopsd.integrations.recomputation_watch import is_compiled


class LayerWatch:
    """Watches the layers of one model in the thread that calls it; passes of replicas in other threads are not seen."""

    def __init__(self) -> None:
        self._passes = {False: 0, True: 0}
        self._thread = 0
        # How often modules ran: for each list of layers its holder and then each layer; for like parts of layers each.
        self._layers: list[list[int]] = []
        self._parts: list[list[int]] = []
        self.hooks = AttachedHooks()

    def next_is_watched(self, *, records: bool) -> bool:
        """Count a pass, which records gradients or does not; whether to watch it."""
        passes = self._passes[records] = self._passes[records] + 1
        return passes & (passes - 1) == 0

    def begin(self, lists: Iterable[tuple[Any, list[Any]]]) -> None:
        """Watch a pass until `end`. `lists`: modules, each with the layers that it holds and runs."""
        self.hooks.remove()
        self._layers, self._parts, self._thread = [], [], threading.get_ident()
        for holder, layers in lists:
            if any(is_compiled(inner) or isinstance(inner, torch.jit.ScriptModule) for inner in holder.modules()):
                continue
            self._layers.append(self._counts([holder, *layers]))
            alike = defaultdict(list)  # parts that each layer of a kind has
            for layer in layers:
                for name, part in _parts(layer):
                    alike[type(layer), name, type(part)].append(part)
            self._parts += [self._counts(parts) for parts in alike.values() if len(parts) > 1]

    def end(self, *, failed: bool = False) -> bool:
        """Whether a layer passed other than once for each pass of what holds it, or its parts other than those of
        layers like it; a pass that `failed` does not show it."""
        if not self.hooks or self._thread != threading.get_ident():
            return False
        self.hooks.remove()
        return not failed and (any(map(_differs, self._layers)) or any(len(set(calls)) > 1 for calls in self._parts))

    def restart(self) -> None:
        """The model is another from now on."""
        self._passes = {False: 0, True: 0}

    def _counts(self, modules: list[Any]) -> list[int]:
        """How often each passes, from now on."""
        calls = [0] * len(modules)
        for at, module in enumerate(modules):
            self.hooks.before(module, functools.partial(self._pass, calls, at))
        return calls

    def _pass(self, calls: list[int], at: int, *_: object) -> None:
        if threading.get_ident() == self._thread:
            calls[at] += 1


def _parts(layer: Any) -> Iterator[tuple[str, Any]]:
    """Not those within parts, such as experts, of which a pass may leave some out."""
    for name, part in layer.named_children():
        if isinstance(part, torch.nn.ModuleList):
            yield from ((f"{name}.{inner}", one) for inner, one in part.named_children())
        else:
            yield name, part


def _differs(calls: list[int]) -> bool:
    holder, *layers = calls
    # A custom loop may call the layers and not their holder.
    expected = max(holder, 1 if any(layers) else 0)
    return any(one != expected for one in layers)
