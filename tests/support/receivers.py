"""Receivers of pushed metrics: the real Pushgateway and VictoriaMetrics on free ports, and servers that behave
badly."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.process import free_port, running


@contextmanager
def pushgateway() -> Iterator[str]:
    """The address of a Pushgateway."""
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus-pushgateway", f"--web.listen-address={address}", "--log.level=error"]
    with running(command, f"http://{address}") as url:
        yield url


@contextmanager
def victoriametrics(folder: Path) -> Iterator[str]:
    """The address of a VictoriaMetrics. It takes OTLP, which Debian's Prometheus does not, and answers queries like
    Prometheus."""
    address = f"127.0.0.1:{free_port()}"
    command = ["victoria-metrics", f"-storageDataPath={folder}", f"-httpListenAddr={address}",
               "-search.latencyOffset=1s", "-inmemoryDataFlushInterval=1s"]  # fmt: skip
    with running(command, f"http://{address}") as url:
        yield url


class Receiver:
    """Answers as a test sets, and keeps the requests: (method, path, headers, body)."""

    def __init__(self, port: int = 0) -> None:
        self.status, self.location = 200, ""
        self.drip, self.hang = threading.Event(), threading.Event()
        self.released = threading.Event()
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.command, self.path, dict(self.headers), body))
                if receiver.hang.is_set():
                    receiver.released.wait()
                    return
                self.send_response(receiver.status)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                if receiver.drip.is_set():
                    self.end_headers()
                    try:
                        while not receiver.released.wait(0.1):
                            self.wfile.write(b"x")
                    except OSError:
                        pass
                    return
                found = b"told \x1b[31mwhy\nnot" if receiver.status >= 300 else b""
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            do_PUT = do_POST  # noqa: N815 - the name that http.server calls

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    receiver = Receiver(port)
    try:
        yield receiver
    finally:
        receiver.stop()
