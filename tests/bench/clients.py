"""A scrape of a real daemon beside clients that are idle, slow or oversized, over TLS."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.bench.measuring import Say, p50_p99, scrape, timed
from tests.support.certificates import Authority
from tests.support.process import daemon_pid, environment, started
from tests.support.scenario import Scenario, Segment, h100

BUSY = (Segment(1000, hmma=0.5, fp32=0.1, util=100, watts=500),)
SCRAPES = 100


def clients(standin: Path, folder: Path, say: Say) -> None:
    authority = Authority(folder / "tls")
    authority.server()
    web = folder / "tls" / "web.yml"
    web.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    scenario = Scenario(tuple(h100(BUSY) for _ in range(8))).write(folder / "scenario.txt")
    with started("run", "--state-dir", str(folder / "state"), "--listen", "127.0.0.1:0", "--no-seal", "--web-config-file", str(web),
                 env=environment(standin, scenario)) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        context = ssl.create_default_context(cafile=str(authority.ca))
        process = psutil.Process(daemon_pid(folder / "state"))

        def tell(what: str) -> None:
            times = f"{_kept(address, context)}, {_fresh(address, context)}"
            say(f"scrape of 8 GPUs by TLS, {what}: p50 / p99 kept, fresh", times, "1.5 ms kept")
            say(f"daemon RSS, {what}", f"{process.memory_info().rss / 1e6:.1f} MB", "32 MB")

        tell("alone")
        with ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(_knock(address))
                stack.enter_context(_handshake(address, context))
            tell("100 idle TLS clients")
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(_handshake(address, context, receive=4096)).sendall(
                    b"GET /metrics HTTP/1.1\r\n\r\n" * 200
                )
            tell("100 slow readers")
        over = threading.Event()
        flood = threading.Thread(target=_flood, args=(address, context, over))
        flood.start()
        tell("10 MB headers, one after another")
        over.set()
        flood.join()
        tell("alone again")


def _knock(address: tuple[str, int], receive: int | None = None) -> socket.socket:
    sock = socket.socket()
    if receive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.settimeout(30)
    sock.connect(address)
    return sock


def _handshake(address: tuple[str, int], context: ssl.SSLContext, receive: int | None = None) -> ssl.SSLSocket:
    return context.wrap_socket(_knock(address, receive), server_hostname="127.0.0.1")


def _flood(address: tuple[str, int], context: ssl.SSLContext, over: threading.Event) -> None:
    chunk = b"x" * 65536
    while not over.is_set():
        with _handshake(address, context) as client:
            try:
                client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
                for _ in range(160):
                    client.sendall(chunk)
            except OSError:
                pass  # refused before the end


def _kept(address: tuple[str, int], context: ssl.SSLContext) -> str:
    connection = http.client.HTTPSConnection(*address, context=context)
    times = [timed(lambda: scrape(connection)) for _ in range(SCRAPES)]
    connection.close()
    return p50_p99(times)


def _fresh(address: tuple[str, int], context: ssl.SSLContext) -> str:
    def once() -> None:
        connection = http.client.HTTPSConnection(*address, context=context)
        scrape(connection)
        connection.close()

    return p50_p99([timed(once) for _ in range(SCRAPES)])
