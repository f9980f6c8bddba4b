"""Functions of `os`, replaced for a test: those that fail, as on a sick disk."""

import glob
import os
import pathlib
from collections.abc import Callable

import pytest


def replace_call(monkeypatch: pytest.MonkeyPatch, name: str, call: Callable[..., object]) -> None:
    """Replace `os.NAME`, also for pathlib, which has names of its own for some: Python 3.10 in one place, 3.13 in
    another."""
    monkeypatch.setattr(os, name, call)
    for owner, given in ((pathlib, "_normal_accessor"), (glob, "_StringGlobber")):
        if hasattr(holder := getattr(owner, given, None), name):
            monkeypatch.setattr(holder, name, staticmethod(call) if isinstance(holder, type) else call)
