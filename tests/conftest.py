"""Shared fixtures, hypothesis profiles, the choice of tests that a machine can run, and the record of those that
passed before."""

import gc
import os
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.scenario import compile_standin
from tests.support.slices import mark_all_but_slices
from tests.support.tools import check_markers

# The default run and CI judge a change by the same examples each time; `make test-all` tries new ones. The time to
# make an example depends on the machine's load, so it is not checked.
EVERY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", EVERY, max_examples=10, derandomize=True)
settings.register_profile("quick", EVERY, max_examples=20, derandomize=True)
settings.register_profile("default", EVERY, max_examples=100)
settings.register_profile("thorough", EVERY, max_examples=1000)
settings.load_profile(os.environ.get("FLOPSD_HYPOTHESIS", "default"))
# PyTorch in several processes at once: threads of one process that wait for each other would take the cores from the
# others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Stand-ins for programs begin with `env python3`.
os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
# A test leaves little garbage beside the objects that pytest keeps, and scanning those takes a fifth of a run's time.
gc.set_threshold(200_000, 20, 20)
# A command run in this process would lower its priority, and that of all programs that later tests start.
os.nice = lambda _: 0
# A file of names: tests in it are not run again, and files in it are not read. Tests that pass are added.
PASSED_FILE = os.environ.get("FLOPSD_PASSED_TESTS")
# Tests that one worker runs one after another, because what they share is expensive: grouped by file, by fixture, and
# by marks elsewhere. For a file, the number of workers: one alone would run those of S3 for as long as all others take.
SHARING = {"test_s3": 2, "test_kms": 1, "test_rooms": 1}
FIXTURES = ("scripts", "browser", "dist")
LONG = {"minute", "training"}
LONGEST_ID = 60


@cache
def passed_before() -> frozenset[str]:
    if PASSED_FILE is None or not Path(PASSED_FILE).exists():
        return frozenset()
    return frozenset(Path(PASSED_FILE).read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a freshly compiled stand-in for libnvidia-ml.so.1."""
    return compile_standin(tmp_path_factory.mktemp("standin")).parent


def pytest_make_parametrize_id(val: object) -> str | None:
    """Only the beginning of a long text: each worker keeps all names and sends them, and one of them had six
    megabytes."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_ID:
        return f"{val[:LONGEST_ID]!r}-{len(val)}"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture, including those of a module: a fixture needs the tools of its tests."""
    check_markers(item)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """More workers than cores: many tests wait for a daemon, a scrape or a second to pass."""
    return 3 * len(os.sched_getaffinity(0))


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run long tests first, so that workers take them side by side. Tests that train in their own process stay with
    two workers: loading PyTorch and its dependencies takes each process ten seconds."""
    mark_all_but_slices(items)
    if passed := passed_before():
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
        items[:] = [item for item in items if item.nodeid not in passed]
    of_file = Counter[str]()
    for item in items:
        if shared := [name for name in FIXTURES if name in getattr(item, "fixturenames", ())]:
            item.add_marker(pytest.mark.xdist_group(shared[0]))
        elif item.get_closest_marker("training") is not None and item.path.stem != "test_finetune":
            half = item.path.stem in ("test_flop", "test_callback", "test_intervals")
            item.add_marker(pytest.mark.xdist_group("training" if half else "training-more"))
        elif item.path.stem in SHARING:
            stem = item.path.stem
            item.add_marker(pytest.mark.xdist_group(f"{stem}-{of_file[stem] % SHARING[stem]}"))
            of_file[stem] += 1
    items.sort(key=lambda item: (not LONG & {mark.name for mark in item.iter_markers()}, item.path.stem not in SHARING))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for a file of which every selected test passed in an earlier run."""
    if collection_path.suffix != ".py" or not passed_before():
        return None
    return collection_path.relative_to(config.rootpath).as_posix() in passed_before() or None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Record the tests that passed, also as whole files: the marker `maintainer` applies to whole files."""
    if PASSED_FILE is None or hasattr(terminalreporter.config, "workerinput"):  # a worker knows only its own tests
        return
    passed, others = (
        [report.nodeid for kind in kinds for report in terminalreporter.getreports(kind)]
        for kinds in (["passed"], ["skipped", "failed", "error"])
    )
    whole = {nodeid.split("::")[0] for nodeid in passed} - {nodeid.split("::")[0] for nodeid in others}
    with Path(PASSED_FILE).open("a", encoding="utf-8") as file:
        for nodeid in passed:
            file.write(re.sub(r"@[\w-]+$", "", nodeid) + "\n")  # xdist appends the group
        for name in sorted(whole):
            file.write(f"{name}\n")
