"""Detect modules that run again in a backward pass though no switch of the model shows it: the training calls
`torch.utils.checkpoint` itself, or wrapped layers after the model was described.

Hooks on all modules cost more than all other counting, so only passes 1, 2, 4, 8, … of those with gradients have them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from flopsd.integrations.modules.hooks import AttachedHooks
from flopsd.integrations.passes.open_passes import is_in_backward


class RecomputationWatch:
    """Watches one model. `seen` is called when a module runs in a backward pass, until it returns True."""

    def __init__(self, seen: Callable[[], bool]) -> None:
        self._seen = seen
        self._passes = 0
        self._has_seen = False
        self.hooks = AttachedHooks()

    def next_is_watched(self) -> bool:
        """Count a pass that records gradients, and return whether to watch it."""
        self._passes += 1
        return self._passes & (self._passes - 1) == 0 and not self._has_seen

    def begin(self, model: Any) -> None:
        """Watch the modules of `model` until `end`."""
        self.end()
        modules = list(model.modules())
        compiled = {id(part) for one in modules if is_compiled(one) for part in one.modules()}
        for one in modules:
            # Only modules without submodules: FSDP removes their parameters.
            if not one._modules and id(one) not in compiled and not isinstance(one, torch.jit.ScriptModule):
                self.hooks.before(one, self._pass)

    def end(self) -> None:
        self.hooks.remove()

    def restart(self) -> None:
        """Start over after the model's switches were read again."""
        self._passes, self._has_seen = 0, False

    def _pass(self, *_: object) -> None:
        if not torch.compiler.is_compiling() and not self._has_seen and is_in_backward():
            self._has_seen = self._seen()


def is_compiled(module: Any) -> bool:
    """Whether torch.compile compiled the module: hooks would make it compile again."""
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
