"""What determines which operators a forward pass runs: the shapes and types of its arguments, and the state of model
and PyTorch. Content is not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flopsd.integrations.model_state import ModelState
from flopsd.integrations.token_counter import past_length

MAX_ITEMS = 64
_IGNORED = frozenset({"num_items_in_batch"})  # another number in each step, which divides the loss


class Signature:
    """Of the passes of one model."""

    def __init__(self, model: Any) -> None:
        self._state = ModelState(model)

    def of_pass(self, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[object, ...]:
        grads = torch.is_grad_enabled()
        return (
            type(model), model.training, grads, torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cuda"), torch.is_autocast_enabled("cpu"),
            self._state.now() if grads else self._state.adapters(),
            tuple([_of(one) for one in arguments]),
            tuple([(name, _of(one)) for name, one in named.items() if name not in _IGNORED]),
        )  # fmt: skip

    def checkpoints(self) -> bool:
        """Whether any layer is computed again."""
        return any(self._state.now()[1])


def _of(value: Any, depth: int = 3) -> object:
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype, value.device, value.requires_grad
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "get_seq_length"):
        return type(value), past_length(value)
    if depth and isinstance(value, list | tuple) and len(value) <= MAX_ITEMS:
        return tuple([_of(one, depth - 1) for one in value])
    if depth and isinstance(value, Mapping) and len(value) <= MAX_ITEMS:
        return tuple([(str(name), _of(one, depth - 1)) for name, one in value.items()])
    return type(value)
