"""The daemon and the FLOP counted by training processes: it accepts no count above a device's ceiling."""

import logging

import pytest

from flopsd.core.declarations import OperatorDeclarations
from flopsd.core.session_protocol import (
    QUEUED_NS,
    Conversation,
    DeclaredSession,
    FactsDeclared,
    RefusedError,
    SessionClosed,
    SessionOpened,
    WorkCounted,
)
from flopsd.core.unused_count import Unused
from flopsd.daemon.sessions.segment_work import SegmentWork
from flopsd.daemon.sessions.tracker import SessionTracker
from flopsd.settings.words import say
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock

RATE = 10**15  # FLOP/s at most
ONE = "1" * 32


def tracker(clock: FakeClock, known: dict[str, DeclaredSession] | None = None) -> SessionTracker:
    found = SessionTracker(
        OperatorDeclarations(),
        known or {},
        clock.boottime_ns,
        lambda uid, ns: RATE * ns // NS_PER_S if uid == "GPU-0" else None,
        SegmentWork({}, clock.boottime_ns),
    )
    found.apply(SessionOpened(ONE, 7, 1000, "1"))
    found.apply(FactsDeclared(ONE, {"device": "GPU-0"}))
    return found


def work(flop: int, steps: int = 0) -> WorkCounted:
    return WorkCounted(ONE, {"train": {"operator_flop": flop, "steps": steps}})


def test_a_count_above_the_devices_ceiling_since_connecting_is_no_longer_used(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    sessions = tracker(clock)
    most = RATE * (QUEUED_NS + 2 * NS_PER_S) // NS_PER_S
    clock.advance(2 * NS_PER_S)
    sessions.apply(work(most, 1))
    assert sessions.counts.by_device["GPU-0"].total_flop == most
    ((declared,),) = sessions.new_declarations()
    assert "refused" not in declared
    with caplog.at_level(logging.WARNING):
        for again in range(50):
            sessions.apply(work(most + 1 + again, 2 + again))
    (refused,) = sessions.counts.refused
    assert refused.reason is Unused.COUNT_EXCEEDS_CEILING
    assert (refused.counted_flop, refused.ceiling_flop) == (most + 1, most)
    assert sessions.counts.by_device == {}
    ((record,),) = sessions.new_declarations()
    assert record["refused"] == {
        "reason": "count_exceeds_ceiling",
        "device": "GPU-0",
        "flop": most + 1,
        "ceiling": most,
    }
    assert [line.message for line in caplog.records] == [
        f"{say('declared.contradictions', refused.note)}; its count of operators is not used"
    ]
    (counted,) = sessions.new_work(whole=False)
    assert counted["work"]["train"] == {"operator_flop": most, "steps": 51}, "its other counters are recorded still"


def test_a_process_that_reconnects_after_a_restart_may_have_counted_meanwhile() -> None:
    clock = FakeClock()
    before = DeclaredSession(ONE, 7, 1000, "1", {"device": "GPU-0"}, {"train": {"operator_flop": 10**15}})
    sessions = tracker(clock, {ONE: before})
    sessions.apply(work(10**15 + RATE * clock.boottime_ns() // NS_PER_S))
    assert sessions.counts.refused == ()


def test_an_old_message_and_a_lost_connection_change_no_count() -> None:
    sessions = tracker(FakeClock())
    sessions.apply(work(500))
    for event in (work(400), SessionClosed(ONE, clean=False), SessionOpened(ONE, 7, 1000, "1"), work(500), work(0)):
        sessions.apply(event)
    assert sessions.counts.by_device["GPU-0"].flop == {"train": 500}


def test_a_change_of_device_ends_the_use_of_the_count() -> None:
    sessions = tracker(FakeClock())
    sessions.apply(work(500))
    sessions.apply(FactsDeclared(ONE, {"device": "GPU-0", "method": "full"}))
    assert sessions.counts.by_device.keys() == {"GPU-0"}
    sessions.apply(FactsDeclared(ONE, {"device": "GPU-1"}))
    assert [(one.reason, one.device, one.counted_flop) for one in sessions.counts.refused] == [
        (Unused.DEVICE_CHANGED, "GPU-0", 500)
    ]
    assert sessions.known[ONE].facts == {"device": "GPU-0", "method": "full"}


def test_any_count_is_recorded_for_a_device_without_a_known_ceiling() -> None:
    sessions = tracker(FakeClock())
    other = "2" * 32
    sessions.apply(SessionOpened(other, 7, 1000, "1"))
    sessions.apply(FactsDeclared(other, {"device": "GPU-unknown"}))
    sessions.apply(WorkCounted(other, {"train": {"operator_flop": 10**30}}))
    assert sessions.counts.refused == ()
    assert sessions.counts.by_device["GPU-unknown"].total_flop == 10**30


@pytest.mark.parametrize("value", ["-1", "NaN", "1e3", "1.0", f"{10**30 + 1}", "true", '"7"', "null"])
def test_a_malformed_count_is_refused_and_changes_nothing(value: str) -> None:
    talk = Conversation(7, 1000)
    talk.receive(f'{{"flopsd":1,"kind":"hello","session":"{ONE}","client":"1","pid":7}}'.encode())
    with pytest.raises(RefusedError):
        talk.receive(f'{{"flopsd":1,"kind":"work","work":{{"train":{{"operator_flop":{value}}}}}}}'.encode())
