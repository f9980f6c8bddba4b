"""Counts the operators of an optimizer's steps, such as the products of Muon or Shampoo."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from flopsd.integrations.inert_hook import Hook
from flopsd.integrations.operator_mode import Counted, CountingMode
from flopsd.integrations.operator_totals import Kept, Totals

_CLOSURE = "steps of an optimizer with a closure"


class OptimizerSteps:
    """The steps that go on; they are training."""

    def __init__(
        self, totals: Totals, guard: Callable[[Callable[..., None]], Callable[..., None]], failed: Callable[[], None]
    ) -> None:
        self._totals, self._guard, self._failed = totals, guard, failed
        self._add = guard(self._add_up)
        self._kept: Kept | None = None
        self._counted: Counted | None = None
        self._mode: Any = None

    def attach(self, optimizer: Any) -> list[Any]:
        """Handles of the hooks on a torch.optim.Optimizer; none on any other."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            return []
        begin = self._guard(functools.partial(self._begin, Kept()))
        return [optimizer.register_step_pre_hook(Hook(begin)), optimizer.register_step_post_hook(Hook(self._end))]

    def leave(self) -> None:
        """Leave a step's mode, also where the step raised an error that was caught."""
        mode, self._mode = self._mode, None
        if mode is not None and _get_current_dispatch_mode() is mode:
            mode.__exit__(None, None, None)

    def _begin(self, kept: Kept, _optimizer: Any, arguments: Any, named: Any) -> None:
        self.leave()
        self._kept, self._counted = kept, None
        if any(one is not None for one in (*arguments[1:], *named.values())):
            self._kept = None
            self._totals.sessions.say([_CLOSURE], "train")
        elif kept.next_is_counted():
            self._counted = Counted()
            self._mode = CountingMode(self._counted, self._failed)
            self._mode.__enter__()

    def _end(self, *_: Any) -> None:
        self.leave()  # also after an error in counting
        kept, self._kept = self._kept, None
        if kept is not None:
            self._add(kept)

    def _add_up(self, kept: Kept) -> None:
        if self._counted is None:
            self._totals.add_kept(kept.forward, "train")
        else:
            kept.keep_forward(self._counted)
            self._totals.add_counted(kept, self._counted, "train")
