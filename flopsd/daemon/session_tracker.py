"""What training processes declared: the phase that is active now, and what of it is still to be journalled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flopsd.core.declarations import OperatorDeclarations, precision_from
from flopsd.core.model import UNDECLARED_PHASE
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
class SessionTracker:
    """All sessions of training processes in this run, closed ones included. One thread owns it."""

    declared: OperatorDeclarations
    known: dict[str, DeclaredSession]
    now_ns: Callable[[], int]
    active_phase: ActivePhase = field(init=False)
    _live: dict[str, str | None] = field(default_factory=dict)  # the phase of each connected process, once it named one
    _changed: dict[str, set[str]] = field(default_factory=dict)  # what the journal does not have yet

    def __post_init__(self) -> None:
        self.active_phase = ActivePhase(self._bucket(), 0)

    def apply(self, event: Event) -> None:
        """Fold in an event. A change of phase takes effect now, when the daemon receives it."""
        name = event.session
        if isinstance(event, SessionOpened):
            self._live.setdefault(name, None)
            if name not in self.known:
                self.known[name] = DeclaredSession(name, event.pid, event.uid, event.client)
                self._changed[name] = set()
        elif name not in self.known:
            return  # never opened; the session server does not send this
        elif isinstance(event, FactsDeclared):
            facts = {**self.known[name].facts, **event.facts}
            if facts != self.known[name].facts:
                self.known[name].facts = facts
                self._changed.setdefault(name, set()).add("facts")
        elif isinstance(event, WorkCounted):
            self._count(self.known[name], event.work)
        elif isinstance(event, PhaseChanged):
            self._live[name] = event.phase
        elif isinstance(event, SessionClosed):
            self._live.pop(name, None)
        now = self._bucket()
        if now != self.active_phase.bucket:
            self.active_phase = ActivePhase(now, self.now_ns())

    def for_journal(self) -> list[dict[str, Any]]:
        """What changed since `journalled`, for a checkpoint record."""
        return [_record(self.known[name], parts) for name, parts in self._changed.items()]

    def journalled(self) -> None:
        """Note that the journal holds everything up to now."""
        self._changed.clear()

    def _count(self, session: DeclaredSession, work: Mapping[str, Mapping[str, int]]) -> None:
        for phase, counters in work.items():
            known = session.work.setdefault(phase, {})
            for counter, value in counters.items():
                if value > known.get(counter, 0):  # values are absolute and only grow: an old message changes nothing
                    known[counter] = value
                    self._changed.setdefault(session.id, set()).add("work")

    def _bucket(self) -> str:
        """The phase that all processes which named one agree on; undeclared where they differ, since a counter does
        not show which process a count belongs to."""
        named = {name: phase for name, phase in self._live.items() if phase is not None}
        if not named:
            return UNDECLARED_PHASE if self.declared.phase is None else self.declared.phase.value
        phases = set(named.values())
        if len(phases) > 1 or UNDECLARED_PHASE in phases:
            return UNDECLARED_PHASE
        declared = (self.known[name].facts.get("precision") for name in named)
        formats = {None if one is None else precision_from(one, PROCESS) for one in declared}
        return bucket(phases.pop(), formats.pop() if len(formats) == 1 else None)


def _record(session: DeclaredSession, parts: set[str]) -> dict[str, Any]:
    """Who it is, and what of it changed: facts, work."""
    found = asdict(session)
    return {name: value for name, value in found.items() if name in ("id", "pid", "uid", "client") or name in parts}
