"""PyTorch, loaded when a test first uses it: workers without such tests never load it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Late:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):  # pytest asks every name of a test module for these
                raise AttributeError(name)
            return getattr(import_module("torch"), name)

    torch = _Late()
