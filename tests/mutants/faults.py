"""Every deliberate fault that can be planted in a module, found in its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("equivalent.txt")
Key = tuple[str, str, str, str]
_OPPOSITES: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: ">=",
    ast.GtE: "<",
    ast.Gt: "<=",
    ast.LtE: ">",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
_BOUNDARIES: dict[type[ast.cmpop], str] = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
_ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*"}
_LOGGERS = frozenset({"debug", "info", "warning", "error", "exception", "log"})
_TYPE_CHECKS = frozenset({"isinstance", "issubclass", "cast"})


@dataclass(frozen=True)
class Fault:
    """One change of one module: the bytes from `begin` to `end` become `text`."""

    path: str  # relative to the tree
    function: str  # qualified name; "" for code that runs at import
    kind: str
    begin: int
    end: int
    text: str
    lines: range  # where the code that changes stands, from 1
    before: str  # the source lines that change, on one line
    after: str

    @property
    def key(self) -> Key:
        """What the list of equivalent faults names it by: line numbers change too often."""
        return self.path, self.function, self.before, self.after

    def plant(self, source: bytes) -> bytes:
        return source[: self.begin] + self.text.encode() + source[self.end :]


def faults(root: Path, path: str) -> list[Fault]:
    """The faults that can be planted in the module at `root / path`, in the order of its source."""
    source = (root / path).read_bytes()
    found = _Finder(path, source)
    found.visit(ast.parse(source))
    return sorted(set(found.faults), key=lambda fault: (fault.begin, fault.end, fault.text))


class _Finder(ast.NodeVisitor):
    """Leaves out what has no effect on behaviour: annotations, docstrings, log lines, the text of errors."""

    def __init__(self, path: str, source: bytes) -> None:
        self.faults: list[Fault] = []
        self._path = path
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._names: list[str] = []
        self._depth = 0  # of functions

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def _text(self, node: ast.expr | ast.stmt) -> str:
        begin, end = self._span(node)
        return self._source[begin:end].decode()

    def _add(self, kind: str, node: ast.expr | ast.stmt, text: str, span: tuple[int, int] | None = None) -> None:
        begin, end = span or self._span(node)
        first = self._source.count(b"\n", 0, begin)
        last = self._source.count(b"\n", 0, end)
        line_begin, line_end = self._starts[first], self._starts[last + 1]
        before = self._source[line_begin:line_end].decode()
        after = (self._source[line_begin:begin] + text.encode() + self._source[end:line_end]).decode()
        assert node.end_lineno is not None
        self.faults.append(
            Fault(
                path=self._path,
                function=".".join(self._names) if self._depth else "",
                kind=kind,
                begin=begin,
                end=end,
                text=text,
                lines=range(node.lineno, node.end_lineno + 1),
                before=" ".join(before.split()),
                after=" ".join(after.split()),
            )
        )

    # Scopes

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)  # runs with the enclosing scope
        self._names.append(node.name)
        self._depth += 1
        self._body(node.body)
        self._depth -= 1
        self._names.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._names.append(node.name)
        self._body(node.body)
        self._names.pop()

    def visit_Module(self, node: ast.Module) -> None:
        self._body(node.body)

    def _body(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                self.visit(statement)

    # What is left out

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Positions within it are wrong before Python 3.12."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """Means nothing under -O."""

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add("refusal removed", node, "pass")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Attribute) and node.value is not None:
            self._add("statement removed", node, "pass")
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(isinstance(target, ast.Name) and target.id in ("__all__", "__slots__") for target in node.targets):
            return
        if all(isinstance(target, ast.Attribute) for target in node.targets):
            self._add("statement removed", node, "pass")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._condition(node.test)
        self.generic_visit(node)

    # Faults

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add("statement removed", node, "pass")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value
        if isinstance(call, ast.Call):
            if isinstance(call.func, ast.Attribute) and call.func.attr in _LOGGERS:
                return
            self._add("statement removed", node, "pass")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self._condition(condition)
        self.generic_visit(node)

    def _condition(self, test: ast.expr) -> None:
        for value in ("True", "False"):
            self._add(f"condition always {value}", test, value)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            between = (self._span(left)[1], self._span(right)[0])
            brackets = self._source[between[0] : between[1]].decode()
            for kind, table in (("comparison flipped", _OPPOSITES), ("boundary moved", _BOUNDARIES)):
                other = table.get(type(operator))
                if other is not None and not set(brackets) & set("()#\n"):
                    self._add(kind, node, f" {other} ", between)
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._operator("and, or swapped", node, (left, right), word, other)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        other = _ARITHMETIC.get(type(node.op))
        texts = [part for part in (node.left, node.right) if _is_text(part)]
        if other is not None and not texts:
            word = {"-": "+", "+": "-", "//": "*", "*": "//"}[other]
            self._operator("arithmetic", node, (node.left, node.right), word, other)
        self.generic_visit(node)

    def _operator(self, kind: str, node: ast.expr, sides: tuple[ast.expr, ast.expr], word: str, other: str) -> None:
        begin, end = self._span(sides[0])[1], self._span(sides[1])[0]
        between = self._source[begin:end].decode()
        if between.count(word) == 1 and "#" not in between:
            self._add(kind, node, between.replace(word, other), (begin, end))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add("not dropped", node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if type(node.value) is int:
            self._add("off by one", node, str(node.value + 1))
        elif type(node.value) is float:
            self._add("doubled", node, repr(node.value * 2 or 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        checks_type = isinstance(node.func, ast.Name) and node.func.id in _TYPE_CHECKS  # every call of it would fail
        if len(node.args) > 1 and not checks_type and not isinstance(node.args[0], ast.Starred):
            first, second = node.args[:2]
            texts = self._text(first), self._text(second)
            if not isinstance(second, ast.Starred) and texts[0] != texts[1]:
                begin, end = self._span(first)[0], self._span(second)[1]
                between = self._source[self._span(first)[1] : self._span(second)[0]].decode()
                if "#" not in between and not isinstance(second, ast.GeneratorExp):
                    self._add("arguments swapped", node, texts[1] + between + texts[0], (begin, end))
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        value = node.value
        if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            self._add("returns None", value, "None")
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.value, ast.Name) and node.value.id == "Literal":
            return
        self.generic_visit(node)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def rooms(found: Iterator[Fault] | list[Fault]) -> dict[str, list[Fault]]:
    """The faults by the folder or module of the package's root in which they are."""
    by_room: dict[str, list[Fault]] = {}
    for fault in found:
        by_room.setdefault(Path(fault.path).parts[1].removesuffix(".py"), []).append(fault)
    return by_room


def read_equivalent(text: str) -> dict[Key, str]:
    """The faults that no test can find, since what they change has no effect: reasons by `Fault.key`.

    An entry is four lines: path and function, `- before`, `+ after`, `= reason`."""
    found: dict[Key, str] = {}
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for where, before, after, reason in zip(*[iter(lines)] * 4, strict=True):
        if not (before.startswith("- ") and after.startswith("+ ") and reason.startswith("= ")):
            raise ValueError(f"an entry is path and function, '- ', '+ ' and '= ': {where}")
        path, _, function = where.partition(" ")
        found[path, function, before[2:], after[2:]] = reason[2:]
    return found
