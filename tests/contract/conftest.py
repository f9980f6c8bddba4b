"""Fixtures of single sources."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.neuron import Lead, Led


@pytest.fixture
def lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lead]:
    monkeypatch.setenv("NEURON_STANDIN", str(tmp_path))
    with ExitStack() as stack:

        def led_by(**options: str) -> Led:
            led = Led(tmp_path, **options)
            stack.callback(led.close)
            return led

        yield led_by
