"""Sockets as a service manager has them, and a process that can open no more."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """This process can open no file and accept no connection."""
    before, free = resource.getrlimit(resource.RLIMIT_NOFILE), os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def fill_socket(place: Path | str) -> None:
    """Fill it until a new sender finds no room: a single sender fills only its own buffer."""
    for _ in range(1_000_000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            try:
                sender.sendto(b"x", str(place))
            except BlockingIOError:
                return
    raise AssertionError("it never was full")
