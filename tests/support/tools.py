"""A test's requirements of the machine: without a tool or package that it needs it is skipped, or fails where all
are required."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

BESIDE_PYTHON = str(Path(sys.executable).parent)  # where pip puts the tools that it installs


def missing(what: str) -> NoReturn:
    """Skip the test for something that this machine lacks; fail it where FLOPSD_REQUIRE_TOOLS=1."""
    if os.environ.get("FLOPSD_REQUIRE_TOOLS") == "1":
        pytest.fail(what + ", and this run requires all tools", pytrace=False)
    pytest.skip(what)


def require_tools(*names: str) -> None:
    """For fixtures that run a tool; tests name theirs with the marker `tool`."""
    for name in names:
        if shutil.which(name) is None and shutil.which(name, path=BESIDE_PYTHON) is None:
            missing(f"{name} is not installed")


def check_markers(item: pytest.Item) -> None:
    """Apply the markers `tool`, `package` and `training` of a test."""
    for marker in item.iter_markers("tool"):
        require_tools(*marker.args)
    for marker in item.iter_markers("package"):
        for name in marker.args:
            if not _is_importable(name):
                missing(f"the Python package {name} is not installed")
    for marker in item.iter_markers("training"):
        for name in ("torch", *marker.args):
            if not _is_importable(name):
                missing(f"the Python package {name} is not installed")


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
