"""The cost of a real daemon beside bad clients, and the cost of pushing."""

import http.client
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.bench.measuring import Say, cpu_ns, p50_p99, scrape, timed
from tests.support.certificates import Authority
from tests.support.process import daemon_pid, environment, free_port, predicate, started, wait_until
from tests.support.proven_counters import write_proven
from tests.support.receivers import receiving
from tests.support.scenario import Scenario, Segment, h100

GPUS, SCRAPES, PUSH_SECONDS = 8, 100, 20
BUSY = (Segment(1000, hmma=0.5, fp32=0.1, util=100, watts=500),)


def clients(standin: Path, folder: Path, say: Say) -> None:
    authority = Authority(folder / "tls")
    authority.server()
    web = folder / "tls" / "web.yml"
    web.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    scenario = Scenario(tuple(h100(BUSY) for _ in range(GPUS))).write(folder / "scenario.txt")
    with started("run", "--state-dir", str(folder / "state"), "--listen", "127.0.0.1:0", "--no-seal", "--web-config-file", str(web),
                 env=environment(standin, scenario)) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        context = ssl.create_default_context(cafile=str(authority.ca))
        process = psutil.Process(daemon_pid(folder / "state"))

        def tell(what: str) -> None:
            times = f"{_kept(address, context)}, {_fresh(address, context)}"
            say(f"scrape of {GPUS} GPUs by TLS, {what}: p50 / p99 kept, fresh", times, "1.5 ms kept")
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
                    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
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


def push(standin: Path, folder: Path, say: Say) -> None:
    """One line of figures for each receiver. The first and last have none, and show the machine's own noise."""
    for kind in ("nobody", "taking", "dead", "hanging", "refusing", "nobody"):
        place = folder / f"{kind}{len(list(folder.iterdir()))}"
        place.mkdir()
        _one(standin, place, kind, say)


def _one(standin: Path, folder: Path, kind: str, say: Say) -> None:
    scenario = Scenario(tuple(h100(BUSY, counters="average") for _ in range(GPUS)))
    state, ledger = folder / "state", folder / "ledger.json"
    flags = ("--state-dir", str(state), "--ledger", str(ledger), "--listen", "off", "--seal-every", "off",
             "--checkpoint-output", "off", "--push-every", "1")  # fmt: skip
    write_proven(state, scenario, "push")
    env = environment(standin, scenario.write(folder / "scenario.txt"))
    with _receiver(kind) as receivers, started("run", *flags, *receivers, env=env) as program:
        wait_until(lambda: (state / "lock").exists() and (state / "lock").read_text(), "the daemon is there")
        pause = threading.Event()
        pause.wait(4)
        daemon = psutil.Process(daemon_pid(state))
        pusher = daemon.children()
        spent, since = cpu_ns(daemon.pid), time.monotonic()
        spent_pushing = sum(cpu_ns(child.pid) for child in pusher)
        pause.wait(PUSH_SECONDS)
        passed = time.monotonic() - since
        cpu = (cpu_ns(daemon.pid) - spent) / 1e7 / passed
        cpu_pushing = (sum(cpu_ns(child.pid) for child in pusher) - spent_pushing) / 1e7 / passed
        rss = daemon.memory_info().rss / 1e6
        rss_pushing = sum(child.memory_info().rss for child in pusher) / 1e6
        program.process.send_signal(signal.SIGTERM)
        ended = timed(program.finish)
        assert program.process.returncode == 0, program.text
    gaps = predicate(ledger)["coverage"]["gapSecondsByReason"]
    what = f"pushed every second to {kind}, {GPUS} GPUs"
    say(f"daemon CPU / RSS, {what}", f"{cpu:.3f} % / {rss:.1f} MB", "as nobody")
    if pusher:
        say(f"pusher CPU / RSS, {what}", f"{cpu_pushing:.3f} % / {rss_pushing:.1f} MB", "none")
    say(f"end with seal, {what}", f"{ended:.2f} s", "12 s more")
    say(f"gaps, {what}", ", ".join(f"{k} {v}" for k, v in gaps.items()) or "none", "as nobody")


@contextmanager
def _receiver(kind: str) -> Iterator[list[str]]:
    if kind == "nobody":
        yield []
        return
    if kind == "dead":
        yield _flags(f"http://127.0.0.1:{free_port()}")
        return
    with receiving() as receiver:
        if kind == "hanging":
            receiver.hang.set()
        if kind == "refusing":
            receiver.status = 403
        yield _flags(receiver.url)


def _flags(url: str) -> list[str]:
    return ["--push", f"pushgateway+{url}", "--push", f"otlp+{url}/v1/metrics", "--push", f"remotewrite+{url}/write"]
