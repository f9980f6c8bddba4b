"""Clients that are slow, silent, many or oversized: scrapes continue meanwhile, and no client stays for ever.

No time is asserted: such clients never end by themselves, so a scrape that waited for them would hang.
"""

import gzip
import http.client
import logging
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import flopsd.telemetry.http.server as server_module
from flopsd.system.clock import Clock, SystemClock
from flopsd.telemetry.http.access import Access
from flopsd.telemetry.http.exchange import KEEP_SECONDS, REQUEST_SECONDS, Connection, Exchange
from flopsd.telemetry.http.routes import Routes
from flopsd.telemetry.http.server import MAX_AT_WORK, MAX_CONNECTIONS, WebServer
from flopsd.testing import FakeClock
from tests.support.certificates import Authority
from tests.support.process import wait_until
from tests.support.runs import Run
from tests.support.sockets import no_descriptor_left

HEADER_BYTES = 10_000_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Door:
    """A server with TLS, and ways to connect to it."""

    def __init__(self, server: WebServer, ca: Path) -> None:
        self.server = server
        self.address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        self.context = ssl.create_default_context(cafile=str(ca))

    def knock(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def shake_hands(self) -> ssl.SSLSocket:
        return self.context.wrap_socket(self.knock(), server_hostname="127.0.0.1")

    def scrape(self) -> int:
        connection = http.client.HTTPSConnection(*self.address, timeout=30, context=self.context)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert b"flopsd_run_flop" in answer.read()
        connection.close()
        return answer.status


@pytest.fixture
def door(tmp_path: Path, clock: Clock) -> Iterator[Door]:
    authority = Authority(tmp_path / "tls")
    authority.server()
    file = tmp_path / "tls" / "web.yml"
    file.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    run = Run(tmp_path / "state")
    run.meter(1)
    server = WebServer("127.0.0.1", [0], lambda: run.writer.snapshot, Access(file), clock)
    server.start()
    yield Door(server, authority.ca)
    server.stop()
    run.kill()


@contextmanager
def all_of(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        for one in sockets:
            stack.enter_context(one)
        yield sockets


def is_closed(sock: socket.socket) -> bool:
    sock.settimeout(0.001)
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def nobody_is_served(door: Door) -> None:
    """Wait, before the test clock is stepped: the step could end a turn that real time would not."""
    wait_until(lambda: not door.server._at_work, "no turn goes on")


def rss_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def test_connections_over_the_limit_are_closed_longest_waiting_first(door: Door) -> None:
    with all_of([door.knock() for _ in range(MAX_CONNECTIONS + 20)]) as idle:
        assert door.scrape() == 200
        wait_until(lambda: sum(map(is_closed, idle)) >= 20, "20 are closed")
        closed = [is_closed(one) for one in idle]
        assert not any(closed[40:])


def test_the_server_wakes_at_the_deadline_of_a_waiting_or_served_client(door: Door, clock: FakeClock) -> None:
    server = door.server
    assert server.seconds_to_deadline() is None
    with door.knock() as silent:
        wait_until(lambda: server._waiting, "it is let in")
        assert server.seconds_to_deadline() == REQUEST_SECONDS
        clock.advance(3 * 10**9)
        silent.sendall(b"\x16")  # the first byte of a handshake: a thread waits for the rest
        wait_until(lambda: server._at_work, "it is served")
        assert server.seconds_to_deadline() == REQUEST_SECONDS - 3
        clock.advance((REQUEST_SECONDS - 3) * 10**9)
        assert server.seconds_to_deadline() == 0.001
        assert door.scrape() == 200  # wakes it
        wait_until(lambda: is_closed(silent), "it is closed")


def test_a_long_tls_answer_does_not_wait_for_acknowledgements(door: Door) -> None:
    with door.knock():
        wait_until(lambda: door.server._waiting, "it is let in")
        (client,) = door.server._waiting
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_partial_requests_hold_no_thread_and_end(door: Door, clock: FakeClock) -> None:
    with all_of([door.shake_hands() for _ in range(60)]) as slow:
        for one in slow:
            one.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        assert door.scrape() == 200
        nobody_is_served(door)
        clock.advance((REQUEST_SECONDS - 1) * 10**9)
        for one in slow:
            one.sendall(b"a")  # which gives none of them more time
        assert door.scrape() == 200
        assert not any(is_closed(one) for one in slow)
        nobody_is_served(door)
        clock.advance(2 * 10**9)
        assert door.scrape() == 200  # wakes it
        wait_until(lambda: all(map(is_closed, slow)), "all of them are closed")


@pytest.mark.parametrize("clock", [SystemClock()], ids=["real time"])
def test_slow_readers_do_not_delay_a_scrape(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask for much and read nothing: answers that cannot be sent occupy all threads, until one more client
    comes."""
    monkeypatch.setattr(
        server_module, "FAIR_NS", 1_000_000_000
    )  # enough for the scrape's own turn too, on a busy machine
    ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
    slow: list[socket.socket] = []
    for _ in range(MAX_AT_WORK * 2):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(door.address)
        slow.append(door.context.wrap_socket(raw, server_hostname="127.0.0.1"))
    with all_of(slow):
        for one in slow:
            try:
                one.sendall(ask)
            except OSError:
                pass  # closed already
        for _ in range(5):
            assert door.scrape() == 200


def test_a_client_that_does_not_read_its_answer_is_closed_and_holds_no_thread(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.meter(1)
    exchange = Exchange(Access(None), Routes(lambda: run.writer.snapshot, tuple, compresses=False))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        theirs.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert exchange.serve_at_once(Connection(ours, 0, False)) is None
        assert exchange.serve(Connection(ours, 0, False)) is False
    run.kill()


def test_a_header_of_ten_megabytes_is_refused_and_not_kept(door: Door) -> None:
    door.scrape()
    before = rss_mb()
    chunk = b"x" * 65536
    with door.knock() as raw, door.context.wrap_socket(raw, server_hostname="127.0.0.1") as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        sent = 0
        try:
            while sent < HEADER_BYTES:
                client.sendall(chunk)
                sent += len(chunk)
                if sent == 10 * len(chunk):
                    assert door.scrape() == 200
        except OSError:
            pass  # the server may close at once
        assert rss_mb() - before < HEADER_BYTES / 1e6 / 2
    assert door.scrape() == 200


def test_pipelined_requests_are_answered_in_order(door: Door) -> None:
    with door.shake_hands() as client:
        client.sendall(
            b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3
            + b"GET /nope HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        answers = b"".join(iter(lambda: client.recv(4096), b""))
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answers) == [b"200", b"200", b"200", b"404"]


def test_a_kept_connection_serves_many_scrapes_and_ends_when_idle(door: Door, clock: FakeClock) -> None:
    connection = http.client.HTTPSConnection(*door.address, timeout=30, context=door.context)
    for _ in range(3):
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        sock = connection.sock
        answer = connection.getresponse()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert b"flopsd_run_flop" in gzip.decompress(answer.read())
        assert connection.sock is sock, "it was not kept"
        nobody_is_served(door)
        clock.advance((KEEP_SECONDS - 1) * 10**9)
        assert door.scrape() == 200
    nobody_is_served(door)
    clock.advance(2 * 10**9)
    assert door.scrape() == 200
    assert connection.sock is not None
    kept: socket.socket = connection.sock
    wait_until(lambda: is_closed(kept), "it is closed")
    connection.close()


def test_the_server_stops_with_clients_served_and_waiting(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    run.meter(1)
    server = WebServer("127.0.0.1", [0], lambda: run.writer.snapshot)
    server.start()
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as waits:
        waits.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert waits.recv(4096).startswith(b"HTTP/1.1 200 OK")
        server.stop()
        assert waits.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)
    run.kill()


def test_a_server_without_descriptors_is_logged_once_and_serves_again(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as first, socket.socket() as second, no_descriptor_left():
        for client in (first, second):
            client.connect(door.address)
        wait_until(lambda: "no client" in caplog.text, "a line in the log")
    assert door.scrape() == 200
    (said,) = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert said.startswith(
        "no client of the metrics can connect: Too many open files; metering goes on; raise the limit"
    )
