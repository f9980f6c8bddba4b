"""Puts a fault into a running process: into functions that exist already, or into a module before it is imported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from tests.mutants.faults import Fault

_NEWLOCALS = 0x0002  # a flag of functions, not of modules and classes


class Functions:
    """All functions of the package that exist in this process, by their code."""

    def __init__(self, root: Path, package: str) -> None:
        self._root = root
        self._by_code: dict[tuple[str, int, str], list[FunctionType]] = {}
        for thing in gc.get_objects():
            if type(thing) is FunctionType and thing.__code__.co_filename.startswith(f"{root}/{package}/"):
                self._by_code.setdefault(_key(thing.__code__), []).append(thing)

    def plant(self, fault: Fault) -> bool:
        """Whether the fault is now in all functions that have its code: not where it changes what runs at import."""
        path = str(self._root / fault.path)
        source = Path(path).read_bytes()
        before = compile(source, path, "exec", dont_inherit=True)
        after = compile(fault.plant(source), path, "exec", dont_inherit=True)
        pairs = list(_changed(before, after))
        found = [(function, new) for old, new in pairs for function in self._by_code.get(_key(old), ())]
        if not found or any(function.__code__.co_freevars != new.co_freevars for function, new in found):
            return False
        for function, new in found:
            function.__code__ = new
        return True


def _key(code: CodeType) -> tuple[str, int, str]:
    return code.co_filename, code.co_firstlineno, code.co_name


def _changed(before: CodeType, after: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    if before.co_flags & _NEWLOCALS and before != after:
        yield before, after
    inner = [[part for part in code.co_consts if isinstance(part, CodeType)] for code in (before, after)]
    for old, new in zip(*inner, strict=False):
        if old.co_name == new.co_name:
            yield from _changed(old, new)


class _Planted(SourceFileLoader):
    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.get_filename(fullname), "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, name: str, path: Path, source: bytes) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        return spec_from_file_location(name, self._path, loader=_Planted(name, str(self._path), self._source))


def plant_before_import(fault: Fault, root: Path, package: str) -> None:
    """Forget the package and all tests, so that they are imported anew, and the module with its fault."""
    for name in list(sys.modules):
        if name.partition(".")[0] in (package, "tests"):
            del sys.modules[name]
    path = root / fault.path
    name = ".".join(Path(fault.path).with_suffix("").parts).removesuffix(".__init__")
    sys.meta_path.insert(0, _Finder(name, path, fault.plant(path.read_bytes())))
