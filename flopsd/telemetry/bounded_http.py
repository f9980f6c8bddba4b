"""HTTP requests that end within a given time, whatever the server does.

Redirects are not followed: they would carry the credentials to another host.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from flopsd.errors import ConfigError


class Bounded:
    """The requests of a `with` block. Their connections are cut `seconds` after the block begins: a socket's own
    timeout starts over with each byte, so a server that sends slowly could be read for ever."""

    def __init__(self, seconds: float, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: by default, the system's trusted certificates apply."""
        self._seconds, self._sockets = seconds, Sockets()
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            _CuttableHandler(self._sockets, tls or ssl.create_default_context()),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)
        self._timer = threading.Timer(seconds, self._sockets.cut)

    @property
    def is_late(self) -> bool:
        """Whether the connections were cut."""
        return self._sockets.late.is_set()

    def open(self, request: urllib.request.Request) -> Any:
        """The response. Raises HTTPException and OSError, of which HTTPError is a subclass and must be closed."""
        return self._opener.open(request, timeout=self._seconds)

    def __enter__(self) -> Bounded:
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def fetch(request: urllib.request.Request, seconds: float, most_bytes: int) -> bytes:
    """The first `most_bytes` of the response. Raises OSError, HTTPException, and ValueError for a malformed address."""
    with Bounded(seconds) as bounded:
        try:
            with bounded.open(request) as answer:
                found: bytes = answer.read(most_bytes)
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as fault:
            why = fault.reason if isinstance(fault, urllib.error.URLError) else fault
            if bounded.is_late or isinstance(why, TimeoutError):
                raise TimeoutError(f"no whole answer within {seconds:g} s") from None
            raise
        if bounded.is_late:  # a cut connection looks like the end of a response without a length
            raise TimeoutError(f"no whole answer within {seconds:g} s")
        return found


def daemon_request(url: str) -> urllib.request.Request:
    """A request to the address of a daemon as a user gives it. User and password, which no message may show, are in a
    header and no longer in the URL. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:  # half an IPv6 address
        is_address = None
    if not is_address:
        raise ConfigError(["--url is not an http or https address"], hint="such as http://127.0.0.1:10188")
    login, at, place = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    plain = f"{unquote(user)}:{unquote(password)}".encode()
    headers = {"Authorization": "Basic " + base64.b64encode(plain).decode("ascii")} if at else {}
    return urllib.request.Request(urlunsplit(parts._replace(netloc=place)), headers=headers)


class Sockets:
    """The sockets of a block. Another thread can cut them; sockets opened after that are cut too."""

    def __init__(self) -> None:
        self.late = threading.Event()
        self._all: list[socket.socket] = []

    def keep(self, one: socket.socket) -> None:
        self._all.append(one)
        if self.late.is_set():
            _shut(one)

    def cut(self) -> None:
        self.late.set()
        for one in list(self._all):
            _shut(one)


class _CuttableHandler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    def __init__(self, sockets: Sockets, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._sockets, self._tls = sockets, context

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_keeping(http.client.HTTPConnection, self._sockets), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_keeping(http.client.HTTPSConnection, self._sockets), request, context=self._tls)


def _keeping(kind: type[http.client.HTTPConnection], sockets: Sockets) -> Any:
    """A subclass of `kind` that adds its socket to `sockets`: a connection drops its own reference once answered."""

    class Kept(kind):  # type: ignore[valid-type, misc]
        def connect(self) -> None:
            super().connect()
            sockets.keep(self.sock)

    return Kept


def _shut(one: socket.socket) -> None:
    try:
        socket.socket.shutdown(one, socket.SHUT_RDWR)  # not SSLSocket.shutdown, which ends TLS first
    except OSError:
        pass  # it is closed already
