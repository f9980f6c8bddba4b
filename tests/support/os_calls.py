"""Functions of `os`, replaced for a test by calls that fail, as on a faulty disk."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest


class Killed(BaseException):
    """kill -9: nothing that follows is executed."""


def replace_call(monkeypatch: pytest.MonkeyPatch, name: str, call: Callable[..., object]) -> None:
    """Replace `os.NAME`, for pathlib too, which in Python 3.10 keeps references of its own to some: its `open` is not
    that of `os`."""
    accessor = getattr(pathlib, "_normal_accessor", None)
    if getattr(accessor, name, None) is getattr(os, name):
        monkeypatch.setattr(accessor, name, call)
    monkeypatch.setattr(os, name, call)


def failing(number: int) -> Callable[..., Any]:
    """A call that fails with this error, whatever its arguments."""

    def call(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return call
