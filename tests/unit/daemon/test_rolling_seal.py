"""When the daemon starts a sealing child, and how it handles one that fails, hangs or writes."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopsd.daemon.ledgers.child import IDLE_SECONDS, MOST_SECONDS, STEP_BYTES
from flopsd.daemon.ledgers.key_check import RETRY_SECONDS
from flopsd.daemon.ledgers.rolling_seal import SEALED_NOT_COPIED, RollingSeals
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.process import until_ended, wait_until


def seals(
    clock: FakeClock, *command: str, every: float = 10, checkpoint: float = 2, overdue: bool = False
) -> RollingSeals:
    return RollingSeals(command, every, checkpoint, clock, overdue=overdue, head=lambda: "1:" + "0" * 64)


def python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def child_of(rolling: RollingSeals) -> int | None:
    return rolling.child.pid


def run_out(rolling: RollingSeals) -> None:
    """Wait for the child's end without reaping it, then let the daemon see it."""
    until_ended(child_of(rolling))
    rolling.each_tick()
    assert child_of(rolling) is None


def due(rolling: RollingSeals, clock: FakeClock, seconds: float = 10) -> None:
    clock.advance(round(seconds * NS_PER_S))
    rolling.checkpointed()
    rolling.each_tick()


@settings(max_examples=20)
@given(
    every=st.integers(1, 40), checkpoint=st.integers(1, 20), late=st.lists(st.integers(0, 3), min_size=8, max_size=30)
)
def test_no_more_than_the_interval_is_ever_unsealed(every: int, checkpoint: int, late: list[int]) -> None:
    """Checkpoints come at least as often as seals, and up to three seconds late; sealing takes no time here."""
    clock, checkpoint = FakeClock(), min(checkpoint, every)
    rolling = seals(clock, "/bin/true", every=every + 3, checkpoint=checkpoint + 3)
    sealed_ns, starts = clock.boottime_ns(), 0
    begun_ns = sealed_ns
    for delay in late:
        clock.advance((checkpoint + delay) * NS_PER_S)
        rolling.checkpointed()
        rolling.each_tick()
        assert clock.boottime_ns() - sealed_ns <= (every + 3) * NS_PER_S
        if child_of(rolling) is not None:
            run_out(rolling)
            sealed_ns, starts = clock.boottime_ns(), starts + 1
    # Nor is it started needlessly: two starts are an interval apart, less the wait for one checkpoint.
    assert starts <= 1 + (clock.boottime_ns() - begun_ns) // (max(checkpoint, every - checkpoint) * NS_PER_S)


def test_without_a_new_checkpoint_nothing_is_sealed() -> None:
    clock = FakeClock()
    rolling = seals(clock, "/bin/true")
    for _ in range(2):
        clock.advance(3600 * NS_PER_S)
        rolling.each_tick()
        assert child_of(rolling) is None
        rolling.checkpointed()
        rolling.each_tick()
        run_out(rolling)


def test_the_journal_of_a_killed_daemon_is_sealed_at_once() -> None:
    clock = FakeClock()
    for overdue in (False, True):
        rolling = seals(clock, "/bin/true", overdue=overdue)
        rolling.checkpointed()
        rolling.each_tick()
        assert (child_of(rolling) is not None) == overdue
        rolling.child.stop()


def test_only_one_child_runs_and_a_hanging_one_is_killed_with_its_children(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, pids = FakeClock(), tmp_path / "pids"
    os.mkfifo(pids)
    hang = (
        "import os, signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen(['sleep', '600'], stderr=2);"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); child.wait()"
    )
    rolling = seals(clock, *python(hang))
    due(rolling, clock)
    leader, grandchild = map(int, pids.read_text().split())
    for _ in range(5):
        due(rolling, clock)
        assert child_of(rolling) == leader
    assert os.getsid(leader) == leader  # its own session, so that a signal to the daemon does not end it midway
    clock.advance(round(IDLE_SECONDS * NS_PER_S))
    rolling.each_tick()
    assert child_of(rolling) is None
    assert "NO ROLLING SEAL: the sealing process did nothing for 120 s and was killed" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(leader, 0)
    wait_until(lambda: not _runs(grandchild), "the end of what the child had started")


def test_a_working_child_is_left_alone_and_one_that_stops_working_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, steps, taken = FakeClock(), tmp_path / "steps", tmp_path / "taken"
    os.mkfifo(steps)
    os.mkfifo(taken)
    code = (
        f"zeros = open('/dev/zero', 'rb', 0); taken = open({str(taken)!r}, 'w')\n"
        f"for line in open({str(steps)!r}): zeros.read(int(line)); print(file=taken, flush=True)"
    )
    rolling = seals(clock, *python(code), every=3600)
    due(rolling, clock, 3600)
    with taken.open() as done, steps.open("w") as work:

        def after(seconds: float, moved: int) -> bool:
            """Whether the child still runs after moving `moved` bytes within `seconds`."""
            print(moved, file=work, flush=True)
            done.readline()
            clock.advance(round(seconds * NS_PER_S))
            rolling.each_tick()
            return child_of(rolling) is not None

        assert all(after(IDLE_SECONDS + 5, 3 * STEP_BYTES) for _ in range(5))
        assert not after(IDLE_SECONDS + 10, 100)  # it waits, and reads a little now and then
    assert "NO ROLLING SEAL: the sealing process did nothing for 1" in caplog.text
    rolling = seals(clock, *python("while True: open('/dev/zero', 'rb', 0).read(1 << 20)"))
    due(rolling, clock)
    clock.advance(round((MOST_SECONDS + 1) * NS_PER_S))
    rolling.each_tick()
    assert child_of(rolling) is None
    assert "took more than 24 h and was killed" in caplog.text


def _runs(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_failure_is_logged_once_and_retried_and_success_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, remedy = FakeClock(), tmp_path / "remedy"
    code = f"import os, sys; sys.exit(0 if os.path.exists({str(remedy)!r}) else 'flopsd: no key here')"
    rolling = seals(clock, *python(code), every=3600)
    due(rolling, clock, 3600)
    run_out(rolling)
    for _ in range(3):
        due(rolling, clock, 301)  # not an hour later
        run_out(rolling)
    assert caplog.text.count("NO ROLLING SEAL: no key here; metering goes on") == 1
    assert rolling.state.seal_fault == "NO ROLLING SEAL: no key here"
    remedy.write_text("")
    due(rolling, clock, 301)
    run_out(rolling)
    assert rolling.state.seal_fault == ""
    assert caplog.text.count("rolling seals succeed again") == 1
    due(rolling, clock, 301)
    assert child_of(rolling) is None


def test_an_unsealed_closed_segment_is_retried_without_another_checkpoint() -> None:
    clock = FakeClock()
    rolling = RollingSeals(python("raise SystemExit(1)"), None, 2, clock, overdue=False, head=str)
    rolling.closed()
    rolling.each_tick()
    run_out(rolling)
    clock.advance(round((RETRY_SECONDS - 3) * NS_PER_S))
    rolling.each_tick()
    assert child_of(rolling) is None
    clock.advance(3 * NS_PER_S)
    rolling.each_tick()
    run_out(rolling)
    assert rolling.state.seal_failures == 2


def test_a_command_that_cannot_start_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    rolling = seals(clock, "/no/such/program")
    for _ in range(4):
        due(rolling, clock)
        assert child_of(rolling) is None
    assert caplog.text.count("cannot be started: No such file or directory") == 1


def test_a_child_that_writes_without_end_delays_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    rolling = seals(clock, *python("import sys; sys.stderr.write('x' * 50_000); sys.exit(7)"))
    due(rolling, clock)
    run_out(rolling)
    assert "NO ROLLING SEAL: xxx" in caplog.text
    assert len(caplog.text) < 10_000
    rolling = seals(clock, *python("import sys\nwhile True: sys.stderr.write('y' * 65536)"))
    due(rolling, clock)
    clock.advance(round((IDLE_SECONDS + 1) * NS_PER_S))
    rolling.each_tick()
    assert child_of(rolling) is None


def test_the_daemons_end_does_not_wait_for_a_child() -> None:
    clock = FakeClock()
    rolling = seals(clock, "sleep", "600")
    due(rolling, clock)
    pid = child_of(rolling)
    assert pid is not None
    rolling.child.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    rolling.child.stop()


@pytest.mark.parametrize("before", ["made a key; ", ""])
def test_a_seal_that_was_not_copied_counts_as_sealed_and_is_retried(
    caplog: pytest.LogCaptureFixture, before: str
) -> None:
    clock = FakeClock()
    code = (
        f"import os, sys; print(f'{before}NOT COPIED to s3://b/x-{{os.getpid()}}: denied', file=sys.stderr); "
        f"sys.exit({SEALED_NOT_COPIED})"
    )
    rolling = RollingSeals(python(code), 10, 2, clock, overdue=False, head=lambda: "1:" + "0" * 64, copies=True)
    for failures in (1, 2):
        due(rolling, clock)
        sealed_ns = clock.boottime_ns()
        run_out(rolling)
        found = rolling.state
        assert (found.last_seal_ns, found.seal_failures) == (sealed_ns, 0)
        assert (found.copies, found.last_copy_ns, found.copy_failures) == (True, None, failures)
        assert found.seal_fault.startswith("NOT COPIED to s3://b/x-")
    assert (
        caplog.text.count(": denied; the ledger is sealed on this machine") == 1
    )  # whatever the number of the segment


def test_the_snapshot_shows_the_state_of_sealing() -> None:
    clock = FakeClock()
    rolling = seals(clock, *python("raise SystemExit(1)"))
    due(rolling, clock)
    run_out(rolling)
    assert (rolling.state.last_seal_ns, rolling.state.seal_failures) == (None, 1)
    rolling = seals(clock, *python("pass"))
    due(rolling, clock)
    sealed_ns = clock.boottime_ns()
    run_out(rolling)
    clock.advance(5 * NS_PER_S)
    found = rolling.state
    assert (found.last_seal_ns, found.seal_failures) == (sealed_ns, 0)
    assert found.seal_every_ns == 10 * NS_PER_S
    closed_only = RollingSeals(("true",), None, 2, clock, overdue=False, head=str)
    assert closed_only.state.seal_every_ns is None
