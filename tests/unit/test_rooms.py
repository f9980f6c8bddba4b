"""Rooms and the direction of imports (MAY_IMPORT is the drawing of docs/source-tree.md), and guarantees about any
module: the core is pure, one module reads time, one exits."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import flopsd
from tests.support.paths import ROOT

BELOW_DAEMON = "errors system core settings journal sources attestation report telemetry"
# Each room and the rooms that it may import, lowest first; `flopsd` is the root's `__init__`, for the version.
MAY_IMPORT = {
    "flopsd": "",
    "errors": "",
    "system": "errors",
    "core": "errors",
    "settings": "errors core system",
    "journal": "errors core system",
    "sources": "errors core settings system",
    "attestation": "flopsd errors core journal settings system",
    "report": "errors attestation core journal settings system",
    "telemetry": "flopsd errors core journal report settings system",
    "daemon": f"flopsd {BELOW_DAEMON}",
    "cli": f"flopsd {BELOW_DAEMON} daemon",
    "__main__": "flopsd cli system",
    "client": "flopsd core settings system",
    "integrations": "client core",
    "testing": "errors core settings sources system",
}
# The same for the rooms within core; `""` is its root.
INSIDE_CORE = {"": "", "architecture": " ", "policy": " architecture", "ledger": " architecture policy"}
Modules = dict[str, ast.Module]


@cache
def modules(folder: Path) -> Modules:
    """Every module below the package `folder`, by its dotted name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(), str(path))
    return found


def imports(name: str, known: Modules, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and module of every import of the package's own modules in module `name`, in any form and place."""
    for node in ast.walk(known[name]):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                here = parts[: len(parts) - node.level + is_package]
                base = ".".join([*here, *([node.module] if node.module else [])])
            targets = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A module by its name, or the beginning of an f-string: whatever imports it, now or later.
            text = node.value.rstrip(".")
            targets = [text] if "." in text and text in known and not f"{name}.".startswith(f"{text}.") else []
        for target in targets:
            if target != "flopsd" and not target.startswith("flopsd."):
                continue
            while target not in known and "." in target:  # a name in a module, not a module
                target = target.rpartition(".")[0]
            yield getattr(node, "lineno", 0), target


def room_of(module: str) -> str:
    return [*module.split("."), ""][1] or "flopsd"


def breaches(known: Modules) -> list[str]:
    """The breaches of the direction of imports in a package, a line each."""
    found = []
    graph: dict[str, set[str]] = {}
    packages: dict[str, set[str]] = {}  # within rooms
    parents = {name.rpartition(".")[0] for name in known}
    for name in known:
        room = room_of(name)
        if room not in MAY_IMPORT:
            found.append(f"{name} lies in no room of the drawing")
            continue
        here = list(imports(name, known, is_package=name in parents))
        graph[name] = {target for _, target in here if target in known} - {name, "flopsd"}
        for line, target in here:
            where = f"{name} line {line} imports {target}"
            theirs = room_of(target)
            if theirs != room and theirs not in MAY_IMPORT[room].split(" "):
                found.append(f"{where}: {room} may import {MAY_IMPORT[room] or 'nothing'}")
            if room == theirs == "core":
                inner, other = (part if part in INSIDE_CORE else "" for part in (inside(name), inside(target)))
                if other != inner and other not in INSIDE_CORE[inner].split(" "):
                    found.append(f"{where}: core/{inner} may not import core/{other}")
            mine, its = (package_of(module, parents) for module in (name, target))
            if theirs == room and mine and its and mine != its:
                packages.setdefault(mine, set()).add(its)
    for edges in (graph, packages):
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as cycle:
            found.append(f"these import each other in a circle: {' -> '.join(cycle.args[1])}")
    return found


def package_of(module: str, parents: set[str]) -> str | None:
    """The package within a room that the module is in; None for a module at a room's root."""
    package = ".".join(module.split(".")[:3])
    return package if package.count(".") == 2 and package in parents else None


def inside(module: str) -> str:
    return [*module.split("."), "", ""][2]


def test_imports_run_one_way() -> None:
    assert breaches(modules(Path(flopsd.__file__).parent)) == []


def test_the_root_stays_small() -> None:
    root = Path(flopsd.__file__).parent
    assert len(list(root.glob("*.py"))) <= 5
    assert len([path for path in root.iterdir() if (path / "__init__.py").is_file()]) <= 13


def test_no_two_public_classes_have_one_name() -> None:
    names = Counter(
        statement.name
        for module in modules(Path(flopsd.__file__).parent).values()
        for statement in module.body
        if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_")
    )
    assert [name for name, times in names.items() if times > 1] == []


def test_the_docs_page_has_the_same_drawing() -> None:
    page = (ROOT / "docs" / "source-tree.md").read_text()
    for room, allowed in MAY_IMPORT.items():
        if room not in ("flopsd", "__main__"):
            assert f"| `{room}` | {allowed or '-'} |\n" in page


PLANTED = {
    "at the top": ("core/meter.py", "from flopsd.journal import framing"),
    "in a function": ("core/meter.py", "def f() -> None:\n    from flopsd.journal.framing import frame"),
    "for types only": ("core/meter.py", "if TYPE_CHECKING:\n    import flopsd.journal.framing"),
    "of a room by name": ("core/meter.py", "from flopsd import telemetry"),
    "of a room and others": ("system/clock.py", "from flopsd import __version__, daemon"),
    "relative": ("system/clock.py", "from ..core import model"),
    "relative, of a room": ("system/clock.py", "from .. import core"),
    "relative, in a package": ("system/__init__.py", "from ..core.model import Device"),
    "by name of a longer name's beginning": ("daemon/loop.py", "from flopsd.client import Session"),
    "of the command line": ("daemon/loop.py", "import flopsd.cli.main as main"),
    "of the tests' kit": ("sources/replay.py", "from flopsd.testing.fakes import FakeClock"),
    "under another name": ("sources/replay.py", "from flopsd import journal as j"),
    "by a call": ("sources/replay.py", "import importlib\nimportlib.import_module('flopsd.attestation.seal')"),
    "by a call of another name": (
        "sources/replay.py",
        "from importlib import import_module as f\nf(name='flopsd.cli.main')",
    ),
    "by a text that is used later": (
        "sources/replay.py",
        "WHERE = 'flopsd.cli'\ndef f() -> None:\n    import_module(WHERE)",
    ),
    "of whichever module of a room": (
        "sources/replay.py",
        "def f(name: str) -> None:\n    import_module(f'flopsd.cli.{name}')",
    ),
    "upwards in core": ("core/meter.py", "from flopsd.core.ledger import statement"),
    "sideways in core": ("core/architecture/flop.py", "from flopsd.core.policy.evaluate import Policy"),
    "in a circle": ("core/model.py", "from flopsd.core import meter"),
    "in a circle of packages": ("sources/ownership/cgroup.py", "from flopsd.sources.nvml import driver"),
    "from no room": ("attic/box.py", "x = 1"),
    "from no room of the root": ("helpers.py", "x = 1"),
}


# A small package with the same rooms: the content of its modules, and the empty ones.
SMALL = {
    "core.meter": "from flopsd.core.model import Tally",
    "core.ledger.statement": "from flopsd.core import meter",
    "journal.framing": "from ..core import model",
    "sources.replay": "import flopsd.core.meter",
    "sources.nvml.source": "from flopsd.sources.ownership import job",
    "daemon.loop": "from flopsd import __version__",
}
EMPTY = """system system.clock core core.model core.ledger core.policy core.policy.evaluate core.architecture
core.architecture.flop journal telemetry sources sources.nvml sources.nvml.driver sources.ownership sources.ownership.job
sources.ownership.cgroup daemon client cli cli.main testing testing.fakes attestation
attestation.seal"""


@pytest.mark.parametrize("form", PLANTED)
def test_a_planted_breach_is_caught(form: str) -> None:
    known = {"flopsd": ast.parse("")}
    known |= {f"flopsd.{name}": ast.parse(SMALL.get(name, "")) for name in (*EMPTY.split(), *SMALL)}
    assert breaches(known) == []
    name, text = PLANTED[form]
    planted = "flopsd." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    known[planted] = ast.Module([*known.get(planted, ast.parse("")).body, *ast.parse(text).body], [])
    assert any(planted in breach or "in a circle" in breach for breach in breaches(known))


PURE_IMPORTS = {
    "__future__", "base64", "binascii", "bisect", "collections", "dataclasses", "datetime", "decimal", "enum", "flopsd", "fractions", "functools", "itertools",
    "json", "math", "operator", "re", "typing",
}  # fmt: skip
TIME_READERS = re.compile("(time|monotonic|clock_gettime|perf_counter)(_ns)?|now")
DEFINING = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Expr, ast.If)


def liberties(name: str, tree: ast.Module) -> Iterator[str]:
    """Things that no module may do, as found in one: the core is pure, one module reads time, one exits, an import
    only defines, and no file that cannot be accessed counts as absent."""
    if not ast.get_docstring(tree):
        yield "has no docstring"
    for line in tree.body:
        if not isinstance(line, DEFINING) or (isinstance(line, ast.Expr) and not isinstance(line.value, ast.Constant)):
            yield f"line {line.lineno} does something at import"
    for node in ast.walk(tree):
        imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in imported:
            if name.startswith("flopsd.core") and module.split(".")[0] not in PURE_IMPORTS:
                yield f"imports {module}"
            if module == "time" and name != "flopsd.system.clock":
                yield "imports time"
        if isinstance(node, ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr in ("exists", "is_file", "is_dir", "is_symlink") and ast.unparse(node.value) != "os.path":
                yield f"line {node.lineno} takes what cannot be looked at for absent: see flopsd.system.file_presence"
            if of in ("time", "datetime") and TIME_READERS.fullmatch(node.attr) and name != "flopsd.system.clock":
                yield f"line {node.lineno} reads a clock"
        called = getattr(node, "attr", getattr(node, "id", ""))
        if called in ("exit", "_exit", "SystemExit") and name != "flopsd.cli.main":
            yield f"line {getattr(node, 'lineno', 0)} exits"


def test_every_module_keeps_the_guarantees() -> None:
    found = modules(Path(flopsd.__file__).parent)
    assert [f"{name} {fault}" for name, tree in found.items() for fault in liberties(name, tree)] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = 1", "has no docstring"),
        ("'x'\nprint(1)", "line 2 does something at import"),
        ("'x'\nimport os.path", "imports os.path"),
        ("'x'\nfrom time import time", "imports time"),
        ("'x'\ndef f():\n    datetime.now()", "line 3 reads a clock"),
        ("'x'\ndef f():\n    sys.exit()", "line 3 exits"),
        ("'x'\ndef f():\n    raise SystemExit", "line 3 exits"),
        (
            "'x'\ndef f():\n    path.is_dir()",
            "line 3 takes what cannot be looked at for absent: see flopsd.system.file_presence",
        ),
    ],
)
def test_a_planted_violation_is_caught(text: str, fault: str) -> None:
    assert fault in set(liberties("flopsd.core.meter", ast.parse(text)))
