"""A stand-in for NVML's library: each call returns an answer of the test, or raises an error."""

from types import SimpleNamespace
from typing import Any

import pynvml

from flopsd.sources.nvml.driver import Driver
from flopsd.testing import FakeClock
from tests.support.strategies import table

HANDLE = object()


class NvmlFault(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


def library(**answers: Any) -> Any:
    """A library that returns these answers, or raises them; each call must be made with HANDLE."""

    def call(answer: Any) -> Any:
        def ask(handle: object, *arguments: object) -> Any:
            assert handle is HANDLE
            given = answer(*arguments) if callable(answer) else answer
            if isinstance(given, Exception):
                raise given
            return given

        return ask

    missing = {name: NvmlFault(3) for name in vars(pynvml) if name.startswith("nvmlDevice")}
    calls = {name: call(answer) for name, answer in {**missing, **answers}.items()}
    return SimpleNamespace(NVMLError=NvmlFault, **calls)


def driver(clock: FakeClock | None = None, /, **answers: Any) -> Driver:
    return Driver(library(**answers), clock or FakeClock(), table())
