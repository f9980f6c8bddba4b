"""What training processes declared, as the writer keeps it: whose phase is in force, and what the journal has of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flopsd.core.declarations import OperatorDeclarations, precision_from
from flopsd.core.model import UNDECLARED_PHASE, Precision
from flopsd.core.phases import PROCESS, ActivePhase, bucket
from flopsd.core.session_protocol import (
    DeclaredSession,
    Event,
    FactsDeclared,
    PhaseChanged,
    SessionClosed,
    SessionOpened,
    WorkCounted,
)


@dataclass(slots=True)
class _Live:
    """One connected process. `phase` is None until it names one: it has no say in the phase before that."""

    phase: str | None = None


@dataclass(slots=True)
class Sessions:
    """All processes that ever declared anything in this run. One thread owns it."""

    declared: OperatorDeclarations
    known: dict[str, DeclaredSession]
    now_ns: Callable[[], int]
    in_force: ActivePhase = field(init=False)
    _live: dict[str, _Live] = field(default_factory=dict)
    _changed: dict[str, set[str]] = field(default_factory=dict)  # what the journal does not have yet

    def __post_init__(self) -> None:
        self.in_force = ActivePhase(self._bucket(), 0)

    def hear(self, event: Event) -> None:
        """Take in what a process says. Changes of phase take effect now, which is when the daemon hears of them."""
        name = event.session
        if isinstance(event, SessionOpened):
            self._live.setdefault(name, _Live())
            if name not in self.known:
                self.known[name] = DeclaredSession(name, event.pid, event.uid, event.client)
                self._changed[name] = set()
        elif name not in self.known:
            return  # nobody opened it: the listener would not do that
        elif isinstance(event, FactsDeclared):
            facts = {**self.known[name].facts, **event.facts}
            if facts != self.known[name].facts:
                self.known[name].facts = facts
                self._changed.setdefault(name, set()).add("facts")
        elif isinstance(event, WorkCounted):
            self._count(self.known[name], event.work)
        elif isinstance(event, PhaseChanged):
            self._live.setdefault(name, _Live()).phase = event.phase
        elif isinstance(event, SessionClosed):
            self._live.pop(name, None)
        now = self._bucket()
        if now != self.in_force.bucket:
            self.in_force = ActivePhase(now, self.now_ns())

    def for_journal(self) -> list[dict[str, Any]]:
        """What changed since `settled`, for a checkpoint record."""
        return [session_record(self.known[name], parts) for name, parts in self._changed.items()]

    def settled(self) -> None:
        """The journal has it all."""
        self._changed.clear()

    @property
    def open_count(self) -> int:
        return len(self._live)

    def _count(self, session: DeclaredSession, work: Mapping[str, Mapping[str, int]]) -> None:
        for phase, counters in work.items():
            known = session.work.setdefault(phase, {})
            for counter, value in counters.items():
                if value > known.get(counter, 0):  # absolute values that only grow: an old message changes nothing
                    known[counter] = value
                    self._changed.setdefault(session.id, set()).add("work")

    def _bucket(self) -> str:
        """All processes that name a phase must name the same one, or nobody knows whose work a count is."""
        named = [name for name, live in self._live.items() if live.phase is not None]
        if not named:
            return UNDECLARED_PHASE if self.declared.phase is None else self.declared.phase.value
        phases = {self._live[name].phase for name in named}
        if len(phases) > 1 or UNDECLARED_PHASE in phases:
            return UNDECLARED_PHASE
        told = {self._precision(name) for name in named}
        return bucket(str(phases.pop()), told.pop() if len(told) == 1 else None)

    def _precision(self, name: str) -> Precision | None:
        told = self.known[name].facts.get("precision")
        return None if told is None else precision_from(told, PROCESS)


def session_record(session: DeclaredSession, parts: set[str]) -> dict[str, Any]:
    record: dict[str, Any] = {"id": session.id, "pid": session.pid, "uid": session.uid, "client": session.client}
    if "facts" in parts:
        record["facts"] = dict(session.facts)
    if "work" in parts:
        record["work"] = {phase: dict(counters) for phase, counters in session.work.items()}
    return record
