"""A hook on a module of PyTorch that counts nothing in a copy of its model."""

from __future__ import annotations

import functools


class Hook(functools.partial[None]):
    """A hook that stays behind when its model is copied or pickled: the copy is not counted."""

    def __reduce__(self) -> tuple[type[Hook], tuple[object]]:
        return Hook, (_nothing,)


def _nothing(*_: object) -> None:
    pass
