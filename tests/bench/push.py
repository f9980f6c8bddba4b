"""What pushing costs the daemon, with receivers that take, are dead, hang or refuse."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.bench.measuring import Say, cpu_ns, timed
from tests.support.free import free_port
from tests.support.process import daemon_pid, environment, predicate, started, wait_until
from tests.support.receivers import receiving
from tests.support.scenario import Scenario, Segment, h100

SECONDS, GPUS = 20, 8
BUSY = (Segment(1000, hmma=0.5, util=100, watts=500),)


def push(standin: Path, folder: Path, say: Say) -> None:
    """One line of figures each, the daemon's first and last without any receiver: the machine's own noise."""
    for kind in ("nobody", "taking", "dead", "hanging", "refusing", "nobody"):
        place = folder / f"{kind}{len(list(folder.iterdir()))}"
        place.mkdir()
        _one(standin, place, kind, say)


def _one(standin: Path, folder: Path, kind: str, say: Say) -> None:
    scenario = Scenario(tuple(h100(BUSY, counters="average") for _ in range(GPUS))).write(folder / "scenario.txt")
    state, ledger = folder / "state", folder / "ledger.json"
    flags = ("--state-dir", str(state), "--ledger", str(ledger), "--listen", "off", "--seal-every", "off",
             "--checkpoint-output", "off", "--push-every", "1")  # fmt: skip
    with (
        _receiver(kind) as receivers,
        started("run", *flags, *receivers, env=environment(standin, scenario)) as program,
    ):
        wait_until(lambda: (state / "lock").exists() and (state / "lock").read_text(), "the daemon is there")
        pause = threading.Event()
        pause.wait(4)
        daemon = psutil.Process(daemon_pid(state))
        pusher = daemon.children()
        spent, since = cpu_ns(daemon.pid), time.monotonic()
        spent_pushing = sum(cpu_ns(child.pid) for child in pusher)
        pause.wait(SECONDS)
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
