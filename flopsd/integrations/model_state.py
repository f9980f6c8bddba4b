"""What decides which products a pass of a model has beside its arguments, and may change between two passes: which
parameters are trained, which layers are computed again, which adapters are active. Content is not read."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

State = tuple[bytes, bytes, object]


class ModelState:
    """Of one model. Flags of parameters and layers, in their order."""

    def __init__(self, model: Any) -> None:
        self._model: Callable[[], Any] = weakref.ref(model)
        # Weak, so that a parameter that was replaced, such as by a shard of it, is freed.
        self._parameters: list[Callable[[], Any]] = []
        self._checkpointed: list[Callable[[], Any]] = []
        self._adapted: list[Callable[[], Any]] = []
        self._find()

    def now(self) -> State:
        """Parameters that are trained, layers that are computed again in the backward pass, and adapters."""
        for _ in range(2):
            with suppress(AttributeError):  # one is gone
                return (
                    bytes([one().requires_grad for one in self._parameters]),
                    bytes([bool(one().gradient_checkpointing) for one in self._checkpointed]),
                    self.adapters(),
                )
            self._find()
        return b"", b"", ()

    def active(self) -> object:
        """The names of the adapters that are used unless they are switched off."""
        return [str(getattr(one(), "_active_adapter", None)) for one in self._adapted]

    def look_again(self) -> None:
        """The model may have other modules now, such as adapters."""
        self._find()

    def adapters(self) -> object:
        """Which adapters the first layer of PEFT uses: PEFT switches all of them together."""
        return tuple([_adapters(one()) for one in self._adapted])

    def _find(self) -> None:
        if (model := self._model()) is None:
            return
        self._parameters = [weakref.ref(one) for one in model.parameters()]
        adapted = [one for one in model.modules() if hasattr(one, "_disable_adapters")]
        self._adapted = [weakref.ref(one) for one in adapted[:1]]
        self._checkpointed = [weakref.ref(one) for one in model.modules() if hasattr(one, "gradient_checkpointing")]


def _adapters(layer: Any) -> object:
    names = ("_disable_adapters", "_active_adapter", "merged_adapters")
    return tuple([str(getattr(layer, name, None)) for name in names])
