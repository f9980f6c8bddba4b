"""Every deliberate fault that can be planted in a module, found through its syntax tree."""

import ast
import re
from dataclasses import dataclass
from itertools import accumulate
from operator import ne
from pathlib import Path

LIST = Path(__file__).with_name("equivalent.txt")
Key = tuple[str, str, str, str]
_OPPOSITES: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: ">=", ast.GtE: "<", ast.Gt: "<=", ast.LtE: ">",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
_BOUNDARIES: dict[type[ast.cmpop], str] = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "//"), ast.FloorDiv: ("//", "*"),
}  # fmt: skip
_LOGGERS = frozenset({"debug", "info", "warning", "error", "exception", "log"})
ANY_NUMBER, _NUMBER = "any other number", re.compile(r"\b[0-9][0-9_.e+]*")
_COMMENT = re.compile(r"  # .*$", re.MULTILINE)
_NOT_SWAPPED = frozenset({"isinstance", "issubclass", "cast", "min", "max"})


@dataclass(frozen=True)
class Fault:
    """One change of one module: the bytes from `begin` to `end` become `text`."""

    path: str  # relative to the tree
    function: str  # qualified name; "" for code that runs at import
    kind: str
    begin: int
    end: int
    text: str
    lines: range  # line numbers of the changed code, from 1
    before: str  # the source lines that change, joined into one line without comments
    after: str

    @property
    def key(self) -> Key:
        """Its name in the list of equivalent faults, without line numbers, which change too often."""
        return self.path, self.function, self.before, self.after

    @property
    def room(self) -> str:
        """The folder or module of the package's root in which it lies."""
        return Path(self.path).parts[1].removesuffix(".py")

    def plant(self, source: bytes) -> bytes:
        return source[: self.begin] + self.text.encode() + source[self.end :]


def faults(root: Path, path: str) -> list[Fault]:
    """The faults that can be planted in the module at `root / path`, in the order of its source."""
    source = (root / path).read_bytes()
    found = _Finder(path, source)
    found.visit(ast.parse(source))
    return sorted(set(found.faults), key=lambda fault: (fault.begin, fault.end, fault.text))


class _Finder(ast.NodeVisitor):
    """Omits code without effect on behaviour: annotations, docstrings, log lines, and the text of errors."""

    def __init__(self, path: str, source: bytes) -> None:
        self.faults: list[Fault] = []
        self._path, self._source = path, source
        self._starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
        self._names: list[str] = []
        self._depth = 0  # number of enclosing functions

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr) -> str:
        return self._source[slice(*self._span(node))].decode()

    def _add(self, kind: str, node: ast.expr | ast.stmt, text: str, span: tuple[int, int] | None = None) -> None:
        begin, end = span or self._span(node)
        line_begin, line_end = self._source.rfind(b"\n", 0, begin) + 1, self._source.find(b"\n", end) + 1
        before = self._source[line_begin:line_end].decode()
        after = (self._source[line_begin:begin] + text.encode() + self._source[end:line_end]).decode()
        function = ".".join(self._names) if self._depth else ""
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        # Without comments: rewording one does not change the fault.
        texts = (" ".join(_COMMENT.sub("", source).split()) for source in (before, after))
        self.faults.append(Fault(self._path, function, kind, begin, end, text, lines, *texts))

    # Scopes

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)  # runs with the enclosing scope
        self._names.append(node.name)
        self._depth += 1
        self.visit_Module(node)
        self._depth -= 1
        self._names.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._names.append(node.name)
        self.visit_Module(node)
        self._names.pop()

    def visit_Module(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> None:
        for statement in node.body:
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                self.visit(statement)

    # Excluded code

    def visit_JoinedStr(self, node: ast.JoinedStr | ast.Assert) -> None:
        """Positions within it are wrong before Python 3.12; an assertion has no effect under -O."""

    visit_Assert = visit_JoinedStr  # noqa: N815

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add("refusal removed", node, "pass")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Attribute) and node.value is not None:
            self._add("statement removed", node, "pass")
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute) for target in node.targets):
            self._add("statement removed", node, "pass")
        self.generic_visit(node)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._condition(node.test)
        self.generic_visit(node)

    visit_IfExp = visit_If  # noqa: N815

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
        words, sides = _ARITHMETIC.get(type(node.op)), (node.left, node.right)
        constants = [side.value for side in sides if isinstance(side, ast.Constant)]
        is_text = any(isinstance(each, ast.JoinedStr | str | bytes) for each in [*sides, *constants])
        if words is not None and not is_text:
            self._operator("arithmetic", node, sides, *words)
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
        # Every type check would fail; the minimum of two is the same in either order.
        kept = isinstance(node.func, ast.Name) and node.func.id in _NOT_SWAPPED
        if len(node.args) > 1 and not kept and not isinstance(node.args[0], ast.Starred):
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
        if isinstance(value, ast.Constant) and isinstance(value.value, bool):  # None would often be as good as False
            self._add("returns the opposite", value, str(not value.value))
        elif value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            self._add("returns None", value, "None")
        self.generic_visit(node)


class Equivalent(dict[Key, str]):
    """Reasons by `Fault.key`; a key with ANY_NUMBER covers each fault that changes one number."""

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, tuple) or super().__contains__(key):
            return isinstance(key, tuple)
        path, function, before, after = key
        numbers = [_NUMBER.findall(before), _NUMBER.findall(after)]
        one_number = _NUMBER.sub("", before) == _NUMBER.sub("", after) and sum(map(ne, *numbers)) == 1
        return one_number and super().__contains__((path, function, before, ANY_NUMBER))


def read_equivalent(text: str) -> Equivalent:
    """The faults that no test can find, since the changed code has no effect.

    An entry is four lines: path and function, `- before`, `+ after` (or `+ ANY_NUMBER`), `= reason`.
    """
    found = Equivalent()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for where, before, after, reason in zip(*[iter(lines)] * 4, strict=True):
        if not (before.startswith("- ") and after.startswith("+ ") and reason.startswith("= ")):
            raise ValueError(f"an entry is path and function, '- ', '+ ' and '= ': {where}")
        path, _, function = where.partition(" ")
        found[path, function, before[2:], after[2:]] = reason[2:]
    return found
