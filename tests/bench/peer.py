"""A scrape of flopsd beside one of a peer exporter from PyPI: the same 16 simulated GPUs, the same run, turn by turn.

The peer (nvitop-exporter, GPL-3) is a program of its own in a virtual environment of its own.
"""

from __future__ import annotations

import http.client
import re
import statistics
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

from tests.bench.measuring import Say, p50_p99, scrape, timed
from tests.support.free import free_port
from tests.support.process import environment, started
from tests.support.scenario import Scenario, Segment, h100

GPUS, TURNS = 16, 200
BUSY = (Segment(700, hmma=0.5, util=100, watts=500), Segment(300))


def peer(standin: Path, folder: Path, say: Say) -> None:
    """Prints both p50 and p99, and their ratio."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "nvitop-exporter"]
    if subprocess.run(install, check=False).returncode:
        say(f"one scrape of a peer exporter, {GPUS} GPUs", "not to be had", "none")
        return
    env = environment(standin, Scenario(tuple(h100(BUSY) for _ in range(GPUS))).write(folder / "scenario.txt"))
    port = free_port()
    command = [str(venv / "bin" / "nvitop-exporter"), *f"--bind-address 127.0.0.1 --port {port} --interval 1".split()]
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
                    told[name].append(timed(partial(scrape, connection)))
        finally:
            other.terminate()
    for name, many in told.items():
        say(f"one scrape beside a peer, {GPUS} GPUs, {name}, p50 / p99", p50_p99(many), "none")
    ratio = statistics.median(told["flopsd"]) / statistics.median(told["nvitop-exporter"])
    say("its p50 as a share of the peer's", f"{ratio:.2f}", "the leaner the better")
