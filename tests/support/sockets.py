"""Sockets as a service manager has them."""

import socket
from pathlib import Path


def fill_socket(place: Path | str) -> None:
    """Fill it until a new sender finds no room: a single sender fills only its own buffer."""
    for _ in range(1_000_000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            try:
                sender.sendto(b"x", str(place))
            except BlockingIOError:
                return
    raise AssertionError("it never was full")
