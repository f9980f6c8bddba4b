"""What training processes have counted since the journal of this segment began; the rest is in earlier segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy

from flopsd.core.declarations import Work
from flopsd.core.ledger.segments import work_since
from flopsd.core.operator_count import OPERATOR_COUNTERS
from flopsd.core.session_protocol import QUEUED_NS, DeclaredSession


class SegmentWork:
    """The counters of sessions when the segment began, by session and phase. One thread owns it."""

    def __init__(self, before: dict[str, dict[str, dict[str, int]]], now_ns: Callable[[], int]) -> None:
        self._before, self._now_ns = before, now_ns
        self._held: set[str] = set()  # sessions whose operators still count in earlier segments
        self._held_until_ns = 0
        self._moved: set[str] = set()  # sessions whose new `before` is not in the journal yet

    def of(self, session: DeclaredSession) -> dict[str, dict[str, int]]:
        """Return what a session has counted in this segment."""
        return work_since(session.work, self.before(session.id))

    def before(self, name: str) -> Mapping[str, Work]:
        """Return what a session had counted when the segment began."""
        return self._before.get(name, {})

    def is_moved(self, name: str) -> bool:
        """Whether the journal does not have the newest `before` of a session yet."""
        return name in self._moved

    def journalled(self, names: Iterable[str]) -> None:
        """Note that the journal has `before` of these sessions."""
        self._moved.difference_update(names)

    def begin(self, sessions: Mapping[str, DeclaredSession]) -> None:
        """Begin a segment, in which all counters start at zero."""
        self._before = {name: deepcopy(session.work) for name, session in sessions.items() if session.work}
        self.hold(sessions)

    def hold(self, names: Iterable[str]) -> None:
        """Count the operators that these sessions report in the next QUEUED_NS in the earlier segments. They may have
        run there: a process reports operators a second late, at the end of a pass, and its device may be further
        behind, by QUEUED_NS at most."""
        self._held, self._held_until_ns = set(names), self._now_ns() + QUEUED_NS
        self._moved.clear()

    def counted(self, session: DeclaredSession) -> None:
        """Note that the counters of a session changed. If it is held, its operators start now in this segment."""
        if session.id not in self._held:
            return
        for phase, counters in session.work.items():
            if counted := {name: counters[name] for name in OPERATOR_COUNTERS if name in counters}:
                before = self._before.setdefault(session.id, {})
                before[phase] = {**before.get(phase, {}), **counted}
                self._moved.add(session.id)
        if self._now_ns() >= self._held_until_ns:
            self._held.discard(session.id)
