"""Imports one module of a package without what the package itself imports: prometheus-client imports an HTTP server and
client, TLS and mail, 5 MB that a process keeps."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


class _Unused(ModuleType):
    """A package whose own code has not run. It runs when an attribute is used that is not one of its modules."""

    __spec__: ModuleSpec

    def __getattr__(self, name: str) -> Any:
        whole = f"{self.__name__}.{name}"
        try:
            return import_module(whole)
        except ModuleNotFoundError as fault:
            if fault.name != whole:
                raise
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def part_of(package: str, name: str) -> Any:
    """Return the module `name` of a top-level package, as `import` does. Raises ModuleNotFoundError."""
    if package not in sys.modules:
        spec = find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        made = module_from_spec(spec)
        made.__class__ = _Unused
        sys.modules.setdefault(package, made)
    return import_module(f"{package}.{name}")
