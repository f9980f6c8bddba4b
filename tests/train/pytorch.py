"""PyTorch, loaded when a test first uses it: workers that run none of these tests do without."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Late:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):  # pytest asks whatever a module of tests names for such
                raise AttributeError(name)
            return getattr(import_module("torch"), name)

    torch = _Late()
