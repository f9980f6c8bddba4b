"""Hooks on PyTorch modules. They do nothing in a copy of their model, and the training may remove them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any


class Hook(functools.partial[None]):
    """A hook that does nothing in a copy or pickle of its model: the copy is not counted. `counted_by`: its counter,
    and a weak reference to the object that the counter was attached to; the counter attached last takes over."""

    counted_by: tuple[Any, Callable[[], Any]] | None = None

    def __reduce__(self) -> tuple[type[Hook], tuple[object]]:
        return Hook, (_nothing,)


class AttachedHook:
    """A hook on a module or an optimizer. If the training removes it, passes or their ends are not seen."""

    __slots__ = ("_handle", "_on")

    def __init__(self, on: Any, handle: Any) -> None:
        self._on, self._handle = weakref.ref(on), handle

    def remove(self) -> None:
        self._handle.remove()

    @property
    def was_removed(self) -> bool:
        hooks = self._handle.hooks_dict_ref()
        return self._on() is not None and (hooks is None or self._handle.id not in hooks)


class AttachedHooks:
    """The hooks that one counter has attached to modules or optimizers."""

    def __init__(self) -> None:
        self._all: list[AttachedHook] = []

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def any_removed(self) -> bool:
        """Whether the training removed any of them."""
        return any(one.was_removed for one in self._all)

    def before(
        self, module: Any, call: Callable[..., None], counted_by: tuple[Any, Callable[[], Any]] | None = None
    ) -> None:
        """Call `call` with the module and its positional and named arguments before each of its forward passes."""
        hook = Hook(call)
        hook.counted_by = counted_by
        self.add(module, module.register_forward_pre_hook(hook, with_kwargs=True))

    def after(self, module: Any, call: Callable[..., None], *, with_named: bool = False) -> AttachedHook:
        """Call `call` after each forward pass of the module, even one that fails, with the output as last argument."""
        return self.add(module, module.register_forward_hook(Hook(call), with_kwargs=with_named, always_call=True))

    def add(self, on: Any, handle: Any) -> AttachedHook:
        """Take a hook that was registered on a module or an optimizer."""
        self._all.append(one := AttachedHook(on, handle))
        return one

    def remove(self) -> None:
        for one in self._all:
            one.remove()
        self._all.clear()


def _nothing(*_: object) -> None:
    pass
