"""One connection of the HTTP server, and one request and its response on it."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from ipaddress import ip_address

from flopsd.errors import ConfigError
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.http.access import Access, BusyError
from flopsd.telemetry.http.request import END, MAX_HEAD_BYTES, RefusedRequest, Request, has_request, take_request
from flopsd.telemetry.http.response import TEXT, Response, encoded, refusal
from flopsd.telemetry.http.routes import Routes

REQUEST_SECONDS = 10  # from connecting to the end of the first response, and for each later request
KEEP_SECONDS = 150  # between two requests of one connection: longer than usual scrape intervals
_MAX_DISCARDED = 16 << 20
_CHUNK = 16_384
_SCRAPE = b"GET /metrics "
_FOREIGN = b"flopsd listens on a loopback address: ask for localhost or 127.0.0.1, or give --listen another one\n"


class Connection:
    """One client. `since_ns`: boot time when it connected, or when its last response or the request after it began."""

    __slots__ = ("begun_ns", "buffer", "keeps", "served", "since_ns", "sock", "unsent", "waits_for_handshake")

    def __init__(self, sock: socket.socket, since_ns: int, waits_for_handshake: bool) -> None:
        self.sock, self.since_ns, self.waits_for_handshake = sock, since_ns, waits_for_handshake
        self.buffer, self.served, self.begun_ns = bytearray(), False, 0
        self.unsent, self.keeps = b"", True  # the rest of a response; whether the connection stays open after it

    def ends_ns(self, *, waits: bool) -> int:
        """The deadline of the wait for the client, or of the request being served, in boot time."""
        is_kept = waits and self.served and not self.buffer
        return self.since_ns + (KEEP_SECONDS if is_kept else REQUEST_SECONDS) * NS_PER_S


class Exchange:
    """Answers the requests of all connections by `routes`, if `access` admits them. Thread-safe. `local`: the listener
    is on a loopback address without TLS. Then only requests for a loopback address or localhost are answered: a web
    page whose owner points its name at 127.0.0.1 must not read ours (DNS rebinding)."""

    def __init__(
        self, access: Access, routes: Routes, *, local: bool = False, scraped: Callable[[], None] = lambda: None
    ) -> None:
        self._access, self._routes, self._local, self._scraped = access, routes, local, scraped
        # The last scrape that was answered at once, as sent and parsed.
        self._asked: tuple[bytes, Request] | None = None

    def serve_at_once(self, connection: Connection) -> bool | None:
        """Like `serve`, for one complete scrape that nothing can delay: no TLS, no file to read, no password to check.
        None: the connection needs a thread, perhaps only to send the rest of the response."""
        if not self._access.is_open or connection.buffer:
            return None
        data = connection.sock.recv(_CHUNK, socket.MSG_PEEK)
        if not data:
            return False
        if not data.startswith(_SCRAPE) or data.find(END) != len(data) - len(END):
            return None
        if self._asked is not None and self._asked[0] == data:  # a scraper sends the same bytes each time
            request: Request | None = self._asked[1]
        else:
            try:
                request = take_request(bytearray(data))
            except RefusedRequest:
                return None
        if request is None or not _can_send(connection.sock):
            return None
        self._asked = data, request
        connection.sock.recv(len(data))
        answer = self._answer(request)
        connection.unsent, connection.keeps = answer[connection.sock.send(answer, socket.MSG_DONTWAIT) :], request.keeps
        return None if connection.unsent else self._sent(connection)

    def _sent(self, connection: Connection) -> bool:
        self._scraped()
        connection.served = True
        return connection.keeps

    def serve(self, connection: Connection) -> bool:
        """Receive, and answer one request if it is complete. Return whether the connection stays open."""
        if connection.unsent:
            unsent, connection.unsent = connection.unsent, b""
            connection.sock.sendall(unsent)
            return self._sent(connection)
        if not has_request(connection.buffer):
            data = connection.sock.recv(_CHUNK)
            if not data:
                return False
            connection.buffer += data
            while (more := pending(connection.sock)) and len(connection.buffer) < MAX_HEAD_BYTES:
                connection.buffer += connection.sock.recv(more)
        try:
            request = take_request(connection.buffer)
        except RefusedRequest as refused:
            connection.sock.sendall(encoded(refusal(refused.status, *refused.headers), "GET", {}, keeps=False))
            _discard(connection.sock)
            return False
        if request is None:
            return True
        if not _can_send(connection.sock):
            return False
        connection.sock.sendall(self._answer(request))
        if request.path == "/metrics":
            self._scraped()
        connection.served = True
        return request.keeps

    def _answer(self, request: Request) -> bytes:
        if self._local and "host" in request.headers and not _is_local(request.host):
            foreign = Response(HTTPStatus.MISDIRECTED_REQUEST, TEXT, _FOREIGN)
            return encoded(foreign, request.method, {}, keeps=request.keeps)
        try:
            config = self._access.config()
        except ConfigError as fault:
            self._access.log_refusal(fault)
            text = b"the web configuration is invalid; see the log of flopsd\n"
            broken = Response(HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, text)
            return encoded(broken, request.method, {}, keeps=False)
        try:
            admitted = self._access.admits(config, request.headers.get("authorization", ""))
        except BusyError:
            answer = refusal(HTTPStatus.SERVICE_UNAVAILABLE, ("Retry-After", "1"))
            return encoded(answer, request.method, config.headers, keeps=False)
        if admitted:
            answer = self._routes.answer(request)
        else:
            answer = refusal(HTTPStatus.UNAUTHORIZED, ("WWW-Authenticate", 'Basic realm="flopsd", charset="UTF-8"'))
        return encoded(answer, request.method, config.headers, keeps=request.keeps)


def is_loopback(address: str) -> bool:
    """Whether the text is a loopback address: IPv4, IPv6 or IPv4-mapped IPv6."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


@lru_cache(maxsize=16)
def _is_local(host: str) -> bool:
    name = host.removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or is_loopback(host.strip("[]"))


def _discard(sock: socket.socket) -> None:
    """Read the rest of the request so that the refusal arrives: a close with unread bytes resets the connection."""
    sock.shutdown(socket.SHUT_WR)
    left = _MAX_DISCARDED
    while left > 0 and (data := sock.recv(_CHUNK)):
        left -= len(data)


def _can_send(sock: socket.socket) -> bool:
    """Whether the socket can take more. A client that sends requests without reading the responses is closed."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))


def pending(sock: socket.socket) -> int:
    """How many decrypted bytes of TLS are unread: the selector does not report them."""
    return int(sock.pending()) if hasattr(sock, "pending") else 0  # only an SSLSocket has it
