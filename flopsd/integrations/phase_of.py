"""The phase that a forward pass belongs to, and the session to which it is declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch._subclasses.fake_tensor import FakeTensor

UNSETTLED = ""  # the phase becomes known later
PhaseOf = Callable[[Any, bool], str]  # takes a model, and whether it generates


class Session(Protocol):
    """A receiver of declared work: a `flopsd.client.Client`, or an object with these methods."""

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
    """Whether the running code is transformed by torch.func, such as by vmap, or has forward-mode gradients: such a
    pass computes more than the shapes of its arguments show."""
    level = getattr(torch._C._functorch, "maybe_current_level", None)
    return (level is not None and level() is not None) or torch.autograd.forward_ad._current_level >= 0


def computes_shapes_only(arguments: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """Whether a pass has no data: it runs in PyTorch's FakeTensorMode or on the meta device, as for an estimate."""
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
        return True
    has_tensors = False
    for one in (*arguments, *named.values()):
        if isinstance(one, torch.Tensor):
            if not (one.is_meta or isinstance(one, FakeTensor)):
                return False
            has_tensors = True
    return has_tensors
