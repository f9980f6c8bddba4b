"""Detect modules that run again in a backward pass, perhaps though no switch of the model shows it: the training calls
`torch.utils.checkpoint` itself, or wrapped layers after the model was described. Detect modules that do so more than
once, by checkpointing within checkpointing.

Hooks on all modules cost more than all other counting, so only some passes with gradients have them (`SparsePasses`),
and the passes that follow before the backward pass. That anything was recomputed also shows from the autograd nodes
that a backward pass makes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from flopsd.integrations.modules.hooks import AttachedHooks
from flopsd.integrations.modules.sparse_passes import SparsePasses
from flopsd.integrations.passes.open_passes import OpenPasses, is_in_backward

_MOST = 64  # passes with the same hooks, if some stay open


class RecomputationWatch:
    """Watches one model. `seen` is called when a module runs in a backward pass, and `seen_again` when one ran there
    more often than in the forward passes: it is recomputed more than once. `is_inside`: whether this thread is inside a
    pass of the whole model that is counted."""

    def __init__(self, seen: Callable[[], None], seen_again: Callable[[], None], is_inside: Callable[[], bool]) -> None:
        self._seen, self._seen_again, self._is_inside = seen, seen_again, is_inside
        self._passes, self._watched = SparsePasses(), 0
        self._has_seen_again = self._is_late = self._records = False
        self._hooks = AttachedHooks()

    def begin_pass(self, model: Any, passes: OpenPasses, *, records: bool) -> None:
        """Watch the modules of `model`, if that is due, until all `passes` have had their backward passes."""
        is_late = bool(passes.open)  # it is not seen how often earlier forward passes ran a module
        if self._hooks and (not is_late or (passes.has_begun and self._watched >= _MOST)) and not is_in_backward():
            self.end()
        self._records = records
        if not records or self._has_seen_again:
            return
        self._watched += 1
        is_due = self._passes.next_is_due() or (self._is_late and not is_late)
        if is_due and not self._hooks:
            self._watched, self._is_late = 0, is_late
            passes.has_begun = False
            self._begin(model)

    def see_nodes(self, passes: OpenPasses) -> None:
        """Take note of backward passes that made autograd nodes."""
        if passes.made_nodes:
            passes.made_nodes = False
            self._seen()

    def end(self) -> None:
        self._hooks.remove()

    def restart(self) -> None:
        """Start over after the model's switches were read again."""
        self.end()
        self._passes = SparsePasses()

    def _begin(self, model: Any) -> None:
        modules = list(model.modules())
        compiled = {id(part) for one in modules if is_compiled(one) for part in one.modules() if part is not one}
        for one in modules:
            # Of the others only modules without submodules: FSDP removes their parameters.
            is_leaf = hasattr(one, "_orig_mod") or not (one._modules or is_compiled(one))
            if is_leaf and id(one) not in compiled and not isinstance(one, torch.jit.ScriptModule):
                self._hooks.before(one, functools.partial(self._pass, [0]))

    def _pass(self, due: list[int], *_: object) -> None:
        """`due`: how often recomputation may run the module."""
        if torch.compiler.is_compiling():
            return
        if (is_inside := self._is_inside()) or not is_in_backward():
            due[0] += self._records or not is_inside
            return
        self._seen()
        due[0] -= 1
        if due[0] < 0 and not self._is_late and not self._has_seen_again:
            self._has_seen_again = True
            self._seen_again()


def is_compiled(module: Any) -> bool:
    """Whether torch.compile compiled the module: hooks would make it compile again."""
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
