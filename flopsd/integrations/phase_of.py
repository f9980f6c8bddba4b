"""The phase that a forward pass belongs to, and where it is declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

UNSETTLED = ""  # a phase that becomes known later
PhaseOf = Callable[[Any, bool], str]  # of a model, and whether it generates


class Session(Protocol):
    """Where work is declared: a `flopsd.client.Client`, or something like it."""

    @property
    def current_phase(self) -> str | None: ...
    def count(self, phase: str, **counters: int) -> None: ...
    def counting(self, phase: str, **counters: int) -> Callable[[], None]: ...
    def declare(self, **facts: object) -> None: ...


def usual_phase(client: Session) -> PhaseOf:
    """A pass with gradients is training; any other belongs to the client's current phase."""

    def phase_of(model: Any, _generating: bool) -> str:
        if torch.is_grad_enabled() and model.training:
            return "train"
        named = client.current_phase
        return named if named in ("evaluate", "generate") else "other"

    return phase_of


def is_transformed() -> bool:
    """Whether what runs now is transformed by torch.func, such as by vmap, or has gradients in forward mode: of such a
    pass more is computed than the shapes of its arguments show."""
    level = getattr(torch._C._functorch, "maybe_current_level", None)
    return (level is not None and level() is not None) or torch.autograd.forward_ad._current_level >= 0
