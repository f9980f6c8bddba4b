"""Detect forward passes that skip layers or run one more than once, which the configuration does not show: an early
exit, layers dropped at random, a custom loop over some layers.

Hooks on all layers and their parts cost more than all other counting, so only some passes have them: `SparsePasses`,
counted separately for passes with and without gradients, and passes after one with another number of autograd nodes
than all watched ones, until one with that number is watched.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from flopsd.integrations.modules.hooks import AttachedHooks
from flopsd.integrations.modules.sparse_passes import SparsePasses
from flopsd.integrations.passes.recomputation_watch import is_compiled

_MOST_WANTED = 64  # passes that are watched for their number of nodes: the experts of a mixture change it


class LayerWatch:
    """Watches the layers of one model in the calling thread; passes of replicas in other threads are not seen. `tower`:
    its part for images, of which nothing reads the result of the last `unread` layers: these have no gradients."""

    def __init__(self, tower: Any = None, unread: int = 0) -> None:
        self._tower: Callable[[], Any] = (lambda: None) if tower is None else weakref.ref(tower)
        self._unread = unread
        self._passes = {False: SparsePasses(), True: SparsePasses()}
        self._thread = 0
        # The numbers of autograd nodes of watched passes, and of passes like which none has been watched yet.
        self._sizes: set[int] = set()
        self._wanted: set[int] = set()
        self._may_want = _MOST_WANTED
        # Call counts: for each list of layers, the holder's and then each layer's; for each kind of part, each part's.
        self._layers: list[list[int]] = []
        self._parts: list[list[int]] = []
        # The trained layers of each list, each with the parameters of its parts when it ran: FSDP 2 replaces them then.
        self._trained: list[list[tuple[Any, list[list[Any]]]]] = []
        self.hooks = AttachedHooks()

    def next_is_watched(self, *, records: bool) -> bool:
        """Count a pass that records gradients or does not, and return whether to watch it."""
        self._trained = []
        is_due = self._passes[records].next_is_due()
        if not is_due and records and self._wanted and self._may_want:
            self._may_want -= 1
            return True
        return is_due

    def see_size(self, nodes: int) -> None:
        """A pass made that many autograd nodes; 0 if not known. If it was watched, `take_trained` comes after this."""
        if self._trained:
            self._sizes.add(nodes)
            self._wanted.discard(nodes)
        elif nodes not in self._sizes:
            self._wanted.add(nodes)

    def begin(self, lists: Iterable[tuple[Any, list[Any]]]) -> None:
        """Watch a pass until `end`. `lists`: modules, each with the layers that it holds and should run."""
        self.hooks.remove()
        self._layers, self._parts, self._thread = [], [], threading.get_ident()
        for holder, layers in lists:
            if any(is_compiled(inner) or isinstance(inner, torch.jit.ScriptModule) for inner in holder.modules()):
                continue
            self._layers.append(self._counts([holder, *layers]))
            tower = self._tower() if self._unread else None
            is_cut = tower is not None and any(one is holder for one in tower.modules())
            read = layers[: -self._unread] if is_cut else layers
            trained: list[tuple[Any, list[list[Any]]]] = [(layer, []) for layer in filter(_trained, read)]
            self._trained.append(trained)
            for layer, ran in trained:
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
        """If this pass was watched, once: the trained parameters of each part of the layers in each list that ran, or
        with `ran_before` in each list. A whole backward pass reaches some of each part."""
        lists, self._trained = self._trained, []
        found = (one for trained in lists if ran_before or any(ran for _, ran in trained) for one in trained)
        return [part for layer, ran in found for part in ran or _trained(layer)]

    def restart(self) -> None:
        """Start over, since the model has changed."""
        self._passes = {False: SparsePasses(), True: SparsePasses()}

    def _counts(self, modules: list[Any]) -> list[int]:
        """The call counts of the modules from now on, updated by hooks."""
        calls = [0] * len(modules)
        for at, module in enumerate(modules):
            self.hooks.before(module, functools.partial(self._pass, calls, at))
        return calls

    def _keep_trained(self, ran: list[list[Any]], layer: Any, *_: object) -> None:
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


def _trained(layer: Any) -> list[list[Any]]:
    """The trained parameters of each part of a layer that multiplies with them; if only vectors are trained, all."""
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    return list(_multiplied(layer)) or ([trained] if trained else [])


def _multiplied(module: Any) -> Iterator[list[Any]]:
    parts = list(module.children())
    if any(isinstance(one, torch.nn.ModuleDict) for one in parts):  # adapters, of which not all need to be active
        parts, held = [], module.parameters()
    else:
        held = module.parameters(recurse=False)
    if own := [one for one in held if one.requires_grad and one.dim() > 1]:
        yield own
    for one in parts:
        if not isinstance(one, torch.nn.ModuleList):  # such as experts: a pass may skip some
            yield from _multiplied(one)


def _differs(calls: list[int]) -> bool:
    holder, *layers = calls
    # A custom loop may call the layers and not their holder.
    expected = max(holder, 1 if any(layers) else 0)
    return any(one != expected for one in layers)
