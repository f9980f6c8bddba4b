"""One thread that waits for the sockets of several servers."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
from collections.abc import Collection
from contextlib import ExitStack, suppress
from typing import Protocol

from flopsd.system.clock import Clock
from flopsd.system.log_rest import LogRest

log = logging.getLogger("flopsd")
_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # any other fault is the client's


class Server(Protocol):
    """Sockets in a selector of the server's own, which another selector can wait for, and deadlines."""

    name: str

    def fileno(self) -> int:
        """Return the descriptor of its selector."""

    def seconds_to_deadline(self) -> float | None:
        """Return the seconds until it must be served even if its sockets are silent; None: there is no deadline."""

    def serve_once(self) -> bool:
        """Do what can be done now, without waiting. Return False if the server has stopped."""


class AcceptLog:
    """Logs connections that a server cannot accept: those of `who`, such as `training process`."""

    def __init__(self, clock: Clock, who: str) -> None:
        self._rest, self._who = LogRest(clock), who

    def note(self, fault: OSError) -> None:
        if fault.errno in _NONE_LEFT and self._rest.is_due(fault.errno):
            log.error(
                "no %s can connect: %s; metering goes on; raise the limit of open files (ulimit -n, LimitNOFILE=) or "
                "end what holds them",
                self._who,
                fault.strerror,
            )
        else:
            log.debug("cannot accept a %s: %s", self._who, fault)


class SocketThread:
    """A thread that runs while it has a server. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._new: list[Server] = []
        self._lock = threading.Lock()
        self._wake: socket.socket | None = None

    def serve(self, server: Server) -> None:
        """Serve a server until it stops. Raises OSError or RuntimeError if no descriptors or no threads are left."""
        with self._lock:
            if self._wake is None:
                with ExitStack() as opened:  # closes them if this fails
                    woken, wake = map(opened.enter_context, socket.socketpair())
                    woken.setblocking(False)
                    selector = opened.enter_context(selectors.DefaultSelector())
                    threading.Thread(target=self._run, args=(woken, selector), name="sockets", daemon=True).start()
                    opened.pop_all()
                self._wake = wake
            self._new.append(server)
            self._wake.send(b"x")

    def _run(self, woken: socket.socket, selector: selectors.BaseSelector) -> None:
        served: dict[Server, int] = {}
        with woken, selector:
            selector.register(woken, selectors.EVENT_READ)
            while not self._ends(served):
                deadlines = [seconds for one in served if (seconds := one.seconds_to_deadline()) is not None]
                selector.select(min(deadlines, default=None))
                with suppress(BlockingIOError):
                    woken.recv(64)
                with self._lock:
                    new, self._new = self._new, []
                for server in new:
                    served[server] = server.fileno()
                    selector.register(served[server], selectors.EVENT_READ)
                for server in list(served):
                    if not self._goes_on(server):
                        selector.unregister(served.pop(server))

    def _ends(self, served: Collection[Server]) -> bool:
        with self._lock:
            if served or self._new:
                return False
            assert self._wake is not None
            self._wake.close()
            self._wake = None
            return True

    def _goes_on(self, server: Server) -> bool:
        try:
            return server.serve_once()
        except Exception:
            log.exception("internal error in %s, which goes on; please report this with the traceback", server.name)
            self._clock.wait(threading.Event(), 1)
            return True
