"""One connection to the daemon: JSON lines over its Unix socket, as in docs/training-process.md."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flopsd import __version__
from flopsd.core.declared_facts import facts_from
from flopsd.core.session_protocol import MAX_LINE_BYTES, PROTOCOL, Conversation, FactsDeclared, RefusedError
from flopsd.system.clock import Clock

ANSWER_SECONDS = 5.0


class RefusedByDaemonError(Exception):
    """The daemon answered hello with an error."""


class DaemonConnection:
    """A connection, made by `open`. Methods raise OSError if the daemon went away, ValueError for an invalid answer."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)

    def open(self, paths: Iterable[Path]) -> None:
        """Connect to the first of `paths` at which a daemon listens."""
        fault = OSError("there is no path at which a daemon could listen")
        for path in paths:
            self._socket.close()
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(ANSWER_SECONDS)
            try:
                return self._socket.connect(os.fspath(path))
            except OSError as error:
                fault = error
        raise fault

    @property
    def path(self) -> str:
        return str(self._socket.getpeername())

    def hello(self, session: str, clock: Clock) -> tuple[str, bool, int]:
        """Open `session`. Return a text that names the daemon's run, whether that has the session already, and since
        when it has had no stop, or later. Raises RefusedByDaemonError too."""
        asked_ns = clock.boottime_ns()
        with suppress(BrokenPipeError):  # the reason for a refusal can still be read
            self.send("hello", session=session, client=__version__, pid=os.getpid())
        answer = self._answer()
        if answer.get("flopsd") != PROTOCOL or answer.get("ok") is not True:
            raise RefusedByDaemonError(str(answer.get("error", answer))[:400])
        now_ns = clock.boottime_ns()
        at_ns, metered_ns = (value if type(value := answer.get(name)) is int else 0 for name in ("at_ns", "metered_ns"))
        # In another time namespace the daemon's clock differs from ours.
        since_ns = (at_ns if asked_ns <= at_ns <= now_ns else now_ns) - metered_ns
        return str(answer.get("run", "")), answer.get("known") is True, since_ns

    def send(self, kind: str, **fields: object) -> None:
        self._socket.sendall(line(kind, **fields))

    def bye(self) -> None:
        """Close the session and wait for the daemon's confirmation."""
        self.send("bye")
        while "ok" not in self._answer():
            pass

    def error(self) -> str | None:
        """Return the next error that the daemon sent, without waiting for one."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        finally:
            self._socket.settimeout(ANSWER_SECONDS)
        answer = self._answer()
        return f"{answer['error']!s:.400}" if "error" in answer else None

    def close(self) -> None:
        self._socket.close()

    def _answer(self) -> dict[str, Any]:
        received = bytearray()
        while not received.endswith(b"\n"):
            piece = self._socket.recv(1)  # answers are short and few
            if not piece:
                raise ConnectionResetError("the daemon closed the connection")
            received += piece
            if len(received) > MAX_LINE_BYTES:
                raise ValueError("the answer is longer than a line may be")
        answer = json.loads(received)
        if not isinstance(answer, dict):
            raise ValueError("the answer is not a JSON object")
        return answer


def line(kind: str, **fields: object) -> bytes:
    """Return one message in the form of the protocol."""
    message = {"flopsd": PROTOCOL, "kind": kind, **fields}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def checked_fact(name: str, value: object) -> Any:
    """Return a fact as the daemon will read it. Raises ValueError."""
    message = line("declare", facts=facts_from({name: value}))
    if len(message) > MAX_LINE_BYTES:
        raise ValueError(f"{name} has more than {MAX_LINE_BYTES} bytes")
    daemon = Conversation(0, 0)
    daemon.session = ""
    try:
        event = daemon.receive(message)
    except RefusedError as fault:
        raise ValueError(f"{name}: {fault}") from None
    assert isinstance(event, FactsDeclared)
    return event.facts[name]
