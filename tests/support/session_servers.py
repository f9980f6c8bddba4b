"""Servers for the client in a training process: one in this process, one that can be killed, and one that never reads.

`python -m tests.support.session_servers SOCKET` is the one that can be killed.
"""

import json
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flopsd.core.session_protocol import Event, WorkCounted
from flopsd.daemon.sessions.server import SessionServer
from flopsd.system.clock import Clock, SystemClock

PATIENCE_SECONDS = 120


class SkippingClock(SystemClock):
    """A clock that can be set forward by `skipped_ns`."""

    skipped_ns = 0

    def boottime_ns(self) -> int:
        return super().boottime_ns() + self.skipped_ns


class EventServer:
    """A session server in this process, and the events that it received."""

    def __init__(
        self, path: Path, uids: tuple[int, ...] = (), clock: Clock | None = None, known: dict[str, int] | None = None,
        most: int = 10**6, since_ns: tuple[int, int] | None = None, run_key: str = "",
    ) -> None:  # fmt: skip
        """`most` is the number of events that may wait to be taken; `since_ns`, `run_key` as in `SessionServer`."""
        self.events: queue.Queue[Event] = queue.Queue()
        self.listener = SessionServer(
            path, uids, self.events.put, clock or SystemClock(), known, lambda: self.events.qsize() >= most, since_ns,
            run_key,
        )  # fmt: skip
        self.listener.start()

    def next(self) -> Event:
        return self.events.get(timeout=PATIENCE_SECONDS)

    def wait_for(self, event: Event) -> None:
        while self.next() != event:
            pass

    def all(self) -> list[Event]:
        """Stop the server; returns all events received since the last call."""
        self.listener.stop()
        found: list[Event] = []
        while not self.events.empty():
            found.append(self.events.get())
        return found


def work_of(events: list[Event]) -> dict[str, dict[str, int]]:
    """The last counters received."""
    last = next(event for event in reversed(events) if isinstance(event, WorkCounted))
    return {phase: dict(counters) for phase, counters in last.work.items()}


class Daemon:
    """A session server in a process of its own, with its events by name, in order."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.session_servers", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "listening\n"

    def next(self, kind: str) -> dict[str, Any]:
        while (found := self.next_event())["event"] != kind:
            pass
        return found

    def next_event(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def close(self) -> None:
        self.process.communicate()


@contextmanager
def never_reads(path: Path) -> Iterator[socket.socket]:
    """A server that accepts and never reads."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(8)
        yield listening


@contextmanager
def foreign(path: Path) -> Iterator[None]:
    """A daemon that speaks only another protocol version."""
    with never_reads(path) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b'{"flopsd":2,"error":"protocol 1 is not supported, only 2"}\n')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def main() -> None:
    said = threading.Event()

    def post(event: Event) -> None:
        said.wait()  # a client may be quicker than the first line
        print(json.dumps({"event": type(event).__name__, **asdict(event)}), flush=True)

    listener = SessionServer(Path(sys.argv[1]), (), post, SystemClock())
    listener.start()
    print("listening", flush=True)
    said.set()
    sys.stdin.read()
    listener.stop()


if __name__ == "__main__":
    main()
