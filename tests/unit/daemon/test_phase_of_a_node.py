"""The phase of a node while a process is disconnected from the daemon."""

from collections.abc import Mapping

import pytest

from flopsd.core.declarations import NOTHING_DECLARED
from flopsd.core.phases import ActivePhase
from flopsd.core.session_protocol import DeclaredSession, PhaseChanged, SessionClosed, SessionOpened
from flopsd.daemon.sessions.agreed_phase import RETURN_NS
from flopsd.daemon.sessions.segment_work import SegmentWork
from flopsd.daemon.sessions.tracker import SessionTracker
from flopsd.testing import FakeClock

ONE, OTHER = "1" * 32, "2" * 32


def tracker(clock: FakeClock, known: Mapping[str, DeclaredSession]) -> SessionTracker:
    return SessionTracker(
        NOTHING_DECLARED, dict(known), clock.boottime_ns, lambda _uid, _ns: None, SegmentWork({}, clock.boottime_ns)
    )


def declare(sessions: SessionTracker, name: str, phase: str) -> None:
    sessions.apply(SessionOpened(name, 7, 1000, "1"))
    sessions.apply(PhaseChanged(name, phase))


@pytest.mark.parametrize("returns", [True, False], ids=["it-returns", "it-is-gone"])
@pytest.mark.parametrize("restarted", [True, False], ids=["by-a-restart", "by-its-connection"])
def test_the_phase_is_undeclared_until_the_process_returns_or_cannot_return(restarted: bool, returns: bool) -> None:
    clock = FakeClock()
    sessions = tracker(clock, {})
    declare(sessions, ONE, "train")
    declare(sessions, OTHER, "evaluate")
    if restarted:
        sessions = tracker(clock, sessions.known)
        declare(sessions, OTHER, "evaluate")
    else:
        sessions.apply(SessionClosed(ONE, clean=False))
    clock.advance(RETURN_NS - 1)
    assert sessions.active_phase.bucket == "undeclared"
    if returns:
        declare(sessions, ONE, "evaluate")
    else:
        clock.advance(1)
    assert sessions.active_phase == ActivePhase("evaluate", clock.boottime_ns())


def test_a_process_of_an_earlier_start_is_awaited_until_it_returns_or_cannot_return() -> None:
    """A start that ended before its processes had connected again had none of their work, and no note of that."""
    clock = FakeClock()
    earlier = tracker(clock, {})
    declare(earlier, ONE, "train")
    since_ns = clock.boottime_ns()
    assert earlier.awaited(since_ns) == []
    sessions = tracker(clock, earlier.known)
    assert sessions.awaited(since_ns) == [7]
    sessions.apply(SessionOpened(ONE, 7, 1000, "1"))
    assert sessions.awaited(since_ns) == []
    sessions = tracker(clock, earlier.known)
    clock.advance(RETURN_NS)
    assert sessions.awaited(since_ns) == []
    assert sessions.awaited(since_ns + 1) == [7]


def test_a_process_that_says_goodbye_is_not_waited_for() -> None:
    sessions = tracker(FakeClock(), {})
    declare(sessions, ONE, "train")
    declare(sessions, OTHER, "evaluate")
    sessions.apply(SessionClosed(ONE, clean=True))
    assert sessions.active_phase.bucket == "evaluate"
