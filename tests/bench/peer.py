"""A scrape of flopsd beside one of a peer exporter from PyPI: the same 16 simulated GPUs, the same run, turn by turn.

The peer (nvitop-exporter, GPL-3) is a program of its own in a virtual environment of its own.
"""

from __future__ import annotations

import http.client
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.process import environment, started
from tests.support.scenario import Scenario, Segment, h100

GPUS, TURNS = 16, 200
BUSY = (Segment(700, hmma=0.5, util=100, watts=500), Segment(300))


def peer(standin: Path, folder: Path, say: Callable[[str, str, str], None]) -> None:
    """Prints both p50 and p99, and their ratio."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "nvitop-exporter"]
    if subprocess.run(install, check=False).returncode:
        say(f"one scrape of a peer exporter, {GPUS} GPUs", "not to be had", "none")
        return
    env = environment(standin, Scenario(tuple(h100(BUSY) for _ in range(GPUS))).write(folder / "scenario.txt"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(venv / "bin" / "nvitop-exporter"),
        "--bind-address",
        "127.0.0.1",
        "--port",
        str(port),
        "--interval",
        "1",
    ]
    flags = ("run", "--state-dir", str(folder / "state"), "--listen", "127.0.0.1:0", "--no-seal")
    with (
        started(*flags, env=env) as program,
        subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as other,
    ):
        try:
            ours = http.client.HTTPConnection(re.sub("https?://", "", program.wait_for(r"metrics at (\S+)/metrics")[1]))
            theirs = http.client.HTTPConnection("127.0.0.1", port)
            threading.Event().wait(8)  # both have read all devices
            told: dict[str, list[float]] = {"flopsd": [], "nvitop-exporter": []}
            for _ in range(TURNS):
                for name, connection in zip(told, (ours, theirs), strict=True):
                    asked = time.monotonic()
                    connection.request("GET", "/metrics")
                    connection.getresponse().read()
                    told[name].append(1000 * (time.monotonic() - asked))
        finally:
            other.terminate()
    for name, many in told.items():
        p99 = statistics.quantiles(many, n=100)[98]
        say(
            f"one scrape beside a peer, {GPUS} GPUs, {name}, p50 / p99",
            f"{statistics.median(many):.2f} / {p99:.2f} ms",
            "none",
        )
    ratio = statistics.median(told["flopsd"]) / statistics.median(told["nvitop-exporter"])
    say("its p50 as a share of the peer's", f"{ratio:.2f}", "the leaner the better")
