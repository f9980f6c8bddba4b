"""Hooks on modules of PyTorch, which are without work in a copy of their model, and which others may remove."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any


class Hook(functools.partial[None]):
    """A hook that stays behind when its model is copied or pickled: the copy is not counted. `counted_by`: the counter
    that it belongs to, with a weak reference to what that was attached to; the one that is attached last takes over."""

    counted_by: tuple[Any, Callable[[], Any]] | None = None

    def __reduce__(self) -> tuple[type[Hook], tuple[object]]:
        return Hook, (_nothing,)


class AttachedHook:
    """A hook on a module or an optimizer, which others may remove. Without it no end of a pass is seen, or no pass."""

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
    """Those that one counter has attached to modules."""

    def __init__(self) -> None:
        self._all: list[AttachedHook] = []

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def any_removed(self) -> bool:
        """Whether the training removed some."""
        return any(one.was_removed for one in self._all)

    def before(
        self, module: Any, call: Callable[..., None], counted_by: tuple[Any, Callable[[], Any]] | None = None
    ) -> None:
        """Call `call` with the module and its positional and named arguments before each of its forward passes."""
        hook = Hook(call)
        hook.counted_by = counted_by
        self._all.append(AttachedHook(module, module.register_forward_pre_hook(hook, with_kwargs=True)))

    def after(self, module: Any, call: Callable[..., None], *, with_named: bool = False) -> None:
        """Call `call` after each of its forward passes, also those that fail, with the output last."""
        handle = module.register_forward_hook(Hook(call), with_kwargs=with_named, always_call=True)
        self._all.append(AttachedHook(module, handle))

    def remove(self) -> None:
        for one in self._all:
            one.remove()
        self._all.clear()


def _nothing(*_: object) -> None:
    pass
