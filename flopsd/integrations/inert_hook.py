"""A hook on a module of PyTorch that counts nothing in a copy of its model."""

from __future__ import annotations

from collections.abc import Callable


class Hook:
    """A hook that stays behind when its model is copied or pickled: the copy is not counted."""

    def __init__(self, call: Callable[..., None] | None = None) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> None:
        if self._call is not None:
            self._call(*arguments)

    def __reduce__(self) -> tuple[type[Hook], tuple[()]]:
        return Hook, ()
