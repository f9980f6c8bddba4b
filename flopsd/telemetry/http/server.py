"""The HTTP server's connections: one thread waits for all of them; each request gets a thread of its own.

A plain scrape, which nothing can delay, is answered by the waiting thread. A waiting connection (a silent client, a
client after its handshake, half a request, a kept connection) uses no thread.
Every wait and every response has a deadline. Under overload the connection that takes longest is closed, and the newest
is served first: a scrape takes milliseconds, and a scrape behind a flood would be too late anyway.
See docs/adr/0005-own-http-front.md.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from flopsd.errors import ConfigError
from flopsd.system.clock import NS_PER_S, Clock, SystemClock
from flopsd.system.socket_thread import AcceptLog, SocketThread
from flopsd.telemetry.families import Family
from flopsd.telemetry.http.access import Access
from flopsd.telemetry.http.exchange import REQUEST_SECONDS, Connection, Exchange, is_loopback, pending
from flopsd.telemetry.http.request import has_request
from flopsd.telemetry.http.routes import Routes
from flopsd.telemetry.http.scrapes import Scrapes
from flopsd.telemetry.snapshot import Snapshot

log = logging.getLogger("flopsd")
MAX_CONNECTIONS = 128
MAX_AT_WORK = 24
FAIR_NS = 100_000_000  # a connection that takes longer is closed if others wait
_SEND_BYTES = 131_072  # so that the kernel buffers a whole response, and a slow reader occupies no thread


class WebServer:
    """Serves the newest snapshot. `start` returns at once."""

    name = "the web server"

    def __init__(
        self, host: str, ports: Sequence[int], snapshot: Callable[[], Snapshot], access: Access | None = None,
        clock: Clock | None = None, extra: Callable[[], Iterable[Family]] = tuple,
    ) -> None:  # fmt: skip
        """Bind to the first free port; raises OSError if none is, or the address is not local. `extra`: metrics that
        are not in the snapshot."""
        self._access, self._clock = access or Access(None), clock or SystemClock()
        self.scrapes = Scrapes(self._clock)
        self._accept_log = AcceptLog(self._clock, "client of the metrics")
        self._listener = bound(host, ports)
        local = is_loopback(self._listener.getsockname()[0]) and not self._access.tls
        routes = Routes(snapshot, extra, compresses=not local)
        self._exchange = Exchange(self._access, routes, local=local, scraped=self.scrapes.note)
        self._listener.setblocking(False)
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[socket.socket, Connection] = {}
        self._ready: list[Connection] = []
        self._at_work: dict[Connection, None] = {}  # the longest-running first
        self._cut_off: set[Connection] = set()  # shut down, but their threads have not returned yet
        self._done: deque[tuple[Connection, bool]] = deque()
        self._lock = threading.Lock()  # a connection is cut or closed under it, so that no descriptor is cut twice
        for sock in (self._listener, self._wake_read):
            self._selector.register(sock, selectors.EVENT_READ)
        self._stopping, self._stopped = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        scheme = "https" if self._access.tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def start(self, thread: SocketThread | None = None) -> None:
        """Serve in `thread`, or in a new one; it wakes only for clients and their deadlines. Raises OSError or
        RuntimeError if no descriptors or no threads are left; then it is closed."""
        try:
            (thread or SocketThread(self._clock)).serve(self)
        except (OSError, RuntimeError):
            self._close()
            raise

    def stop(self) -> None:
        self._stopping.set()
        self._wake()
        self._stopped.wait(REQUEST_SECONDS)

    def fileno(self) -> int:
        return self._selector.fileno()

    def serve_once(self) -> bool:
        """Start serving clients that have sent something. False: `stop` was called, and all connections are closed."""
        if self._stopping.is_set():
            self._close()
            return False
        for key, _ in self._selector.select(0):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._wake_read:
                self._collect_done()
            elif key.data.sock in self._waiting:
                self._leave_wait(key.data)
                self._ready.append(key.data)
        self._start_ready()
        self._close_overdue()
        return True

    def _close(self) -> None:
        with self._selector, self._listener, self._wake_read, self._wake_write:
            for connection in [*self._waiting.values(), *self._ready]:
                connection.sock.close()
            for connection in list(self._at_work):
                self._cut(connection)
            while self._cut_off:
                self._wake_read.setblocking(True)
                self._collect_done()
        self._stopped.set()

    def seconds_to_deadline(self) -> float | None:
        """Seconds until the next deadline of a connection; None while no client is connected."""
        ends = [one.ends_ns(waits=True) for one in self._waiting.values()]
        ends += [one.ends_ns(waits=False) for one in self._at_work]
        if self._ready and self._at_work:
            ends.append(next(iter(self._at_work)).begun_ns + FAIR_NS)
        return max(0.001, (min(ends) - self._clock.boottime_ns()) / NS_PER_S) if ends else None

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as fault:  # the client went away, or there are no descriptors left
                self._accept_log.note(fault)
                if self._waiting:
                    self._close_waiting(self._longest_waiting())
                self._clock.wait(self._stopping, 0.01)
                return
            sock.settimeout(REQUEST_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
            self._wait_for(Connection(sock, self._clock.boottime_ns(), self._access.tls))

    def _wait_for(self, connection: Connection) -> None:
        self._waiting[connection.sock] = connection
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        if len(self._waiting) + len(self._ready) + len(self._at_work) + len(self._cut_off) > MAX_CONNECTIONS:
            self._close_waiting(self._longest_waiting())

    def _longest_waiting(self) -> Connection:
        """The waiting connection to close first: new clients before clients that were served before."""
        return min(self._waiting.values(), key=lambda one: (one.served, one.since_ns))

    def _leave_wait(self, connection: Connection) -> None:
        self._selector.unregister(connection.sock)
        del self._waiting[connection.sock]

    def _close_waiting(self, connection: Connection) -> None:
        self._leave_wait(connection)
        connection.sock.close()

    def _start_ready(self) -> None:
        for _ in range(len(self._ready)):
            now_ns, connection = self._clock.boottime_ns(), self._ready[-1]
            if (goes_on := self._served_at_once(connection, now_ns)) is not None:
                self._ready.pop()
                self._take_back(connection, goes_on)
                continue
            if len(self._at_work) >= MAX_AT_WORK:
                longest = next(iter(self._at_work))
                if longest.begun_ns + FAIR_NS > now_ns:
                    return
                self._cut(longest)
            self._ready.pop()
            if connection.served and not connection.buffer:
                connection.since_ns = now_ns
            self._at_work[connection] = None
            try:
                threading.Thread(target=self._work, args=(connection,), name="web-client", daemon=True).start()
            except RuntimeError:  # no more threads
                self._finish(connection, False)

    def _served_at_once(self, connection: Connection, now_ns: int) -> bool | None:
        connection.begun_ns = now_ns
        try:
            return self._exchange.serve_at_once(connection)
        except OSError as fault:
            log.debug("a client went away: %s", fault)
        except Exception:
            log.exception("internal error while serving a client; please report this with the traceback")
        return False

    def _cut(self, connection: Connection) -> None:
        """Shut the connection down; its thread then reads the end of the stream and returns it."""
        del self._at_work[connection]
        self._cut_off.add(connection)
        with self._lock:
            try:
                # Not SSLSocket.shutdown, after which the other thread would go on unencrypted.
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
            except OSError:
                pass  # the client closed it first

    def _close_overdue(self) -> None:
        now_ns = self._clock.boottime_ns()
        for connection in [one for one in self._waiting.values() if one.ends_ns(waits=True) <= now_ns]:
            self._close_waiting(connection)
        for connection in [one for one in self._ready if one.ends_ns(waits=True) <= now_ns]:
            self._ready.remove(connection)
            connection.sock.close()
        for connection in [one for one in self._at_work if one.ends_ns(waits=False) <= now_ns]:
            self._cut(connection)

    def _collect_done(self) -> None:
        try:
            self._wake_read.recv(4096)
        except BlockingIOError:
            pass
        while self._done:
            connection, goes_on = self._done.popleft()
            if connection in self._cut_off:
                self._cut_off.remove(connection)
                connection.sock.close()
            else:
                del self._at_work[connection]
                self._take_back(connection, goes_on)

    def _take_back(self, connection: Connection, goes_on: bool) -> None:
        """After a request, let a connection wait, be served again or end."""
        if not goes_on:
            connection.sock.close()
            return
        if connection.served and not connection.buffer:
            connection.since_ns = connection.begun_ns
        if has_request(connection.buffer) or pending(connection.sock):
            self._ready.insert(0, connection)  # after all others
        else:
            self._wait_for(connection)

    def _finish(self, connection: Connection, goes_on: bool) -> None:
        self._done.append((connection, goes_on))
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"x")
        except OSError:
            pass  # full, so the thread wakes anyway; or closed

    def _work(self, connection: Connection) -> None:
        """One handshake or request of a client, in its own thread."""
        goes_on = False
        try:
            act = self._shake_hands if connection.waits_for_handshake else self._exchange.serve
            goes_on = act(connection)
        except ConfigError as fault:
            self._access.log_refusal(fault)
        except (OSError, ValueError) as fault:  # SSLError is an OSError; ValueError: it was closed meanwhile
            log.debug("a client went away: %s", fault)
        except Exception:
            log.exception("internal error while serving a client; please report this with the traceback")
        finally:
            self._finish(connection, goes_on)

    def _shake_hands(self, connection: Connection) -> bool:
        context = self._access.context()
        with self._lock:
            encrypted = context.wrap_socket(connection.sock, server_side=True, do_handshake_on_connect=False)
            connection.sock, connection.waits_for_handshake = encrypted, False
        encrypted.do_handshake()
        if not self._access.admits_certificate(encrypted):
            log.debug("a client certificate has none of the allowed names")
            return False
        # Its request may have arrived already; otherwise the connection waits without a thread.
        return self._exchange.serve(connection) if pending(encrypted) else True


def bound(host: str, ports: Sequence[int]) -> socket.socket:
    """A listening socket at the first free port. Raises OSError if no port is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports[:-1]:
        try:
            return socket.create_server((host, port), family=family, backlog=128)
        except OSError as fault:
            if fault.errno != errno.EADDRINUSE:
                raise
    return socket.create_server((host, ports[-1]), family=family, backlog=128)
