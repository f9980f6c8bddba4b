"""Shared fixtures: the compiled stand-in, and the rule that a missing tool fails where tools are required."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.scenario import compile_standin

BESIDE_PYTHON = str(Path(sys.executable).parent)  # where pip puts the tools that it installs
settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile("thorough", deadline=None, max_examples=1000)
# CI judges a change by the same examples each time; what is new is looked for by the other two.
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
_IN_CI = os.environ.get("FLOPSD_REQUIRE_TOOLS") == "1"
settings.load_profile(os.environ.get("FLOPSD_HYPOTHESIS", "ci" if _IN_CI else "default"))


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a freshly compiled stand-in for libnvidia-ml.so.1."""
    return compile_standin(tmp_path_factory.mktemp("standin")).parent


@pytest.fixture(autouse=True)
def _tools(request: pytest.FixtureRequest) -> None:
    for marker in request.node.iter_markers("tool"):
        for name in marker.args:
            if shutil.which(name) is None and shutil.which(name, path=BESIDE_PYTHON) is None:
                _missing(name)
    for marker in request.node.iter_markers("package"):
        for name in marker.args:
            if not _is_importable(name):
                _missing(f"the Python package {name}")
    for marker in request.node.iter_markers("training"):
        for name in ("torch", *marker.args):
            if importlib.util.find_spec(name) is None:
                _missing(name)


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a parent of it
        return False


def _missing(name: str) -> None:
    message = f"{name} is not installed"
    if os.environ.get("FLOPSD_REQUIRE_TOOLS") == "1":
        pytest.fail(message + ", and this run requires all tools")
    pytest.skip(message)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The minute-long ones first: they wait more than they work, so workers take them side by side. Those that train
    stay with one worker: loading PyTorch and what is around it takes each process ten seconds."""
    for item in items:
        if item.get_closest_marker("training") is not None:
            item.add_marker(pytest.mark.xdist_group("training"))
    items.sort(key=lambda item: item.get_closest_marker("minute") is None)
