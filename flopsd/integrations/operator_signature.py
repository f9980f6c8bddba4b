"""What determines which operators a forward pass runs: the shapes and types of its arguments, and the state of model
and PyTorch. Content is not read."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from flopsd.integrations.token_counter import past_length

MAX_ITEMS = 64
_IGNORED = frozenset({"num_items_in_batch"})  # another number in each step, which divides the loss


class Signature:
    """Of the passes of one model."""

    def __init__(self, model: Any) -> None:
        self._model: Callable[[], Any] = weakref.ref(model)
        # Weak, so that a parameter that was replaced, such as by a shard of it, is freed.
        self._parameters: list[Callable[[], Any]] = []
        self._checkpointed: list[Callable[[], Any]] = []
        self._adapted: list[Callable[[], Any]] = []
        self._find()

    def of_pass(self, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[object, ...]:
        grads = torch.is_grad_enabled()
        return (
            type(model), model.training, grads, torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cuda"), torch.is_autocast_enabled("cpu"),
            self._switches() if grads else None, tuple([_adapters(one()) for one in self._adapted]),
            tuple([_of(one) for one in arguments]),
            tuple([(name, _of(one)) for name, one in named.items() if name not in _IGNORED]),
        )  # fmt: skip

    def checkpoints(self) -> bool:
        """Whether any layer is computed again."""
        return any(self._switches()[1])

    def _switches(self) -> tuple[bytes, bytes]:
        """Which parameters are trained, and which layers are computed again in the backward pass."""
        for _ in range(2):
            with suppress(AttributeError):  # one is gone
                return (
                    bytes([one().requires_grad for one in self._parameters]),
                    bytes([bool(one().gradient_checkpointing) for one in self._checkpointed]),
                )
            self._find()
        return b"", b""

    def _find(self) -> None:
        if (model := self._model()) is None:
            return
        self._parameters = [weakref.ref(one) for one in model.parameters()]
        adapted = [one for one in model.modules() if hasattr(one, "_disable_adapters")]
        self._adapted = [weakref.ref(one) for one in adapted[:1]]  # PEFT switches all of them together
        self._checkpointed = [weakref.ref(one) for one in model.modules() if hasattr(one, "gradient_checkpointing")]


def _adapters(layer: Any) -> object:
    """Which adapters a layer of PEFT uses."""
    names = ("_disable_adapters", "_active_adapter", "merged_adapters")
    return tuple([str(getattr(layer, name, None)) for name in names])


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
