"""The facts that determine which operators a forward pass runs: the shapes and types of its arguments, and the state of
the model and of PyTorch. Content is not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import torch

from flopsd.integrations.modules.key_value_cache import past_length
from flopsd.integrations.modules.state import ModelState

MAX_ITEMS, MAX_DEPTH = 1024, 6
_IGNORED = frozenset({"num_items_in_batch"})  # a divisor of the loss, different in each step
# Only the type counts: the value of a float, for instance, does not change the shapes in PyTorch.
_OPAQUE = (float, complex, bytes, torch.dtype, torch.device, torch.Generator)


class UnseenError(Exception):
    """An argument may hold tensors that cannot be found."""


class Signature:
    """Makes the signatures of one model's passes."""

    def __init__(self, model: Any) -> None:
        self._state = ModelState(model)

    def of_pass(self, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[object, ...]:
        """The signature of a pass. Raises UnseenError."""
        grads = torch.is_grad_enabled()
        found = _Arguments()
        return (
            type(model), model.training, grads, torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cuda"), torch.is_autocast_enabled("cpu"),
            self._state.now() if grads else (self._state.adapters(), self._state.layers()),
            tuple([found.of(one) for one in arguments]),
            tuple([(name, found.of(one)) for name, one in named.items() if name not in _IGNORED]),
        )  # fmt: skip

    def checkpoints(self) -> bool:
        """Whether any layer is recomputed in the backward pass."""
        return any(self._state.now()[1])


class _Arguments:
    """The arguments of one pass. The attributes of objects count, such as those of a dataclass or a library's graph."""

    def __init__(self) -> None:
        self._left = MAX_ITEMS

    def of(self, value: Any, depth: int = MAX_DEPTH) -> object:
        if isinstance(value, torch.Tensor):
            return value.shape, value.dtype, value.device, value.requires_grad
        if value is None or isinstance(value, bool | int | str | Enum):
            return value
        if hasattr(value, "get_seq_length"):
            return type(value), past_length(value)
        if isinstance(value, _OPAQUE) or callable(value):
            return type(value)
        if hasattr(value, "shape") and hasattr(value, "dtype"):  # an array of NumPy
            return type(value), tuple(value.shape), str(value.dtype)
        items = list(_items_of(value))
        self._left -= len(items)
        if self._left < 0 or not depth:
            raise UnseenError
        return type(value), tuple([(name, self.of(one, depth - 1)) for name, one in items])


def _items_of(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return ((str(name), one) for name, one in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return (("", one) for one in value)
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is None and not hasattr(value, "__dict__"):
        raise UnseenError
    names = dict.fromkeys([*(fields or ()), *getattr(value, "__dict__", ())])
    return ((name, getattr(value, name, None)) for name in names)
