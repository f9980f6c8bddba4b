"""Servers that share a thread: each is served, even next to a failing one, until it stops."""

import queue
import selectors
import socket
import threading
from unittest.mock import Mock

import pytest

from flopsd.system.clock import NS_PER_S, SystemClock
from flopsd.system.socket_thread import SocketThread
from flopsd.testing import FakeClock
from tests.support.process import PATIENCE_SECONDS


class Echo:
    """Records the data sent to it, and the thread that served it. `end` stops it, `fail` is an internal error."""

    def __init__(self, name: str) -> None:
        self.name, self.times_served = name, 0
        self.client, self._sock = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._sock, selectors.EVENT_READ)
        self.got: queue.Queue[tuple[bytes, int]] = queue.Queue()

    def fileno(self) -> int:
        return self._selector.fileno()

    def seconds_to_deadline(self) -> float | None:
        return None

    def serve_once(self) -> bool:
        self.times_served += 1
        for _ in self._selector.select(0):
            data = self._sock.recv(100)
            self.got.put((data, threading.get_ident()))
            if data == b"fail":
                raise ZeroDivisionError
            if data == b"end":
                self._selector.close()
                self._sock.close()
                return False
        return True

    def stated(self, data: bytes) -> int:
        self.client.sendall(data)
        got, thread = self.got.get(timeout=PATIENCE_SECONDS)
        assert got == data
        return thread


def test_servers_share_a_thread_until_they_stop(caplog: pytest.LogCaptureFixture) -> None:
    thread, first, second, third = SocketThread(FakeClock()), Echo("one"), Echo("another"), Echo("a third")
    thread.serve(first)
    thread.serve(second)
    threads = {
        first.stated(b"a"),
        second.stated(b"b"),
        first.stated(b"fail"),
        first.stated(b"c"),
        second.stated(b"end"),
    }
    thread.serve(third)
    threads |= {third.stated(b"d"), first.stated(b"e")}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    assert [record.message for record in caplog.records] == [
        "internal error in one, which goes on; please report this with the traceback"
    ]
    assert first.stated(b"g") in threads
    for one in (first, third):
        one.stated(b"end")
    for one in (first, second, third):
        one.client.close()


class Due(Echo):
    """Stops when its deadline has come."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._due_ns = SystemClock().boottime_ns() + 20_000_000

    def seconds_to_deadline(self) -> float | None:
        return max(0, self._due_ns - SystemClock().boottime_ns()) / NS_PER_S

    def serve_once(self) -> bool:
        if self.seconds_to_deadline() == 0:
            self.client.sendall(b"end")
        return super().serve_once()


def test_a_deadline_is_kept_and_a_new_thread_starts_after_all_have_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    thread, pair = SocketThread(FakeClock()), socket.socketpair
    pairs: list[tuple[socket.socket, socket.socket]] = []

    def socketpair() -> tuple[socket.socket, socket.socket]:
        pairs.append(pair())
        return pairs[-1]

    monkeypatch.setattr(socket, "socketpair", socketpair)
    for _ in range(2):
        silent, due = Echo("silent"), Due("due")
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError):
                thread.serve(silent)
            patched.setattr(selectors, "DefaultSelector", Mock(side_effect=OSError(24, "Too many open files")))
            with pytest.raises(OSError, match="Too many"):
                thread.serve(silent)
        thread.serve(silent)
        thread.serve(due)
        assert due.got.get(timeout=PATIENCE_SECONDS)[0] == b"end"
        silent.stated(b"end")
        assert silent.times_served < 10, "the thread waits for what comes"
        for running in threading.enumerate():
            if running.name == "sockets":
                running.join(PATIENCE_SECONDS)
                assert not running.is_alive()
        for one in (silent, due):
            one.client.close()
    assert len(pairs) == 10, "three of the thread and two of its servers, twice"
    assert {one.fileno() for both in pairs for one in both} == {-1}, "each is closed"


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_server_that_keeps_failing_does_not_occupy_the_cpu() -> None:
    waits = list[float]()

    class Noting(FakeClock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            waits.append(seconds)
            return super().wait(event, seconds)

    thread, server = SocketThread(Noting()), Echo("one")
    thread.serve(server)
    for text in (b"fail", b"a", b"fail", b"end"):
        server.stated(text)
    assert waits == [1, 1]
    server.client.close()
