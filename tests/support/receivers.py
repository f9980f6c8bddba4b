"""Receivers of pushed metrics: the real Prometheus and Pushgateway on free ports, and servers that behave badly."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.process import get, wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def pushgateway(port: int = 0) -> Iterator[str]:
    """Its address."""
    address = f"127.0.0.1:{port or free_port()}"
    with _process(
        ["prometheus-pushgateway", f"--web.listen-address={address}", "--log.level=error"], f"http://{address}"
    ):
        yield f"http://{address}"


@contextmanager
def prometheus(folder: Path, scrapes: str = "", port: int = 0) -> Iterator[str]:
    """The address of one that takes remote write, and scrapes `scrapes` every second as it stands there.

    Debian leaves its OTLP receiver out.
    """
    folder.mkdir(exist_ok=True)
    address = f"127.0.0.1:{port or free_port()}"
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 900ms}\nscrape_configs:\n"
        + (
            f"  - job_name: gateway\n    honor_labels: true\n    static_configs: [{{targets: ['{scrapes}']}}]\n"
            if scrapes
            else "  []\n"
        )
    )
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
               f"--web.listen-address={address}", "--log.level=error", "--web.enable-remote-write-receiver"]  # fmt: skip
    with _process(command, f"http://{address}"):
        yield f"http://{address}"


@contextmanager
def victoriametrics(folder: Path) -> Iterator[str]:
    """The address of one, which takes OTLP and answers as Prometheus does."""
    address = f"127.0.0.1:{free_port()}"
    command = ["victoria-metrics", f"-storageDataPath={folder}", f"-httpListenAddr={address}",
               "-search.latencyOffset=1s", "-inmemoryDataFlushInterval=1s"]  # fmt: skip
    with _process(command, f"http://{address}"):
        yield f"http://{address}"


@contextmanager
def _process(command: list[str], url: str) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _answers(f"{url}/-/ready"), f"{command[0]} is ready")
            yield
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def query(url: str, expression: str, at_seconds: float | None = None) -> list[dict[str, Any]]:
    at = "" if at_seconds is None else f"&time={at_seconds:.3f}"
    status, body, _ = get(f"{url}/api/v1/query?query={urllib.parse.quote(expression)}{at}")
    assert status == 200, body
    found: list[dict[str, Any]] = json.loads(body)["data"]["result"]
    return found


class Receiver:
    """Answers as told, and keeps what was sent: (method, path, headers, body)."""

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
                told = b"told \x1b[31mwhy\nnot" if receiver.status >= 300 else b""
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            do_PUT = do_POST  # noqa: N815 - the name that http.server calls

            def log_message(self, *_: object) -> None:
                """Say nothing."""

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
