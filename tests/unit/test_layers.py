"""The house rules that a reader relies on: imports run downwards, only clock.py reads time, only cli.py exits."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import flopsd

ROOT = Path(flopsd.__file__).parent
# Who may be imported by whom, beside "downwards": the upper rooms by those above them only, drivers know no ledger.
ONLY_BY = {
    "flopsd.verbs": ("flopsd.cli", "flopsd.verbs"),
    "flopsd.cli": ("flopsd.__main__",),
    "flopsd.service": ("flopsd.verbs",),
}
DRIVERS = ("flopsd.nvidia", "flopsd.dcgm", "flopsd.neuron", "flopsd.sources")
NOT_FOR_DRIVERS = (
    "ledger",
    "journal",
    "state_dir",
    "writer",
    "hearing",
    "past",
    "seal",
    "verify",
    "signing",
    "snapshot",
    "daemon",
)
PURE_IMPORTS = {
    "__future__", "base64", "binascii", "bisect", "collections", "dataclasses", "decimal", "enum", "flopsd", "fractions", "json",
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


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_imports_run_downwards() -> None:
    """There is an order of all modules in which each imports only earlier ones; imports in functions count too."""
    graph = {name: imports(tree) - {"flopsd"} for name, tree in modules().items()}
    try:
        TopologicalSorter({name: {i for i in found if i in graph} for name, found in graph.items()}).prepare()
    except CycleError as cycle:
        raise AssertionError(f"these import each other in a ring: {' -> '.join(cycle.args[1])}") from None
    for name, found in graph.items():
        for imported in found:
            for room, above in ONLY_BY.items():
                if imported == room or imported.startswith(f"{room}."):
                    assert name.startswith(above), f"{name} imports {imported}, which is above it"
            if name.startswith(DRIVERS):
                assert not imported.startswith("flopsd.") or imported.split(".")[-1] not in NOT_FOR_DRIVERS, (
                    f"{name}: {imported}"
                )


def test_the_core_is_pure() -> None:
    for name, tree in modules().items():
        if name.startswith("flopsd.core"):
            used = {imported.split(".")[0] for imported in imports(tree)}
            assert used <= PURE_IMPORTS, f"{name} imports {sorted(used - PURE_IMPORTS)}"
            inside = {imported for imported in imports(tree) if imported.startswith("flopsd.")}
            assert all(i.startswith("flopsd.core") or i == "flopsd.errors" for i in inside), f"{name} imports {inside}"


def test_only_the_clock_reads_time() -> None:
    for name, tree in modules().items():
        if name == "flopsd.clock":
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
    for name, tree in modules().items():
        if name == "flopsd.cli":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("exit", "_exit"):
                raise AssertionError(f"{name} line {node.lineno} exits")
            if isinstance(node, ast.Name) and node.id == "SystemExit":
                raise AssertionError(f"{name} line {node.lineno} exits")


def test_nothing_happens_at_import() -> None:
    """At module level stand only definitions, imports and constants."""
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Expr, ast.If)
    for name, tree in modules().items():
        for node in tree.body:
            assert isinstance(node, allowed), f"{name} line {node.lineno}"
            if isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant), f"{name} line {node.lineno} does something at import"
