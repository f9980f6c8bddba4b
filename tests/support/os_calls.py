"""Functions of `os`, replaced for a test: those that fail, as on a sick disk."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest


def replace_call(monkeypatch: pytest.MonkeyPatch, name: str, call: Callable[..., object]) -> None:
    """Replace `os.NAME`, also for pathlib, which in Python 3.10 has names of its own for some."""
    monkeypatch.setattr(os, name, call)
    accessor = getattr(pathlib, "_normal_accessor", None)
    if hasattr(accessor, name):
        monkeypatch.setattr(accessor, name, call)


def failing(number: int) -> Callable[..., Any]:
    """A call that fails with this error, whatever it is asked."""

    def call(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return call
