"""A child process of the daemon: how it ended, in one line, read without waiting."""

import os
import signal

import pytest

from flopsd.daemon.ledgers.child import NOT_STARTED, ChildProcess, Ended
from flopsd.system.clock import SystemClock
from tests.support.process import wait_until


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo x; echo y", (0, "x\ny", "")),
        ("printf 'flopsd: WARNING: a\\n\\nflopsd: b\\n' >&2; exit 3", (3, "", "a; b")),
        ("echo x; exit 4", (4, "x", "the process ended with 4")),
        ("echo x; sleep 600 & exit 0", (0, "x", "")),  # a process that the child started still holds its pipes
        ("sleep 600 & exit 5", (5, "", "the process ended with 5")),
    ],
)
def test_the_end_of_a_child_is_reported_once(script: str, expected: tuple[int, str, str]) -> None:
    child, found = ChildProcess(["/bin/sh", "-c", script], "the process", SystemClock(), output=True), list[Ended]()
    child.start()
    group = child.pid
    assert group is not None

    def has_ended() -> bool:
        found.extend([] if (ended := child.ended()) is None else [ended])
        return bool(found)

    wait_until(has_ended, "it has ended")
    if "sleep" in script:
        os.killpg(group, signal.SIGKILL)
    assert [(one.code, one.out, one.err) for one in found] == [expected]
    assert (child.ended(), child.is_busy) == (None, False)


def test_a_child_that_cannot_start_counts_as_ended() -> None:
    child = ChildProcess(["/nowhere/flopsd"], "the process", SystemClock())
    child.start()
    assert child.is_busy
    assert child.ended() == Ended(NOT_STARTED, "", "the process cannot be started: No such file or directory")
    assert (child.ended(), child.is_busy) == (None, False)
