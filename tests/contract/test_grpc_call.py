"""The gRPC call to the kubelet, against servers that use HTTP/2 and gRPC in various ways, or wrongly."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded

from flopsd.sources.ownership.grpc_call import CallError, call

Reply = Callable[["Server"], None]
MOST_BYTES = 1 << 20
DATA_OF_NO_STREAM = bytes((0, 0, 1, 0, 0, 0, 0, 0, 0, 0))
HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


class Server:
    """One connection on which one request was sent."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer, self.h2 = peer, H2Connection(H2Configuration(client_side=False))
        self.h2.initiate_connection()
        while not any(isinstance(event, StreamEnded) for event in self.receive()):
            pass

    def send(self) -> None:
        self.peer.sendall(self.h2.data_to_send())

    def receive(self) -> list[object]:
        self.send()
        received = self.peer.recv(1 << 16)
        if not received:
            raise ConnectionError
        return list(self.h2.receive_data(received))

    def head(self) -> None:
        self.h2.send_headers(1, HEADERS)

    def data(self, body: bytes, *, frame_bytes: int = 1 << 13, end: bool = False) -> None:
        for at in range(0, len(body), frame_bytes):
            piece = body[at : at + frame_bytes]
            while self.h2.local_flow_control_window(1) < len(piece) + 8:
                self.receive()
            self.h2.send_data(1, piece, end_stream=end and at + frame_bytes >= len(body), pad_length=7)
            self.send()

    def status(self, number: str, message: str = "") -> None:
        self.h2.send_headers(1, [("grpc-status", number), ("grpc-message", message)], end_stream=True)


@contextmanager
def serving(reply: Reply) -> Iterator[socket.socket]:
    """A client's socket whose other end answers by `reply`."""
    client, peer = socket.socketpair()

    def run() -> None:
        with peer:
            try:
                server = Server(peer)
                reply(server)
                server.send()
            except OSError:  # the client gave up
                pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with client:
            yield client
    finally:
        thread.join()


def asked(reply: Reply, within_seconds: float = 20.0) -> bytes:
    with serving(reply) as peer:
        return call(peer, "/v1.A/B", b"question", within_seconds=within_seconds, most_bytes=MOST_BYTES)


def message(body: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + len(body).to_bytes(4, "big") + body


def test_an_answer_in_small_padded_frames_between_pings_is_whole() -> None:
    body = bytes(range(256)) * 1024

    def reply(server: Server) -> None:
        server.h2.ping(b"whenever")
        server.head()
        server.data(message(body), frame_bytes=777)
        server.h2.ping(b"whenever")
        server.status("0")

    assert asked(reply) == body


def test_an_empty_answer_is_valid() -> None:
    assert asked(answered(message(b""))) == b""


def trailers_only(server: Server) -> None:
    end = [("grpc-status", "12"), ("grpc-message", "50%25 of it%0a")]
    server.h2.send_headers(1, [*HEADERS, *end], end_stream=True)


def failed(number: str) -> Reply:
    def reply(server: Server) -> None:
        server.head()
        server.status(number, "why")

    return reply


def answered(body: bytes, *, end: bool = False) -> Reply:
    def reply(server: Server) -> None:
        server.head()
        server.data(body, end=end)
        if not end:
            server.status("0")

    return reply


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (trailers_only, "UNIMPLEMENTED: 50% of it\n"),
        (failed("8"), "RESOURCE_EXHAUSTED: why"),
        (failed("17"), "UNKNOWN: why"),
        (failed("-1"), "UNKNOWN: why"),
        (answered(message(b"x"), end=True), "UNKNOWN: the answer has no status"),
        (answered(message(b"x", compressed=1)), "INTERNAL: the answer is not one uncompressed message"),
        (answered(message(b"x") * 2), "INTERNAL: the answer is not one uncompressed message"),
        (answered(message(b"x")[:-1]), "INTERNAL: the answer is not one uncompressed message"),
        (answered(message(b"x" * (MOST_BYTES + 1))), f"RESOURCE_EXHAUSTED: the answer is larger than {MOST_BYTES} bytes"),
        (lambda server: server.h2.send_headers(1, [(":status", "502")], end_stream=True), "UNKNOWN: HTTP status 502"),
        (lambda server: server.h2.reset_stream(1, 7), "UNAVAILABLE: the server ended the call"),
        (lambda server: server.h2.close_connection(11), "UNAVAILABLE: the server ended the call"),
        (lambda server: server.head(), "UNAVAILABLE: the connection was closed before the answer was complete"),
        (lambda server: server.peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "UNAVAILABLE: the connection was closed"),
        (lambda server: server.peer.sendall(DATA_OF_NO_STREAM), "INTERNAL: this is not HTTP/2"),
    ],
)  # fmt: skip
def test_an_invalid_answer_is_an_error_with_its_reason(reply: Reply, said: str) -> None:
    with pytest.raises(CallError) as caught:
        asked(reply)
    assert str(caught.value).startswith(said)
    assert caught.value.code == said.partition(":")[0]


def test_the_deadline_is_for_the_whole_call() -> None:
    """A server that keeps sending is given up too."""
    ended = threading.Event()

    def reply(server: Server) -> None:
        while not ended.wait(0.01):
            server.h2.ping(b"whenever")
            server.send()

    with serving(reply) as peer:
        try:
            with pytest.raises(TimeoutError):
                call(peer, "/v1.A/B", b"", within_seconds=0.1, most_bytes=MOST_BYTES)
        finally:
            ended.set()
