"""Those whom a training process may meet: a listener in this process, one that can be killed, one that never reads."""

from __future__ import annotations

import json
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flopsd.core.session_protocol import Event, WorkCounted
from flopsd.daemon.session_server import SessionServer
from flopsd.system.clock import SystemClock

PATIENCE_SECONDS = 30


class Ear:
    """A listener in this process, and what it heard."""

    def __init__(self, path: Path) -> None:
        self.heard: queue.Queue[Event] = queue.Queue()
        self.listener = SessionServer(path, (), self.heard.put, SystemClock())
        self.listener.start()

    def wait_for(self, event: Event) -> None:
        while self.heard.get(timeout=PATIENCE_SECONDS) != event:
            pass

    def all(self) -> list[Event]:
        """Stop, and everything that was heard since the last time."""
        self.listener.stop()
        found: list[Event] = []
        while not self.heard.empty():
            found.append(self.heard.get())
        return found


def work_of(events: list[Event]) -> dict[str, dict[str, int]]:
    """The last counters that were heard."""
    last = next(event for event in reversed(events) if isinstance(event, WorkCounted))
    return {phase: dict(counters) for phase, counters in last.work.items()}


class Daemon:
    """A process that listens; its events by name, as they come."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ear", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "listening\n"

    def next(self, kind: str) -> dict[str, Any]:
        """The next event of a kind."""
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
def deaf(path: Path) -> Iterator[None]:
    """Somebody who accepts and never reads."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(8)
        yield


@contextmanager
def foreign(path: Path) -> Iterator[None]:
    """A daemon that speaks another version only."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(8)

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
