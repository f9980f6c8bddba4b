"""One connection of a training process to the daemon, with any kind of answer from the other end."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flopsd import __version__
from flopsd.client.connection import ANSWER_SECONDS, DaemonConnection, RefusedByDaemonError
from flopsd.core.session_protocol import MAX_LINE_BYTES, PROTOCOL
from flopsd.testing.fakes import FakeClock


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(os.fspath(tmp_path / "s"))
        listener.listen()
        yield listener


@pytest.fixture
def both(listener: socket.socket) -> Iterator[tuple[DaemonConnection, socket.socket]]:
    connection = DaemonConnection()
    connection.open([Path(listener.getsockname())])
    daemon, _ = listener.accept()
    with daemon:
        yield connection, daemon
    connection.close()


@pytest.fixture
def connection(both: tuple[DaemonConnection, socket.socket]) -> DaemonConnection:
    return both[0]


@pytest.fixture
def daemon(both: tuple[DaemonConnection, socket.socket]) -> socket.socket:
    return both[1]


def said(**answer: object) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def test_the_first_path_at_which_a_daemon_listens_is_taken(tmp_path: Path, listener: socket.socket) -> None:
    path = Path(listener.getsockname())
    connection = DaemonConnection()
    connection.open([tmp_path / "none", path, tmp_path / "neither"])
    assert connection.path == str(path)
    assert connection._socket.gettimeout() == ANSWER_SECONDS
    connection.close()
    with pytest.raises(OSError, match="no path at which a daemon could listen"):
        connection.open([])
    with pytest.raises(FileNotFoundError):
        connection.open([tmp_path / "none"])
    connection.close()


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"run": "r", "known": True, "at_ns": 1001, "metered_ns": 70}, ("r", True, 931)),
        ({"known": True, "at_ns": 1002, "metered_ns": 70}, ("", True, 932)),
        ({"known": False, "at_ns": 1003, "metered_ns": 70}, ("", False, 932)),  # the clock of another time namespace
        ({"known": 1, "at_ns": 1000, "metered_ns": "70"}, ("", False, 1002)),
        ({}, ("", False, 1002)),
    ],
)
def test_hello_opens_a_session(
    connection: DaemonConnection, daemon: socket.socket, more: dict[str, object], found: tuple[str, bool, int]
) -> None:
    class Clock(FakeClock):
        def boottime_ns(self) -> int:
            self.advance(1)
            return super().boottime_ns()

    daemon.sendall(said(flopsd=PROTOCOL, ok=True, **more))
    assert connection.hello("a session", Clock(1000)) == found
    sent = {"flopsd": PROTOCOL, "kind": "hello", "session": "a session", "client": __version__, "pid": os.getpid()}
    assert json.loads(daemon.recv(1000)) == sent


@pytest.mark.parametrize(
    ("answer", "fault", "words"),
    [
        (said(flopsd=PROTOCOL, ok=False, error="full"), RefusedByDaemonError, "^full$"),
        (said(flopsd=PROTOCOL + 1, ok=True), RefusedByDaemonError, "ok"),
        (said(flopsd=PROTOCOL, error="x" * 500), RefusedByDaemonError, "^x{400}$"),
        (b"[]\n", ValueError, "not a JSON object"),
        (b"hello\n", ValueError, "Expecting value"),
        (b" " * MAX_LINE_BYTES + b"\n", ValueError, "longer than a line may be"),
        (said(flopsd=PROTOCOL, ok=True).rjust(MAX_LINE_BYTES), None, ""),
        (b'{"flopsd":', ConnectionResetError, "closed the connection"),
    ],
    ids=["refused", "another protocol", "a long reason", "a list", "no JSON", "too long", "the longest", "no end"],
)
def test_each_answer_to_a_hello_has_its_result(
    connection: DaemonConnection, daemon: socket.socket, answer: bytes, fault: type[Exception] | None, words: str
) -> None:
    daemon.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_LINE_BYTES)
    daemon.sendall(answer)
    daemon.shutdown(socket.SHUT_WR)
    if fault is None:
        assert connection.hello("s", FakeClock(1000)) == ("", False, 1000)
        return
    with pytest.raises(fault, match=words):
        connection.hello("s", FakeClock())


def test_the_reason_of_a_daemon_that_closes_at_once_is_read(
    connection: DaemonConnection, daemon: socket.socket
) -> None:
    daemon.sendall(said(flopsd=PROTOCOL, error="full"))
    daemon.close()
    with pytest.raises(RefusedByDaemonError, match="full"):
        connection.hello("s", FakeClock())


def test_errors_are_read_one_at_a_time_without_waiting(connection: DaemonConnection, daemon: socket.socket) -> None:
    assert connection.error() is None
    daemon.sendall(said(error="x" * 500) + said(kept=True) + said(error="second"))
    assert [connection.error() for _ in range(4)] == ["x" * 400, None, "second", None]
    daemon.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError, match="closed the connection"):
        connection.error()


def test_a_message_longer_than_the_socket_buffer_can_be_sent_after_an_error_check(
    connection: DaemonConnection, daemon: socket.socket
) -> None:
    assert connection.error() is None
    assert connection._socket.gettimeout() == ANSWER_SECONDS
    received = bytearray()

    def read() -> None:
        while not received.endswith(b"\n"):
            received.extend(daemon.recv(1 << 16))
        daemon.sendall(said(error="of before") + said(ok=True) + said(error="of afterwards"))

    reader = threading.Thread(target=read)
    reader.start()
    connection.send("bye", padding="x" * (1 << 20))
    reader.join()
    assert len(received) > 1 << 20
    connection.bye()  # the first answer is read for both, and the error before it is skipped
    assert connection.error() == "of afterwards"
    assert json.loads(daemon.recv(1000)) == {"flopsd": PROTOCOL, "kind": "bye"}
