"""Kernel windows that training processes report: possible ones are kept, impossible ones counted as refused."""

import json
import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flopsd.core.declarations import OperatorDeclarations
from flopsd.core.kernel_windows import CLASSES, KERNEL_COUNTERS, OBSERVED, is_impossible
from flopsd.core.ledger.segments import work_since
from flopsd.core.session_protocol import (
    QUEUED_NS,
    Conversation,
    DeclaredSession,
    RefusedError,
    SessionOpened,
    WorkCounted,
)
from flopsd.daemon.sessions.segment_work import SegmentWork
from flopsd.daemon.sessions.tracker import SessionTracker
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock

ONE = "1" * 32
Counters = dict[str, int]
SEEN = {
    "kernel_windows": 2, "kernel_window_ns": 80_000_000, "kernel_window_cost_ns": 4_000_000,
    "kernel_ns_matrix_bf16": 60_000_000, "kernel_launches_matrix_bf16": 300, "kernel_launches_copy": 3,
}  # fmt: skip


def tracker(clock: FakeClock) -> SessionTracker:
    found = SessionTracker(
        OperatorDeclarations(), {}, clock.boottime_ns, lambda _uid, _ns: None, SegmentWork({}, clock.boottime_ns)
    )
    found.apply(SessionOpened(ONE, 7, 1000, "1"))
    return found


def known(sessions: SessionTracker) -> dict[str, Counters]:
    session: DeclaredSession = sessions.known[ONE]
    return {phase: counters for phase, counters in session.work.items() if counters}


def test_an_unknown_kernel_class_or_counter_is_refused() -> None:
    talk = Conversation(1, 1)
    talk.receive(b'{"flopsd":1,"kind":"hello","session":"%s","client":"1","pid":1}' % (b"a" * 32))
    for name in ("kernel_ns_naps", "kernel_launches_", "kernel_windows_more"):
        line = {"flopsd": 1, "kind": "work", "work": {"train": {name: 1}}}
        with pytest.raises(RefusedError, match="not a known counter"):
            talk.receive(json.dumps(line).encode())


def test_possible_counters_are_kept_and_a_repeated_message_changes_nothing() -> None:
    sessions = tracker(FakeClock())
    for _ in range(3):
        sessions.apply(WorkCounted(ONE, {"train": {**SEEN, "steps": 4}}))
    assert known(sessions) == {"train": {**SEEN, "steps": 4}}
    sessions.apply(WorkCounted("f" * 32, {"train": {**SEEN, "kernel_windows": 99}}))  # from a session without hello
    assert known(sessions) == {"train": {**SEEN, "steps": 4}}


@pytest.mark.parametrize(("windows", "ns"), [(0, 0), (0, 1), (1, 1)])
def test_window_time_without_windows_is_impossible(windows: int, ns: int) -> None:
    assert is_impossible({"kernel_windows": windows, "kernel_window_ns": ns}) == (ns > windows)


@pytest.mark.parametrize(
    "lie",
    [
        {"kernel_ns_vector": 128 * 160_000_000 + 1, "kernel_launches_vector": 1},  # more than 128 kernels at once
        {"kernel_ns_vector": 1},  # without a launch
        {"kernel_window_ns": QUEUED_NS + 10 * NS_PER_S},  # longer than the process has been connected
        {"kernel_ns_vector": 10**30, "kernel_launches_vector": 10**30},
    ],
)
def test_impossible_counters_are_dropped_whole_and_counted(lie: Counters, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    sessions = tracker(clock)
    sessions.apply(WorkCounted(ONE, {"train": SEEN}))
    clock.advance(9 * NS_PER_S)
    more = {**{name: 2 * count for name, count in SEEN.items()}, **lie}
    with caplog.at_level(logging.WARNING):
        for flood in range(1, 200):
            sessions.apply(WorkCounted(ONE, {"train": {**more, "steps": flood}}))
            assert len(caplog.records) == 1, "said at the first"
    assert known(sessions) == {"train": {**SEEN, "steps": 199, "kernel_windows_refused": 199}}
    sessions.apply(WorkCounted(ONE, {"train": {name: 2 * count for name, count in SEEN.items()}}))
    assert known(sessions)["train"]["kernel_windows"] == 4


def test_only_the_daemon_counts_refused_windows() -> None:
    sessions = tracker(FakeClock())
    sessions.apply(WorkCounted(ONE, {"train": {"kernel_windows_refused": 10**9, "steps": 1}}))
    assert known(sessions) == {"train": {"steps": 1}}


counted = st.dictionaries(st.sampled_from(KERNEL_COUNTERS), st.integers(0, 3) | st.integers(0, 10**12), max_size=6)
messages = st.lists(st.dictionaries(st.sampled_from(["train", "other"]), counted, min_size=1), max_size=8)


EMPTY = {"kernel_windows": 1, "kernel_window_ns": 100}


@pytest.mark.long
@given(messages, st.integers(0, 8))
@example([{"train": EMPTY}, {"train": {**EMPTY, "kernel_ns_copy": 50, "kernel_launches_copy": 1}}], 1)
def test_no_message_breaks_a_rule_of_the_journal_in_any_segment(sent: list[dict[str, Counters]], rotated: int) -> None:
    sessions = tracker(FakeClock())
    before: dict[str, Counters] = {}
    for at, work in enumerate(sent):
        if at == rotated:
            before = {phase: dict(counters) for phase, counters in known(sessions).items()}
        sessions.apply(WorkCounted(ONE, work))
    whole = known(sessions)
    for part in (whole, work_since(whole, before)):
        assert not any(map(is_impossible, part.values()))


def test_the_kernel_counters_match_the_kernel_classes() -> None:
    assert len(KERNEL_COUNTERS) == len(set(KERNEL_COUNTERS)) == 5 + 2 * len(CLASSES)
    assert set(KERNEL_COUNTERS) - OBSERVED == {"kernel_windows_refused"}
