"""The listener: what a process says arrives as events, and nothing that it does stops or fills the daemon."""

from __future__ import annotations

import json
import os
import queue
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flopsd.clock import SystemClock
from flopsd.core.sessions import Event, FactsDeclared, PhaseChanged, SessionClosed, SessionOpened, WorkCounted
from flopsd.listening import Listener

ID = "0123456789abcdef" * 2
PATIENCE_SECONDS = 30


class Ear:
    def __init__(self, path: Path, uids: tuple[int, ...] = ()) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.listener = Listener(path, uids, self.events.put, SystemClock())
        self.listener.start()

    def next(self) -> Event:
        return self.events.get(timeout=PATIENCE_SECONDS)


class Peer:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")

    def say(self, kind: str, **fields: Any) -> None:
        self.socket.sendall(json.dumps({"flopsd": 1, "kind": kind, **fields}).encode() + b"\n")

    def hello(self, session: str = ID) -> dict[str, Any]:
        self.say("hello", session=session, client="0.1.0", pid=os.getpid())
        return self.answer()

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.readline())
        return found

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(tmp_path / "client.sock")
    yield ear
    ear.listener.stop()


def test_what_a_process_says_arrives_in_order(ear: Ear) -> None:
    peer = Peer(ear.listener.path)
    assert peer.hello() == {"flopsd": 1, "ok": True}
    peer.say("declare", facts={"method": "lora", "lora": {"r": 8}})
    peer.say("phase", phase="evaluate")
    peer.say("phase", phase="undeclared")
    peer.say("work", work={"train": {"tokens": 2**70}})
    peer.say("bye")
    assert peer.answer() == {"flopsd": 1, "ok": True}
    assert peer.file.readline() == b""
    peer.close()
    assert [ear.next() for _ in range(6)] == [
        SessionOpened(ID, os.getpid(), os.getuid(), "0.1.0"),
        FactsDeclared(ID, {"method": "lora", "lora": {"r": 8}}),
        PhaseChanged(ID, "evaluate"),
        PhaseChanged(ID, "undeclared"),
        WorkCounted(ID, {"train": {"tokens": 2**70}}),
        SessionClosed(ID, clean=True),
    ]
