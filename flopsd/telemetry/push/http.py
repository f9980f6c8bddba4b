"""One request to a receiver: bounded in time whatever the receiver does; a failure has a reason.

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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flopsd import __version__
from flopsd.errors import PushError
from flopsd.settings.load import PUSH_AUTH
from flopsd.settings.push_targets import FROM_ENVIRONMENT, Target
from flopsd.system.regular_files import open_regular

MAX_ANSWER_BYTES = 300
RETRYABLE = (408, 429, 500, 502, 503, 504)
Signer = Callable[[str, str, Mapping[str, str], bytes], Mapping[str, str]]


class Http:
    """Sends requests to one target, with its credentials and its certificates."""

    def __init__(self, target: Target, environment: Mapping[str, str], sign: Signer | None = None) -> None:
        """Raises PushError where the certificates cannot be read."""
        self._target, self._environment, self._sign = target, environment, sign
        try:
            self._tls = ssl.create_default_context(cafile=target.ca)
        except (OSError, ssl.SSLError) as fault:
            raise PushError(f"cannot use {target.ca}: {fault}", reason="not_possible", final=True) from fault

    def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> None:
        """Raises PushError unless the receiver took it."""
        given = {**headers, "User-Agent": f"flopsd/{__version__}", **self._authorization()}
        if self._target.tenant is not None:
            given["X-Scope-OrgID"] = self._target.tenant
        if self._sign is not None:
            given.update(self._sign(method, url, given, body))
        sockets = Sockets()
        opener = urllib.request.OpenerDirector()
        opener.add_handler(urllib.request.ProxyHandler())
        opener.add_handler(_CuttableHandler(sockets, self._tls))
        opener.add_handler(urllib.request.HTTPErrorProcessor())
        opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
        # The socket's own time limit starts over with each byte, so a receiver that drips would hold us forever.
        timer = threading.Timer(seconds, sockets.cut)
        timer.start()
        try:
            request = urllib.request.Request(url, data=body, headers=given, method=method)
            opener.open(request, timeout=seconds).close()
        except urllib.error.HTTPError as fault:
            with fault:
                raise _refused(fault, seconds) from None
        except (OSError, http.client.HTTPException) as fault:
            raise _unreachable(fault, seconds, sockets.late.is_set()) from fault
        finally:
            timer.cancel()

    def _authorization(self) -> dict[str, str]:
        """Read again each time: files with tokens are renewed by who put them there."""
        where = self._target.auth
        if where is None:
            return {}
        if where == FROM_ENVIRONMENT:
            text, origin = self._environment.get(PUSH_AUTH, ""), PUSH_AUTH
        else:
            origin = where
            try:
                with open_regular(Path(where)) as file:
                    text = file.read().decode("utf-8")
            except (OSError, UnicodeError) as fault:
                raise PushError(f"cannot read the credentials {where}: {fault}", reason="not_possible") from fault
        scheme, _, secret = text.strip().partition(" ")
        if scheme.lower() not in ("basic", "bearer") or not secret.isprintable() or not secret:
            raise PushError(
                f"{origin} holds no credentials",
                reason="not_possible",
                hint="write `Basic USER:PASSWORD` or `Bearer TOKEN`",
            )
        if scheme.lower() == "basic" and ":" in secret:
            secret = base64.b64encode(secret.encode()).decode("ascii")
        return {"Authorization": f"{scheme.capitalize()} {secret}"}


class Sockets:
    """Those of one request, which can be cut from another thread, one that is made after that too."""

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
    """The connections of `kind`, whose sockets are kept: the connection itself forgets its own once it is answered."""

    class Kept(kind):  # type: ignore[valid-type, misc]
        def connect(self) -> None:
            super().connect()
            sockets.keep(self.sock)

    return Kept


def _shut(one: socket.socket) -> None:
    try:
        socket.socket.shutdown(one, socket.SHUT_RDWR)  # not TLS's, which would say goodbye first
    except OSError:
        pass  # it is closed already


def _refused(fault: urllib.error.HTTPError, seconds: float) -> PushError:
    try:
        answer = fault.read(MAX_ANSWER_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        answer = f"no response body within {seconds:g} s"
    answer = "".join(char if char.isprintable() else " " for char in answer)
    retry = fault.code in RETRYABLE
    hint = "give the address that it redirects to" if 300 <= fault.code < 400 else ""
    return PushError(
        f"HTTP {fault.code}: {answer or http.client.responses.get(fault.code, '')}",
        reason="server_error" if retry else "refused",
        # Credentials and addresses get mended while we run, and nothing is wrong with the page.
        final=fault.code in (400, 413, 415, 422),
        hint=hint,
    )


def _unreachable(fault: Exception, seconds: float, late: bool) -> PushError:
    why = fault.reason if isinstance(fault, urllib.error.URLError) else fault
    if late or isinstance(why, TimeoutError):
        return PushError(f"no answer within {seconds:.3g} s", reason="timeout")
    text = (why.strerror if isinstance(why, OSError) and why.strerror else str(why)) or type(why).__name__
    return PushError(text, reason="unreachable")
