"""Faults of the second implementation: a changed comparison, sum, condition, bound or check."""

import ast
import contextlib
import copy
import io
import json
import sys
import types
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from conformance.vectors import Vector
from tests.second_implementation import verify as second
from tests.support.story import VECTORS
from tests.support.vector_arguments import arguments_of
from tests.vector_mutants.faults import Fault, numbered, shortened

FOLDER, PACKAGE = Path(second.__file__).parent, "tests.second_implementation"
# In the order of their imports. `rows` is excluded: it writes `rows.json`, on which no verdict depends.
MODULES = (
    "codes", "rates", "arithmetic", "laws", "reasons",
    "findings", "shapes", "architecture", "operators",
    "ledger", "merged", "missing", "contradictions",
    "statement", "jobs", "verify",
)  # fmt: skip
# Functions that are not rules of the format: a command line, names of files, and helpers for tests.
NOT_RULES = {
    "main", "recompute", "stated", "_counted", "_shaped", "payload_of", "records_of", "fork", "line",
}  # fmt: skip
OTHER: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
SWAPPED = {"min": "max", "max": "min", "floor": "ceil", "ceil": "floor", "all": "any", "any": "all", "sum": "len"}
Verdicts = dict[str, tuple[int, str | None]]


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse((FOLDER / f"{module}.py").read_text())


@cache
def code_of(module: str) -> types.CodeType:
    return compile(tree_of(module), f"{module}.py", "exec")


def faults() -> list[Fault]:
    """Every possible fault."""
    return [fault for module in MODULES for fault in faults_of(module)]


def faults_of(module: str) -> Iterator[Fault]:
    return numbered(_found_in(module))


def _found_in(module: str) -> Iterator[tuple[str, str, str, str, str, int, int]]:
    tree = tree_of(module)
    left_out = set(_no_rules(tree))
    lines = (FOLDER / f"{module}.py").read_text().splitlines()
    names = {id(node): name for name, node in _within(tree, "")}
    for at, node in enumerate(ast.walk(tree)):
        if id(node) in left_out:
            continue
        for kind in _kinds(node):
            number = getattr(node, "lineno", 0)
            text = shortened(ast.unparse(node))
            yield f"{module}.py", names[id(node)], kind, text, lines[number - 1].strip(), number, at


def _within(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    """Each node with its enclosing function."""
    for one in ast.iter_child_nodes(node):
        inner = f"{name}.{one.name}".lstrip(".") if isinstance(one, ast.FunctionDef | ast.ClassDef) else name
        yield inner, one
        yield from _within(one, inner)


def _no_rules(tree: ast.Module) -> Iterator[int]:
    """Nodes of annotations, texts, paths of errors, and other code without rules."""
    for node in ast.walk(tree):
        skipped: list[ast.AST] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in NOT_RULES:
            skipped.append(node)
        elif isinstance(node, ast.FunctionDef):
            skipped += [one for one in (*node.args.args, *node.args.kwonlyargs, node.returns) if one is not None]
        elif isinstance(node, ast.AnnAssign):
            skipped.append(node.annotation)
        elif isinstance(node, ast.Assert | ast.Raise | ast.JoinedStr | ast.ExceptHandler | ast.Import | ast.ImportFrom):
            skipped.append(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("need", "ok", "take"):
            skipped += node.args[1:]
        elif (
            isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr)
        ):
            skipped.append(node)  # a type
        for one in skipped:
            yield from map(id, ast.walk(one))


def _kinds(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OTHER:
        yield "another comparison"
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OTHER:
        if not (
            isinstance(node, ast.BinOp)
            and any(isinstance(one, ast.List | ast.Tuple) for one in (node.left, node.right))
        ):
            yield "another operator"
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "one more"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not left out"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in ("need", "ok"):
            yield "check left out"
        elif node.func.id in SWAPPED:
            yield "another function"
    elif isinstance(node, ast.IfExp):
        yield "the other branch"
    elif isinstance(node, ast.If) and not node.orelse:
        yield "condition never true"


def broken(fault: Fault) -> types.CodeType:
    """The module with that fault."""
    module = fault.module.removesuffix(".py")
    tree = copy.deepcopy(tree_of(module))
    node: Any = next(one for at, one in enumerate(ast.walk(tree)) if at == fault.change)
    if fault.kind == "another comparison":
        node.ops = [OTHER[type(node.ops[0])]()]
    elif fault.kind == "another operator":
        node.op = OTHER[type(node.op)]()
    elif fault.kind == "one more":
        node.value += 1
    elif fault.kind == "check left out":
        node.args[0] = ast.copy_location(ast.Constant(True), node)
    elif fault.kind == "another function":
        node.func.id = SWAPPED[node.func.id]
    elif fault.kind == "the other branch":
        node.body, node.orelse = node.orelse, node.body
    elif fault.kind == "not left out":
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    else:
        node.test = ast.Constant(False)
    return compile(ast.fix_missing_locations(tree), fault.module, "exec")


def load(fault: Fault) -> Any:
    """The second verifier's module, in this process, with the fault."""
    for module in MODULES:
        name = f"{PACKAGE}.{module}"
        fresh = types.ModuleType(name)
        fresh.__package__, fresh.__file__ = PACKAGE, str(FOLDER / f"{module}.py")
        sys.modules[name] = fresh
        setattr(sys.modules[PACKAGE], module, fresh)
        exec(broken(fault) if fault.module == f"{module}.py" else code_of(module), fresh.__dict__)
    return sys.modules[f"{PACKAGE}.verify"]


def verdict(verifier: Any, vector: Vector, root: Path = VECTORS) -> tuple[int, str | None]:
    """Exit status and reason; a partial verification counts as a complete one. A fault that stops the program is a
    verdict of its own."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            status = verifier.main(arguments_of(vector, root))
        code = json.loads(out.getvalue())["code"]
    except Exception as fault:  # noqa: BLE001
        return -1, type(fault).__name__
    return (0 if status == 5 else status), code


def baseline(vectors: Sequence[Vector]) -> Verdicts:
    return {vector.name: verdict(second, vector) for vector in vectors}


def noticing(fault: Fault, vectors: Sequence[Vector], expected: Verdicts) -> str | None:
    """The first vector whose verdict the fault changes, None if none does; for a process of its own."""
    try:
        verifier = load(fault)
    except Exception:  # noqa: BLE001 - it does not even load
        return "(it does not load)"
    return next((one.name for one in vectors if verdict(verifier, one) != expected[one.name]), None)
