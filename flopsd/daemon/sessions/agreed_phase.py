"""The phase of the node: the phase that all connected training processes that named one agree on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flopsd.core.declarations import Phase, precision_from
from flopsd.core.model import UNDECLARED_PHASE
from flopsd.core.phases import PROCESS, ActivePhase, bucket
from flopsd.core.session_protocol import DeclaredSession

RETURN_NS = 10_000_000_000  # how long a client may take to connect again: it waits 5 s at most between two tries
MAX_BUCKETS = 24  # phases, with or without a number format, that a tally has shares of


class AgreedPhase:
    """The phase of the node, as processes connect, change and leave. One thread owns it."""

    def __init__(
        self, unnamed: Phase | None, sessions: Mapping[str, DeclaredSession], now_ns: Callable[[], int]
    ) -> None:
        """`unnamed`: the phase while no process names one. `sessions`: all sessions of this run, as they change;
        processes of sessions that are there already may still be at work in the phase that they named."""
        self._unnamed, self._sessions, self._now_ns = unnamed, sessions, now_ns
        self._named: dict[str, str] = {}  # the phase of each connected process that named one
        # Until when a process that lost its connection may return.
        self._parted = dict.fromkeys(sessions, now_ns() + RETURN_NS)
        self._unrecorded: set[str] = set()  # connected processes of which the run records nothing
        self._buckets: set[str] = set()
        self._active = ActivePhase(self._bucket(), 0)

    @property
    def active(self) -> ActivePhase:
        """The phase now, and since when."""
        if self._parted:
            self.follow()
        return self._active

    def follow(self) -> None:
        """Begin another phase now, if a change calls for it."""
        if (now := self._bucket()) != self._active.bucket:
            self._active = ActivePhase(now, self._now_ns())

    def change(self, name: str, phase: str) -> None:
        self._named[name] = phase
        self._parted.pop(name, None)

    def leave(self, name: str, *, clean: bool) -> None:
        """Remove a process. If it did not close its session, it may still be at work in the phase that it named."""
        self._unrecorded.discard(name)
        if self._named.pop(name, None) is not None and not clean:
            self._parted[name] = self._now_ns() + RETURN_NS
        elif clean:
            self._parted.pop(name, None)

    def is_recorded(self, name: str) -> bool:
        return name not in self._unrecorded

    def leave_unrecorded(self, name: str) -> None:
        """Treat the phase as undeclared while this process is connected."""
        self._unrecorded.add(name)

    def _bucket(self) -> str:
        """Return the phase; undeclared if processes differ, since a counter does not show whose work it counts."""
        while self._parted and self._parted[name := next(iter(self._parted))] <= self._now_ns():  # the first is oldest
            del self._parted[name]
        found = UNDECLARED_PHASE if self._unrecorded or self._parted else self._agreed()
        if found not in self._buckets and len(self._buckets) >= MAX_BUCKETS:
            return UNDECLARED_PHASE
        self._buckets.add(found)
        return found

    def _agreed(self) -> str:
        if not self._named:
            return UNDECLARED_PHASE if self._unnamed is None else self._unnamed.value
        phases = set(self._named.values())
        if len(phases) > 1 or UNDECLARED_PHASE in phases:
            return UNDECLARED_PHASE
        declared = (self._sessions[name].facts.get("precision") for name in self._named)
        formats = {None if one is None else precision_from(one, PROCESS) for one in declared}
        return bucket(phases.pop(), formats.pop() if len(formats) == 1 else None)
