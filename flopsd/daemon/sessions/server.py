"""The server for training processes, which declare over a Unix socket what no hardware counter shows.

One thread serves all of them and the web server's connections. Nothing that a process sends, or fails to send, delays a
reading or uses unlimited memory: the length of lines, the sessions and the messages per second are limited. A process
that sends more is read later.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from flopsd.core.session_protocol import (
    MAX_LINE_BYTES,
    PROTOCOL,
    Event,
    NotServed,
    RefusedError,
    SessionClosed,
    SessionOpened,
)
from flopsd.daemon.sessions.peer import HELLO_SECONDS, Allowance, Peer
from flopsd.daemon.sessions.socket_file import listen_on
from flopsd.errors import ListenError
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.socket_thread import AcceptLog, SocketThread

log = logging.getLogger("flopsd")
MAX_SESSIONS = 64
CONNECTS_A_SECOND = 64
SILENT_NS = NS_PER_S // 10  # how long a hello may take when all places are taken
BEHIND_NS = NS_PER_S // 10
KEPT_OUT_NS = 150 * NS_PER_S  # a refused client tries again each minute; one that has not then may have ended
MAX_KNOWN = 4000  # sessions whose `hello` is answered with `known`; later ones count as new


def _line(**answer: object) -> bytes:
    return json.dumps({"flopsd": PROTOCOL, **answer}).encode("ascii") + b"\n"


class SessionServer:
    """Passes events to `post` from the thread that serves it, until `stop`."""

    name = "the server for training processes"

    def __init__(
        self, path: Path, uids: Collection[int], post: Callable[[Event], None], clock: Clock,
        known: Mapping[str, int] | None = None, is_behind: Callable[[], bool] = lambda: False,
        since_ns: tuple[int, int] | None = None, run_key: str = "",
    ) -> None:  # fmt: skip
        """`uids`: who may connect, in addition to root and this process's own user. `known`: the uid of each session
        that the run already has. `is_behind`: whether the receiver of events has too many of them, so that nothing is
        read for now. `since_ns`: since when the run is metered without a stop, for sessions that are new to it and for
        known ones; None: since now, and since ever. `run_key`: see History."""
        self.path = path
        self._since_ns = (clock.boottime_ns(), 0) if since_ns is None else since_ns
        self._run_key = run_key
        self._allowed = frozenset({0, os.geteuid(), *uids})
        self._mode = 0o666 if uids else 0o600  # the user of each connection is checked too
        self._post, self._clock, self._is_behind = post, clock, is_behind
        self._accept_log = AcceptLog(clock, "training process")
        self._peers: dict[socket.socket, Peer] = {}
        self._paused: dict[socket.socket, int] = {}  # nothing is read from a socket until then
        self._without_place: dict[int | None, int] = {}  # since when each process has been refused
        self._stopping, self._stopped = threading.Event(), threading.Event()
        self._served = False
        self.known = dict(known or {})

    def start(self, thread: SocketThread | None = None) -> None:
        """Bind, and serve in `thread`, or else in a new one. Raises ListenError."""
        self._socket = listen_on(self.path, mode=self._mode, backlog=MAX_SESSIONS)
        self.inode = self.path.stat().st_ino
        self._connects = Allowance(CONNECTS_A_SECOND, self._clock.boottime_ns())
        try:
            self._selector = selectors.DefaultSelector()
            self._wake_read, self._wake_write = socket.socketpair()
            for one in (self._socket, self._wake_read):
                one.setblocking(False)
                self._selector.register(one, selectors.EVENT_READ)
            (thread or SocketThread(self._clock)).serve(self)
        except (OSError, RuntimeError) as fault:  # no descriptors left, or no threads
            self._socket.close()
            self.path.unlink(missing_ok=True)
            raise ListenError(f"cannot listen on {self.path}: {fault}") from fault
        self._served = True

    def stop(self) -> None:
        """Close every session and remove the socket. Everything sent before is posted first."""
        if not self._served:
            return
        self._stopping.set()
        self._wake_write.send(b"x")
        self._stopped.wait()
        self._served = False
        for one in (self._wake_read, self._wake_write):
            one.close()

    def fileno(self) -> int:
        return self._selector.fileno()

    def serve_once(self) -> bool:
        """Post what has arrived. Return False if `stop` was called and everything is posted."""
        is_last = self._stopping.is_set()
        self._take_in()
        if not is_last:
            return True
        for one in self._paused:
            self._selector.register(one, selectors.EVENT_READ)
        self._paused.clear()
        for peer in list(self._peers.values()):
            self._read_to_the_end(peer)
            self._drop(peer)
        with suppress(OSError):
            if self.path.stat().st_ino == self.inode:
                self.path.unlink()
        self._selector.close()
        self._socket.close()
        self._stopped.set()
        return False

    def _take_in(self) -> None:
        for key, _ in self._selector.select(0):
            if key.fileobj is self._socket:
                self._accept()
            elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._peers:
                self._read(self._peers[key.fileobj])
        now_ns = self._clock.boottime_ns()
        for one in [one for one, until_ns in self._paused.items() if until_ns <= now_ns]:
            if self._paused.pop(one, None) is None:
                continue  # dropped in this loop: another connection took over its session
            self._selector.register(one, selectors.EVENT_READ)
            if one in self._peers:
                self._read_lines(self._peers[one])
        for peer in list(self._peers.values()):
            if peer.talk.session is None and peer.hello_by_ns <= now_ns:
                self._refuse(peer, f"no hello within {HELLO_SECONDS} s")

    def seconds_to_deadline(self) -> float | None:
        """Return the seconds until the next pause or hello deadline ends; None if there is none."""
        due = [*self._paused.values(), *(p.hello_by_ns for p in self._peers.values() if p.talk.session is None)]
        return max(0.0, (min(due) - self._clock.boottime_ns()) / NS_PER_S) if due else None

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as fault:
            self._accept_log.note(fault)
            self._pause(self._socket, self._clock.boottime_ns() + NS_PER_S)  # out of file descriptors, perhaps
            return
        connection.setblocking(False)
        now_ns = self._clock.boottime_ns()
        peer = Peer(connection, now_ns)
        if not self._connects.spend(1, now_ns):
            self._pause(self._socket, self._connects.renewed_ns)
        uid = peer.talk.uid
        if uid not in self._allowed:
            self._refuse(peer, f"user {uid} may not connect to this daemon: --client-uids does not list it")
        elif len(self._peers) >= MAX_SESSIONS and not self._drop_a_silent_one(now_ns):
            if len(self._without_place) <= MAX_SESSIONS:
                self._without_place.setdefault(peer.talk.pid, now_ns)
            self._refuse(peer, f"{MAX_SESSIONS} processes are connected already")
        else:
            self._peers[connection] = peer
            self._selector.register(connection, selectors.EVENT_READ)

    def _drop_a_silent_one(self, now_ns: int) -> bool:
        """Close the connection that has been without a hello for longest, if one is overdue; return whether it was."""
        said_by_ns = now_ns + HELLO_SECONDS * NS_PER_S - SILENT_NS
        for peer in self._peers.values():
            if peer.talk.session is None and peer.hello_by_ns <= said_by_ns and peer.connection not in self._paused:
                self._drop(peer)
                return True
        return False

    def keeps_out(self, for_ns: int = KEPT_OUT_NS) -> bool:
        """Whether a process was refused that long ago and has not connected since, or more than can be kept track of.
        Safe from any thread."""
        since_ns = list(self._without_place.values())
        return len(since_ns) > MAX_SESSIONS or any(self._clock.boottime_ns() - at >= for_ns for at in since_ns)

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.connection.recv(MAX_LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        now_ns = self._clock.boottime_ns()
        peer.buffer += data
        if not peer.bytes.spend(len(data), now_ns):
            self._pause(peer.connection, peer.bytes.renewed_ns)
        self._read_lines(peer)

    def _read_to_the_end(self, peer: Peer) -> None:
        """Post what a process has sent, and let it send no more, which it would take for received."""
        peer.end(self._clock.boottime_ns())
        self._read_lines(peer)
        while peer.connection in self._peers and peer.connection not in self._paused:
            self._read(peer)
        if peer.connection in self._paused:
            self._post(NotServed())

    def _read_lines(self, peer: Peer) -> None:
        """Handle the complete lines received, up to the peer's limit."""
        while peer.connection in self._peers and peer.connection not in self._paused:
            line, newline, rest = peer.buffer.partition(b"\n")
            if len(line) > MAX_LINE_BYTES:
                self._refuse(peer, f"a line of more than {MAX_LINE_BYTES} bytes")
                return
            if not newline:
                return
            now_ns = self._clock.boottime_ns()
            if self._is_behind() and not self._stopping.is_set():
                self._pause(peer.connection, now_ns + BEHIND_NS)
                return
            peer.buffer = rest
            if not peer.messages.spend(1, now_ns):
                self._pause(peer.connection, peer.messages.renewed_ns)
            self._receive(peer, bytes(line))

    def _receive(self, peer: Peer, line: bytes) -> None:
        try:
            event = peer.talk.receive(line)
            if isinstance(event, SessionOpened):
                self._take_over(peer, event.session)
        except RefusedError as fault:
            self._refuse(peer, str(fault), last=fault.last)
            return
        self._post(event)
        try:
            if isinstance(event, SessionOpened):
                self._without_place.pop(peer.talk.pid, None)
                known = event.session in self.known
                at_ns = self._clock.boottime_ns()
                metered_ns = at_ns - self._since_ns[known]
                peer.answer(_line(ok=True, known=known, run=self._run_key, at_ns=at_ns, metered_ns=metered_ns))
                if len(self.known) < MAX_KNOWN:
                    self.known[event.session] = event.uid
            elif isinstance(event, SessionClosed):
                peer.answer(_line(ok=True))
        except OSError:
            self._drop(peer)
        if isinstance(event, SessionClosed):
            peer.talk.session = None  # closed cleanly, so `_drop` posts nothing
            self._drop(peer)

    def _take_over(self, peer: Peer, session: str) -> None:
        """Move a session from another connection to this one: its process lost the other one before we noticed. Raises
        RefusedError if the session is another process's, or was another user's: session ids are in ledgers, which
        others may read."""
        if self.known.get(session, peer.talk.uid) != peer.talk.uid:
            peer.talk.session = None
            raise RefusedError("hello: this session belongs to another user", last=True)
        for other in list(self._peers.values()):
            if other is not peer and other.talk.session == session:
                if (other.talk.pid, other.talk.uid) != (peer.talk.pid, peer.talk.uid):
                    peer.talk.session = None
                    raise RefusedError("hello: this session belongs to another process", last=True)
                other.talk.session = None  # it continues on this connection
                self._drop(other)

    def _refuse(self, peer: Peer, why: str, *, last: bool = True) -> None:
        try:
            peer.answer(_line(error=why))
        except OSError:
            last = True
        if last:
            self._drop(peer)

    def _pause(self, one: socket.socket, until_ns: int) -> None:
        self._paused[one] = until_ns
        self._selector.unregister(one)

    def _drop(self, peer: Peer) -> None:
        if self._peers.pop(peer.connection, None) is not None and self._paused.pop(peer.connection, None) is None:
            self._selector.unregister(peer.connection)
        peer.connection.close()
        if peer.talk.session is not None:
            self._post(SessionClosed(peer.talk.session, clean=False))
            peer.talk.session = None
