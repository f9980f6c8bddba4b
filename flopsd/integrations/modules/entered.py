"""Track which hooked modules a thread is inside, even if an exception or the training prevented calls of the hooks."""

from __future__ import annotations

import sys
import threading
from typing import Any

HOOKS_GONE = "forward passes of a model whose hooks the training removed"
COMPILED_LATER = "forward passes of a model that was compiled after the counter was attached"
ENDED = "forward passes that ended with an error"


class EnteredModules(threading.local):
    """`depth`: how many forward passes of modules this thread has begun and not ended."""

    depth = 0
    _outermost = 0  # id() of the outermost module

    def enter(self, module: Any) -> bool:
        """Enter a module; return whether its last pass ended without a call of the hooks, as by a KeyboardInterrupt."""
        is_stale = bool(self.depth) and id(module) == self._outermost and not _runs_within_itself(module)
        if is_stale or not self.depth:
            self.depth, self._outermost = 0, id(module)
        self.depth += 1
        return is_stale

    def leave(self) -> None:
        self.depth -= self.depth > 0


def has_failed() -> bool:
    """Whether the forward pass ended with an error. To be called in a hook that PyTorch always calls."""
    return sys.exc_info()[0] is not None


def _runs_within_itself(module: Any) -> bool:
    frame, calls = sys._getframe(1), 0
    while frame is not None and calls < 2:
        calls += frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is module
        frame = frame.f_back  # type: ignore[assignment]
    return calls > 1
