"""The HTTP front: /metrics, /-/healthy, /-/ready, /; 404 elsewhere. On the standard library.

prometheus-client's own server answers every path, fails a whole scrape on one exception and lets silent
clients hold threads for ever; see docs/adr/0005-own-http-front.md.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from prometheus_client import Metric

from flopsd import __version__
from flopsd.exporter import Exposition, landing_page
from flopsd.snapshot import Snapshot

log = logging.getLogger("flopsd")
CLIENT_TIMEOUT_SECONDS = 10
MAX_CLIENTS = 40
TEXT = "text/plain; charset=utf-8"


class WebServer(ThreadingMixIn, TCPServer):
    """Serves the newest snapshot. `start` returns at once; each client has a thread and a time limit."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, host: str, port: int, snapshot: Callable[[], Snapshot], more: Callable[[], Iterable[Metric]] = tuple
    ) -> None:
        """`more`: further metrics. Binds; raises OSError when the address is taken or not of this machine."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.snapshot, self.more = snapshot, more
        self.exposition = Exposition()
        self._clients = threading.BoundedSemaphore(MAX_CLIENTS)
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        host = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self, poll_seconds: float = 3600.0) -> None:
        """Serve in a thread of its own, which wakes for clients only: `shutdown` is noticed after `poll_seconds`."""
        threading.Thread(target=self.serve_forever, args=(poll_seconds,), name="web", daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._clients.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)  # a client too many: it may come again, the others are served

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._clients.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        log.debug("client %s went away", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One client."""

    server: WebServer
    protocol_version = "HTTP/1.1"
    timeout = CLIENT_TIMEOUT_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/-/healthy":
            self._answer(HTTPStatus.OK, TEXT, b"flopsd is alive\n")
        elif path == "/-/ready":
            if self.server.snapshot().ready:
                self._answer(HTTPStatus.OK, TEXT, b"flopsd is metering\n")
            else:
                self._answer(
                    HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"no device has been read yet\n", ("Retry-After", "1")
                )
        elif path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", landing_page(self.server.snapshot()).encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, TEXT, b"not found; try /metrics, /-/healthy or /-/ready\n")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _metrics(self) -> None:
        try:
            accept = self.headers.get("Accept", "")
            body, content_type = self.server.exposition.render(self.server.snapshot(), accept, self.server.more())
        except Exception:
            log.exception("cannot render the metrics")
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, b"cannot render the metrics; see the log\n")
            return
        self._answer(HTTPStatus.OK, content_type, body)

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes, *headers: tuple[str, str]) -> None:
        """Headers and body in one write: two of them cost 44 ms a scrape (delayed ACK)."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in headers:
            self.send_header(name, value)
        self._body = b"" if self.command == "HEAD" else body
        self.end_headers()

    def end_headers(self) -> None:
        """http.server would flush here; the body goes along."""
        buffer: list[bytes] = self.__dict__.pop("_headers_buffer", [])
        self.wfile.write(b"".join(buffer) + b"\r\n" + self.__dict__.pop("_body", b""))

    def version_string(self) -> str:
        return f"flopsd/{__version__}"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        log.debug("%s " + format, self.client_address[0], *args)
