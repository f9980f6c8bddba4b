"""Single sources, opened as often as a test needs, on a clock stepped by hand."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pynvml
import pytest

from flopsd.sources import SourceSettings
from flopsd.sources.nvml.source import NvmlSource
from tests.support.exporter import BUSY, Exporter, exporting, gpu
from tests.support.neuron import Lead, Led
from tests.support.scenario import Gpu, Scenario
from tests.support.sim import SharedClock, simulated
from tests.support.strategies import table

Open = Callable[..., tuple[NvmlSource, SharedClock]]


@pytest.fixture
def open_sim(standin: Path, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_it(
            *gpus: Gpu,
            driver_from_ms: int = 0,
            again: SharedClock | None = None,
            origins: Mapping[str, str] | None = None,
            confidential: str | None = None,
        ) -> tuple[NvmlSource, SharedClock]:
            """Open a new scenario; `again` reopens the existing one, as a restarted daemon does."""
            clock = again or SharedClock(tmp_path / "clock")
            if again is None:
                stack.enter_context(simulated(standin, tmp_path, Scenario(gpus, driver_from_ms, confidential), clock))
            source = NvmlSource(pynvml, SourceSettings(clock, table(), origins=origins or {}))
            stack.callback(source.close)
            return source, clock

        yield open_it


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with exporting(gpu(BUSY)) as one:
        yield one


@pytest.fixture
def lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lead]:
    monkeypatch.setenv("NEURON_STANDIN", str(tmp_path))
    with ExitStack() as stack:

        def led_by(**options: str) -> Led:
            led = Led(tmp_path, **options)
            stack.callback(led.close)
            return led

        yield led_by
