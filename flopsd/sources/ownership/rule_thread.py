"""Asks a rule in its own thread, so that a socket, file server or driver that hangs never delays a reading."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from flopsd.core.model import Device
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.rule import OwnershipResult, OwnershipRule


class _Question:
    """One question and its answer, which is there once `answered` is set."""

    def __init__(self, rule: OwnershipRule, devices: Sequence[Device]) -> None:
        self.answered = threading.Event()
        self.answer: OwnershipResult | OwnershipError = OwnershipError("the rule failed by a fault of flopsd")
        self.waited_for = False
        self._rule, self._devices = rule, devices

    def run(self) -> None:
        try:
            self.answer = self._rule.judge(self._devices)
        except OwnershipError as fault:
            self.answer = fault
        finally:
            self.answered.set()


class RuleThread:
    """One question at a time; one that hangs keeps its thread, and no other is asked beside it."""

    def __init__(self, rule: OwnershipRule) -> None:
        self._rule = rule
        self._open: _Question | None = None

    @property
    def waiting(self) -> bool:
        """Whether a question was asked whose answer was not taken yet."""
        return self._open is not None

    def ask(self, devices: Sequence[Device]) -> None:
        """Ask about `devices`. A constant rule answers at once, in this thread."""
        if self._open is not None:
            return
        self._open = _Question(self._rule, tuple(devices))
        if self._rule.constant:
            self._open.run()
        else:
            threading.Thread(target=self._open.run, name="ownership", daemon=True).start()

    def take(self, seconds: float) -> OwnershipResult | OwnershipError | None:
        """The answer, waited for at most `seconds`, and that once a question; None while there is none."""
        question = self._open
        if question is None:
            return None
        patience = 0.0 if question.waited_for else seconds
        question.waited_for = True
        if not question.answered.wait(patience):
            return None
        self._open = None
        return question.answer
