"""What a reader of any module may rely on: the core is pure, one module reads time, one exits."""

from __future__ import annotations

import ast
from pathlib import Path

import flopsd
from tests.unit.test_rooms import modules

PACKAGE = Path(flopsd.__file__).parent
PURE_IMPORTS = {
    "__future__", "base64", "binascii", "bisect", "collections", "dataclasses", "decimal", "enum", "flopsd", "fractions", "functools", "json",
    "math", "re", "typing",
}  # fmt: skip
TIME_READERS = {
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "clock_gettime",
    "clock_gettime_ns",
    "perf_counter",
    "now",
}


def imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_the_core_is_pure() -> None:
    for name, tree in modules(PACKAGE).items():
        if name.startswith("flopsd.core"):
            used = {imported.split(".")[0] for imported in imports(tree)}
            assert used <= PURE_IMPORTS, f"{name} imports {sorted(used - PURE_IMPORTS)}"


def test_only_the_clock_reads_time() -> None:
    for name, tree in modules(PACKAGE).items():
        if name == "flopsd.system.clock":
            continue
        assert "time" not in imports(tree), f"{name} imports time"
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("time", "datetime")
            ):
                assert node.attr not in TIME_READERS, f"{name} line {node.lineno} reads a clock"


def test_only_the_command_line_exits() -> None:
    for name, tree in modules(PACKAGE).items():
        if name == "flopsd.cli.main":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("exit", "_exit"):
                raise AssertionError(f"{name} line {node.lineno} exits")
            if isinstance(node, ast.Name) and node.id == "SystemExit":
                raise AssertionError(f"{name} line {node.lineno} exits")


def test_nothing_happens_at_import() -> None:
    """At module level stand only definitions, imports and constants."""
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Expr, ast.If)
    for name, tree in modules(PACKAGE).items():
        for node in tree.body:
            assert isinstance(node, allowed), f"{name} line {node.lineno}"
            if isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant), f"{name} line {node.lineno} does something at import"
