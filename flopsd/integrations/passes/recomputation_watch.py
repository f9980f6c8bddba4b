"""Detect modules that run again in a backward pass though no switch of the model shows it: the training calls
`torch.utils.checkpoint` itself, or wrapped layers after the model was described. Detect modules that do so more than
once, by checkpointing within checkpointing.

Hooks on all modules cost more than all other counting, so only passes 1, 2, 4, 8, … of those with gradients have them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from flopsd.integrations.modules.hooks import AttachedHooks
from flopsd.integrations.passes.open_passes import is_in_backward


class RecomputationWatch:
    """Watches one model. `seen` is called when a module runs in a backward pass unexpectedly, and `seen_again` when one
    ran there more often than in the forward passes: it is recomputed more than once. Modules that run while
    `is_inside`, within a pass of the whole model that is counted, are not meant."""

    def __init__(self, seen: Callable[[], None], seen_again: Callable[[], None], is_inside: Callable[[], bool]) -> None:
        self._seen, self._seen_again, self._is_inside = seen, seen_again, is_inside
        self._passes = 0
        self._has_seen = self._has_seen_again = self._is_expected = False
        self.hooks = AttachedHooks()

    def next_is_watched(self) -> bool:
        """Count a pass that records gradients, and return whether to watch it."""
        self._passes += 1
        return self._passes & (self._passes - 1) == 0 and not self._has_seen_again

    def begin(self, model: Any, *, is_expected: bool, has_open_passes: bool) -> None:
        """Watch the modules of `model` until `end`. `is_expected`: the model is declared to recompute some.
        `has_open_passes`: backward passes of earlier forward passes are due, so it is not seen how often these ran a
        module."""
        self.end()
        self._is_expected = is_expected
        modules = list(model.modules())
        compiled = {id(part) for one in modules if is_compiled(one) for part in one.modules()}
        for one in modules:
            # Only modules without submodules: FSDP removes their parameters.
            if not one._modules and id(one) not in compiled and not isinstance(one, torch.jit.ScriptModule):
                self.hooks.before(one, functools.partial(self._pass, None if has_open_passes else [0]))

    def end(self) -> None:
        self.hooks.remove()

    def restart(self) -> None:
        """Start over after the model's switches were read again."""
        self._passes, self._has_seen = 0, False

    def _pass(self, due: list[int] | None, *_: object) -> None:
        """`due`: how often one recomputation runs the module."""
        if torch.compiler.is_compiling():
            return
        if not is_in_backward():
            if due is not None:
                due[0] += 1
            return
        if self._is_inside():
            return
        if not self._has_seen and not self._is_expected:
            self._has_seen = True
            self._seen()
        if due is not None:
            due[0] -= 1
            if due[0] < 0 and not self._has_seen_again:
                self._has_seen_again = True
                self._seen_again()


def is_compiled(module: Any) -> bool:
    """Whether torch.compile compiled the module: hooks would make it compile again."""
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
