"""HTTP requests that end in time, whatever the server does."""

import socket
from urllib.request import Request

import pytest

from flopsd.telemetry.bounded_http import Sockets, fetch
from tests.support.receivers import receiving


@pytest.mark.long
def test_a_hanging_or_dripping_server_is_cut_off() -> None:
    with receiving() as receiver:
        for behaves in (receiver.hang, receiver.drip):  # a byte every 0.1 s, for ever
            behaves.set()
            with pytest.raises(TimeoutError, match=r"^no whole answer within 0.5 s$"):
                fetch(Request(receiver.url, b"x"), 0.5, 1 << 20)
            behaves.clear()
        receiver.released.set()
        assert fetch(Request(receiver.url, b"x"), 60, 1 << 20) == b""


def test_a_connection_made_after_its_deadline_is_cut_at_once() -> None:
    sockets, (early, peer), (late, other) = Sockets(), socket.socketpair(), socket.socketpair()
    with early, peer, late, other:
        peer.settimeout(5)
        other.settimeout(5)  # a failing test ends sooner than the server
        sockets.keep(early)
        sockets.cut()
        sockets.keep(late)
        assert (peer.recv(1), other.recv(1)) == (b"", b"")
