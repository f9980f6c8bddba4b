"""Reasons that end a run: signals, a duration, and the pipe of `flopsd exec`."""

import errno
import os
import queue
import signal
import subprocess
from collections.abc import Iterator
from typing import Any, cast
from unittest.mock import Mock

import pytest

from flopsd.daemon.loop import Daemon
from flopsd.daemon.stop_requests import StopRequests
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.testing import FakeClock
from tests.support.process import PATIENCE_SECONDS, wait_until


class Stopped:
    """Records the reasons for which it was stopped."""

    def __init__(self) -> None:
        self.reasons: queue.Queue[str] = queue.Queue()
        self.stop = self.reasons.put

    def all(self) -> list[str]:
        return [self.reasons.get_nowait() for _ in range(self.reasons.qsize())]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Signal handlers as on a terminal, even where the tests run under nohup."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def attached(requests: StopRequests, clock: Clock | None = None, **settings: Any) -> Stopped:
    daemon = Stopped()
    requests.attach(cast(Daemon, daemon), Settings(**settings), clock or FakeClock())
    return daemon


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_run_even_if_it_came_before_the_begin(number: signal.Signals) -> None:
    requests = StopRequests(None)
    signal.raise_signal(number)
    signal.raise_signal(signal.SIGTERM)  # the first of two counts
    daemon = attached(requests)
    assert daemon.all() == [number.name.lower()]
    signal.raise_signal(number)
    assert daemon.all() == [number.name.lower()]
    assert not requests.is_near


def test_an_ignored_hangup_as_under_nohup_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    daemon = attached(StopRequests(None))
    signal.raise_signal(signal.SIGHUP)
    assert daemon.all() == []


def test_a_duration_ends_the_run_unless_the_job_decides() -> None:
    clock = FakeClock()
    begin_ns = clock.boottime_ns()
    daemon = attached(StopRequests(None), clock, duration_seconds=7.0)
    assert daemon.reasons.get(timeout=PATIENCE_SECONDS) == "duration"
    assert clock.boottime_ns() - begin_ns == 7 * NS_PER_S
    assert attached(StopRequests(None)).all() == []
    reader, writer = os.pipe()
    requests = StopRequests(reader)
    daemon = attached(requests, clock, duration_seconds=7.0)
    signal.raise_signal(signal.SIGTERM)
    assert requests.is_near
    os.close(writer)
    assert daemon.reasons.get(timeout=PATIENCE_SECONDS) == "launcher_gone"
    assert daemon.all() == []


@pytest.mark.parametrize("is_old", [False, True], ids=["", "before-linux-5.3"])
def test_without_the_launcher_the_run_ends_with_the_job_or_by_a_signal(
    monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    if is_old:
        monkeypatch.setattr(os, "pidfd_open", Mock(side_effect=OSError(errno.ENOSYS, "Function not implemented")))
        monkeypatch.setattr("flopsd.daemon.stop_requests.JOB_POLL_SECONDS", 0.05)
    for is_signalled in (False, True):
        with subprocess.Popen(["sleep", "60"]) as job:
            reader, writer = os.pipe()
            requests = StopRequests(reader)
            daemon = attached(requests)
            os.write(writer, f"job {job.pid}\n".encode())
            os.close(writer)
            with pytest.raises(queue.Empty):
                daemon.reasons.get(timeout=0.5)
            if is_signalled:
                signal.raise_signal(signal.SIGTERM)
            else:
                job.kill()
            assert daemon.reasons.get(timeout=PATIENCE_SECONDS) == ("sigterm" if is_signalled else "launcher_gone")
            job.kill()


def test_the_launcher_passes_secrets_the_near_end_and_the_jobs_exit() -> None:
    reader, writer = os.pipe()
    requests = StopRequests(reader)
    daemon = attached(requests)
    os.write(writer, b"secret 0a0b\nsecret ff\n")
    wait_until(lambda: len(requests.code_secrets) == 2, "the secrets")
    assert (requests.code_secrets, requests.is_near) == ([b"\n\x0b", b"\xff"], False)
    os.write(writer, b"signalled\n")
    wait_until(lambda: requests.is_near, "the signal")
    assert (daemon.all(), requests.child_exit_code) == ([], None)
    os.write(writer, b"exit 137\n")
    assert daemon.reasons.get(timeout=PATIENCE_SECONDS) == "job_ended"
    assert requests.child_exit_code == 137
    os.close(writer)
    assert daemon.all() == []
