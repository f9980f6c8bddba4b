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
        self._kept: State = (b"", b"", ())
        self._kept_names: object = None
        self.keep()

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

    def adapters(self) -> object:
        """Which adapters the first layer of PEFT uses: PEFT switches all of them together."""
        return tuple([_adapters(one()) for one in self._adapted])

    def has_changed(self, *, trains: bool) -> bool:
        """Whether it is other than what was kept. A pass without gradients differs by the names of the adapters alone,
        which may be switched off meanwhile."""
        return self.now() != self._kept if trains else self._names() != self._kept_names

    def keep(self) -> bool:
        """Keep what it is now; whether other layers than before are computed again. The model may have other modules
        now, such as adapters."""
        self._find()
        _, checkpointed, _ = self._kept
        self._kept, self._kept_names = self.now(), self._names()
        return checkpointed != self._kept[1]

    @property
    def trains_any(self) -> bool:
        """Whether any parameter was trained when it was kept."""
        return any(self._kept[0])

    def _names(self) -> object:
        return [str(getattr(one(), "_active_adapter", None)) for one in self._adapted]

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
