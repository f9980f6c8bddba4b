"""Count the operators of an optimizer's steps, such as the products of Muon or Shampoo."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from flopsd.integrations.modules.hooks import AttachedHooks, Hook
from flopsd.integrations.operators.mode import CountingMode, OperatorFlop
from flopsd.integrations.operators.totals import OperatorTotals, PassCounts

MAX_KINDS = 64
_KINDS = f"steps of an optimizer with more than {MAX_KINDS} choices of parameters"
_CLOSURE = "steps of an optimizer that call a closure twice"
_ARGUMENTS = "steps of an optimizer with arguments"
_FUNCTIONS = FunctionType, MethodType, functools.partial  # a closure


class _Current(threading.local):
    """The running step of this thread."""

    counts: PassCounts | None = None
    counted: OperatorFlop | None = None
    mode: Any = None


class _Seen:
    """The counts of one optimizer's steps. If its steps have products at all, they are kept by the set of parameters
    with a gradient."""

    def __init__(self) -> None:
        self._counts: dict[bytes, PassCounts] = {}
        self._has_products = False

    def of_step(self, optimizer: Any) -> PassCounts | None:
        """The counts for a step like this; None if there are too many kinds of steps."""
        self._has_products = self._has_products or any(
            one.forward and one.forward.flop for one in self._counts.values()
        )
        key = b""
        if self._has_products:
            key = bytes([one.grad is not None for group in optimizer.param_groups for one in group["params"]])
        if key not in self._counts and len(self._counts) >= MAX_KINDS:
            return None
        return self._counts.setdefault(key, PassCounts())


class OptimizerSteps:
    """Counts the steps of optimizers, in the phase `train`."""

    def __init__(
        self,
        totals: OperatorTotals,
        guard: Callable[[Callable[..., None]], Callable[..., None]],
        failed: Callable[[], None],
    ) -> None:
        self._totals, self._guard, self._failed = totals, guard, failed
        self._add = guard(self._add_up)
        self._current = _Current()

    def attach(self, optimizer: Any, hooks: AttachedHooks, counted_by: tuple[Any, Any]) -> None:
        """Hook a torch.optim.Optimizer; not any other object. `counted_by`: see `Hook`."""
        if isinstance(optimizer, torch.optim.Optimizer):
            begin = Hook(functools.partial(self._begin_after, self._guard(functools.partial(self._begin, _Seen()))))
            begin.counted_by = counted_by
            hooks.add(optimizer, optimizer.register_step_pre_hook(begin))
            hooks.add(optimizer, optimizer.register_step_post_hook(Hook(self._end)))

    def leave(self) -> None:
        """Leave a step's mode, even if the step raised an error that was caught."""
        mode, self._current.mode = self._current.mode, None
        if mode is not None and _get_current_dispatch_mode() is mode:
            mode.__exit__(None, None, None)

    def _begin_after(self, begin: Callable[..., None], optimizer: Any, arguments: Any, named: Any) -> Any:
        """Begin a step: after its closure, if it has one, whose passes are counted as such. Return the arguments with
        such a closure."""
        if not any(isinstance(one, _FUNCTIONS) for one in (*arguments, *named.values())):
            return begin(optimizer, arguments, named)
        self.leave()
        self._current.counts = None

        def after(closure: Any) -> Any:
            def call(*of_closure: Any, **more: Any) -> Any:
                self.leave()
                if self._current.counts is not None:
                    self._totals.sessions.say([_CLOSURE], "train")
                found = closure(*of_closure, **more)
                begin(optimizer, arguments, named)
                return found

            return call if isinstance(closure, _FUNCTIONS) else closure

        return tuple(map(after, arguments)), {name: after(one) for name, one in named.items()}

    def _begin(self, seen: _Seen, optimizer: Any, arguments: Any, named: Any) -> None:
        self.leave()
        current = self._current
        current.counts = current.counted = None
        given = [one for one in (*arguments[1:], *named.values()) if one is not None]
        if not all(isinstance(one, _FUNCTIONS) for one in given):
            self._totals.sessions.say([_ARGUMENTS], "train")
            return
        if (counts := seen.of_step(optimizer)) is None:
            self._totals.sessions.say([_KINDS], "train")
            return
        current.counts = counts
        if counts.next_is_counted():
            current.counted = OperatorFlop()
            current.mode = CountingMode(current.counted, self._failed)
            current.mode.__enter__()

    def _end(self, *_: Any) -> None:
        self.leave()  # even after an error in counting
        counts, self._current.counts = self._current.counts, None
        if counts is not None:
            self._add(counts)

    def _add_up(self, counts: PassCounts) -> None:
        if (counted := self._current.counted) is None:
            self._totals.add_kept(counts.to_add(), "train")
            return
        # An optimizer may compute some products only in some steps, by a counter that is not visible.
        counted.reads_content = counted.reads_content or bool(counted.flop)
        counts.keep_forward(counted)
        self._totals.add_counted(counts, counted, "train")
