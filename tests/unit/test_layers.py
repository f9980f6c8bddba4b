"""The house rules that a reader relies on: imports run downwards, only clock.py reads time, only cli.py exits."""

from __future__ import annotations

import ast
from pathlib import Path

import flopsd

ROOT = Path(flopsd.__file__).parent
# A module may import those of lower floors, and `sources` never each other.
FLOORS = (
    ("errors", "__init__", "core.rounding", "core.guidelines_estimate", "core.times"),
    ("core.model", "core.flop", "core.integral", "clock", "ownership", "evidence"),
    ("places",),
    (
        "core.meter",
        "core.peaks",
        "core.account",
        "core.envelope",
        "core.codec",
        "core.declared",
        "core.strict",
        "ownership.rule",
        "neuron",
    ),
    (
        "core.rules",
        "core.figures",
        "core.records",
        "context",
        "parse",
        "ownership.matching",
        "neuron.stream",
        "neuron.sysfs",
    ),
    (
        "core.conditions",
        "core.form_words",
        "core.ledger",
        "snapshot",
        "framing",
        "settings",
        "dcgm",
        "dcgm.text",
        "neuron.account",
        "neuron.process",
        "neuron.chips",
    ),
    ("core.sums", "core.completeness", "core.policy", "core.form"),
    ("core.children", "core.forecast"),
    ("core.claims", "core.job"),
    ("ownership.nvml", "ownership.podresources", "ownership.asking", "ownership.rejoin", "neuron.totals"),
    ("ownership.visible", "ownership.kubernetes", "ownership.hpc", "ownership.processes"),
    ("config", "journal", "logfile", "sources", "roster", "nvidia", "nvidia.driver", "nvidia.library", "nvidia.scale"),
    ("policies", "dcgm.work", "ownership.source", "nvidia.clocks", "nvidia.gpm", "nvidia.mig", "nvidia.utilization"),
    ("ownership.opening", "nvidia.activity", "dcgm.gpu", "neuron.source"),
    ("dcgm.source",),
    (
        "sources.nvml",
        "sources.dcgm",
        "sources.neuron",
        "sources.replay",
        "outbox",
        "watched",
        "runs",
        "anchors",
        "exporter",
        "testing.fakes",
        "testing.imports",
        "testing.rules",
    ),
    ("writer",),
    ("daemon", "web", "launch", "testing.contract", "signing", "files", "prefix", "rolling", "delivery"),
    ("placing", "storage"),
    ("storage.s3",),
    ("storage.copies",),
    ("signing.public", "signing.uri", "signing.secrets"),
    ("signing.base",),
    ("signing.pem", "signing.kms", "signing.hsm", "signing.dsse"),
    ("evidence.item", "evidence.reading", "evidence.bounded", "evidence.web"),
    ("evidence.trust", "evidence.pkcs7"),
    ("evidence.identity", "evidence.spdm", "evidence.library", "evidence.package", "evidence.sagemaker"),
    ("evidence.timestamp",),
    ("evidence.collecting",),
    ("evidence.checking",),
    ("signing.keys",),
    ("signing.bundle",),
    ("seal",),
    ("verify", "testing"),
    ("countersign", "recipe"),
    ("report", "merge", "merge.places", "merge.spool", "merge.writing", "merge.adding"),
    ("merge.archive",),
    ("merge.s3",),
    ("merge.inputs", "merge.children"),
    ("merge.merging", "merge.checking"),
    ("merge.report", "reporting", "reporting.numbers", "reporting.reading"),
    ("reporting.charts",),
    ("reporting.model",),
    ("reporting.verdicts", "reporting.figures", "reporting.coverage", "reporting.declared", "reporting.proof"),
    ("reporting.parts", "reporting.forms", "reporting.checking", "reporting.text", "reporting.html"),
    ("reporting.build",),
    ("service",),
    ("seal_live",),
    ("status", "survey"),
    ("doctor",),
    ("verbs",),
    (
        "verbs.metering",
        "verbs.sealing",
        "verbs.verifying",
        "verbs.looking",
        "verbs.keys",
        "verbs.exporting",
        "verbs.merging",
    ),
    ("verbs.reporting",),
    ("cli",),
    ("__main__",),
)
FLOOR = {f"flopsd.{name}".removesuffix(".__init__"): floor for floor, names in enumerate(FLOORS) for name in names}
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
    for name, tree in modules().items():
        if name == "flopsd.core":
            continue
        assert name in FLOOR, f"{name} has no floor: give it one in this test"
        for imported in imports(tree):
            if imported.startswith("flopsd") and imported != "flopsd":
                assert FLOOR[imported] < FLOOR[name], f"{name} imports {imported}, which is not below it"


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
