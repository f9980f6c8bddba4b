"""A hook on a module of PyTorch that counts nothing in a copy of its model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Hook(functools.partial[None]):
    """A hook that stays behind when its model is copied or pickled: the copy is not counted. `counted_by`: the counter
    that it belongs to, with a weak reference to what that was attached to; the one that is attached last takes over."""

    counted_by: tuple[Any, Callable[[], Any]] | None = None

    def __reduce__(self) -> tuple[type[Hook], tuple[object]]:
        return Hook, (_nothing,)


def _nothing(*_: object) -> None:
    pass
