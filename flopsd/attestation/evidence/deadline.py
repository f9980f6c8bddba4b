"""Calls with a deadline: a call that hangs is abandoned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from flopsd.errors import EvidenceError
from flopsd.system.clock import NS_PER_S, Clock

T = TypeVar("T")


class Call(Generic[T]):
    """`function` on a daemon thread, so that a hanging driver or resolver does not keep the process alive."""

    def __init__(self, name: str, function: Callable[[], T], seconds: float, clock: Clock) -> None:
        self._function, self._seconds, self._clock = function, seconds, clock
        self._deadline_ns = clock.boottime_ns() + round(seconds * NS_PER_S)
        self._done = threading.Event()
        self._found: list[T] = []
        self._fault: EvidenceError | None = None
        threading.Thread(target=self._run, name=f"evidence-{name}", daemon=True).start()

    def result(self) -> T:
        """The result. Raises the EvidenceError of the function, or one if the deadline has passed."""
        left_ns = self._deadline_ns - self._clock.boottime_ns()
        if not self._clock.wait(self._done, left_ns / NS_PER_S):
            raise EvidenceError(f"no answer within {self._seconds:g} s")
        if self._fault is not None:
            raise self._fault
        return self._found[0]

    def _run(self) -> None:
        try:
            self._found.append(self._function())
        except EvidenceError as fault:
            self._fault = fault
        except Exception as fault:  # noqa: BLE001, evidence must never prevent a seal
            self._fault = EvidenceError(f"{type(fault).__name__}: {fault}")
        self._done.set()
