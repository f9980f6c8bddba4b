"""The tool that plants faults: which faults it plants, which a test kills, which survive, and which are listed as
equivalent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import campaign
from tests.mutants.campaign import Campaign
from tests.mutants.faults import ANY_NUMBER, LIST, faults, read_equivalent
from tests.support.paths import ROOT

pytestmark = pytest.mark.maintainer
SAMPLE = '''"""A module."""
LIMIT = 3


def bounded(value: int, least: int = 0) -> int:
    """Docstrings are left alone."""
    if value < least:
        raise ValueError("too small")
    return capped(value, LIMIT)


def capped(value: int, limit: int) -> int:
    return min(value, limit)


def unused(flag: bool) -> int:
    return 1 if not flag else 2
'''
TESTS = """import pytest
from sample.module import bounded

def test_it_is_bounded_above():
    assert bounded(5) == 3

def test_it_refuses_what_is_too_small():
    with pytest.raises(ValueError):
        bounded(-1)
"""
SHARING_TESTS = """import subprocess, sys
from functools import cache
import pytest
from sample.module import bounded

@pytest.fixture(scope="module")
def refused():
    with pytest.raises(ValueError):
        bounded(-1)

@cache
def five():
    return bounded(5)

def test_given_a_fixture(refused):
    pass

def test_given_a_value():
    assert five() == 3

def test_given_it_again():
    assert five() == 3

def test_starts_a_process():
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_elsewhere():
    pass
"""
ENDLESS = """import threading

def spin(value: int) -> None:
    while value < 0:
        pass

def wait(value: int) -> None:
    if value < 0:
        threading.Event().wait()
"""
ENDLESS_TESTS = """import pytest
from sample import module

@pytest.mark.parametrize("name", ["spin", "wait"])
def test_it_ends(name):
    getattr(module, name)(1)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "module.py").write_text(SAMPLE)
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_module.py").write_text(TESTS)
    return tmp_path


def test_the_faults_of_a_module_are_found(project: Path) -> None:
    found = {(fault.kind, fault.before, fault.after) for fault in faults(project, "sample/module.py")}
    assert found == {
        ("off by one", "LIMIT = 3", "LIMIT = 4"),
        (
            "off by one",
            "def bounded(value: int, least: int = 0) -> int:",
            "def bounded(value: int, least: int = 1) -> int:",
        ),
        ("condition always True", "if value < least:", "if True:"),
        ("condition always False", "if value < least:", "if False:"),
        ("comparison flipped", "if value < least:", "if value >= least:"),
        ("boundary moved", "if value < least:", "if value <= least:"),
        ("refusal removed", 'raise ValueError("too small")', "pass"),
        ("returns None", "return capped(value, LIMIT)", "return None"),
        ("arguments swapped", "return capped(value, LIMIT)", "return capped(LIMIT, value)"),
        ("returns None", "return min(value, limit)", "return None"),
        ("returns None", "return 1 if not flag else 2", "return None"),
        ("condition always True", "return 1 if not flag else 2", "return 1 if True else 2"),
        ("condition always False", "return 1 if not flag else 2", "return 1 if False else 2"),
        ("not dropped", "return 1 if not flag else 2", "return 1 if (flag) else 2"),
        ("off by one", "return 1 if not flag else 2", "return 2 if not flag else 2"),
        ("off by one", "return 1 if not flag else 2", "return 1 if not flag else 3"),
    }


def test_every_fault_of_a_module_compiles() -> None:
    source = (ROOT / "flopsd/core/meter.py").read_bytes()
    for fault in faults(ROOT, "flopsd/core/meter.py"):
        assert fault.plant(source) != source
        compile(fault.plant(source), fault.path, "exec")


def test_a_campaign_prints_the_survivors_and_the_figures(project: Path) -> None:
    """The tests reach 10 of 16 possible faults and kill 7; this seed takes 4 of the 10, and 2 of these survive."""
    command = [sys.executable, "-m", "tests.mutants", "--root", str(project), "--package", "sample", "--jobs", "1"]
    ran = subprocess.run(
        [*command, "--count", "4", "--seed", "0"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        # Plug-ins of other packages: the sample has no pyproject.toml to keep them out.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p no:anyio -p no:cloudcoil"},
    )  # fmt: skip
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    survived = [line for line in ran.stdout.splitlines() if line.startswith("+ ")]
    assert sorted(survived) == ["+ if value <= least:", "+ return capped(LIMIT, value)"]
    assert ran.stdout.splitlines()[-1].split() == ["all", "16", "6", "4", "2", "0", "2", "50.0", "%"]
    assert (project / "sample" / "module.py").read_text() == SAMPLE


@pytest.mark.parametrize(
    ("kind", "met"),
    [
        ("refusal removed", {"fixture", "value", "again", "process", "elsewhere"}),  # in the fixture, so by all
        ("arguments swapped", {"value", "again", "process"}),
        ("off by one", {"fixture", "value", "again", "process", "elsewhere"}),  # at import
    ],
)
def test_a_fault_is_run_against_the_tests_that_may_execute_it(
    kind: str, met: set[str], project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:anyio -p no:cloudcoil")
    (project / "tests" / "unit" / "test_module.py").write_text(SHARING_TESTS)
    reach = Campaign(project, "sample", tmp_path_factory.mktemp("copies"), 1).reach(
        ["tests/unit/test_module.py"], print
    )
    fault = next(fault for fault in faults(project, "sample/module.py") if fault.kind == kind)
    names = [test.name for tests in reach.chosen(fault).values() for test in tests]
    assert {name.rpartition("_")[2] for name in names} == met
    assert len(names) == len(met)


def test_an_endless_test_is_killed_by_its_cpu_time_or_when_idle(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:anyio -p no:cloudcoil")
    for name, seconds in (("STARTUP_SECONDS", 2), ("IDLE_SECONDS", 2), ("MOST_IDLE_TIMES", 100)):
        monkeypatch.setattr(campaign, name, seconds)
    (project / "sample" / "module.py").write_text(ENDLESS)
    (project / "tests" / "unit" / "test_module.py").write_text(ENDLESS_TESTS)
    run = Campaign(project, "sample", tmp_path_factory.mktemp("copies"), 1)
    reach = run.reach(["tests/unit/test_module.py"], print)
    flipped = [fault for fault in faults(project, "sample/module.py") if fault.kind == "comparison flipped"]
    found = {outcome.fault.function: (outcome.verdict, outcome.by) for outcome in run.plant(flipped, reach)}
    assert found == {"spin": ("killed", "out of CPU time"), "wait": ("killed", "waits for ever")}


def test_an_equivalent_fault_has_a_reason() -> None:
    text = "# a comment\n\nflopsd/a.py f\n- x < 1\n+ x <= 1\n= x is never 1\n"
    assert read_equivalent(text) == {("flopsd/a.py", "f", "x < 1", "x <= 1"): "x is never 1"}
    with pytest.raises(ValueError, match="an entry is"):
        read_equivalent(text.replace("= x", "x"))
    listed = read_equivalent(LIST.read_text())
    assert all(listed.values())
    planted = [fault.key for path in {key[0] for key in listed} for fault in faults(ROOT, path)]
    possible = {*planted, *((*key[:3], ANY_NUMBER) for key in planted)}
    assert listed.keys() - possible == set(), "no code has these lines, or they are not changed so"


def test_an_equivalent_entry_can_allow_any_other_number() -> None:
    known = read_equivalent("flopsd/a.py \n- WAIT, TRIES = 2.5, 3\n+ any other number\n= only time\n")
    afters = ("WAIT, TRIES = 5.0, 3", "WAIT, TRIES = 2.5, 4", "WAIT, TRIES = 5.0, 4", "WAIT, TRIES = None, 3")
    assert [("flopsd/a.py", "", "WAIT, TRIES = 2.5, 3", after) in known for after in afters] == [
        True,
        True,
        False,
        False,
    ]
    assert ("flopsd/b.py", "", "WAIT, TRIES = 2.5, 3", afters[0]) not in known
