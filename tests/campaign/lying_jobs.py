"""`python -m tests.campaign.lying_jobs`: processes that flood, replay, make claims, break off and send rubbish to the
real daemon.

In spite of them, `high` is not below the truth, `low` contains only work that a counter showed and a process claimed,
the daemon ends in time and stays small, and two implementations compute its ledger from its journal.
"""

import argparse
import io
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from flopsd.core.model import Pipe
from flopsd.settings.data_files import config_dir
from flopsd.system.clock import SystemClock
from tests.second_implementation import verify as second
from tests.support.process import environment, flopsd, predicate, started, truth, wait_until
from tests.support.scenario import Scenario, Segment, a100, compile_standin, h100

LOAD = (Segment(400, mhz=1410, hmma=0.5), Segment(600, mhz=1410, util=0))
FIGURES = ("low", "measured", "high")
MOST_MB, MOST_SECONDS = 120, 20
RUBBISH = (
    b"[" * 60_000 + b"\n", b"\n" * 60_000, b"\xff" * 70_000, b'{"flopsd":1,"flopsd":1}\n', b'{"flopsd":NaN}\n',
    b'{"flopsd":1,"kind":"work","work":{"train":{"tokens":1e400}}}\n',
    b'{"flopsd":1,"kind":"work","work":{"train":{"tokens":' + b"9" * 60_000 + b"}}}\n",
    b'{"flopsd":1,"kind":"declare","facts":{"model_name":"\\ud800"}}\n',
)  # fmt: skip


class Liars:
    """Threads, each with connections of its own, until `stop`."""

    def __init__(self, path: Path, devices: tuple[str, ...], seed: int) -> None:
        self._path, self._devices, self._draw = path, devices, random.Random(seed)
        self._stopping = threading.Event()
        self._clock = SystemClock()
        ways = (self.flood, self.claim, self.replay, self.break_off, self.rubbish, self.never_read, self.drip)
        self._threads = [threading.Thread(target=self._again, args=(way,), daemon=True) for way in ways]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _again(self, way: Callable[[socket.socket], None]) -> None:
        while not self._stopping.is_set():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(1)
                peer.connect(str(self._path))
                way(peer)
            self._clock.wait(self._stopping, 0.01)

    def _hello(self, peer: socket.socket, session: str = "") -> None:
        say(peer, "hello", session=session or os.urandom(16).hex(), client="0.1.0", pid=1)

    def flood(self, peer: socket.socket) -> None:
        self._hello(peer)
        while not self._stopping.is_set():
            say(peer, "phase", phase=self._draw.choice(("train", "evaluate", "generate", "other")))

    def claim(self, peer: socket.socket) -> None:
        self._hello(peer)
        say(peer, "declare", facts={"device": self._draw.choice((*self._devices, "GPU-of-nobody", "MIG-1"))})
        for flop in (10**30, 10**18, 1, 10**13):
            seen = {"kernel_windows": 1, "kernel_window_ns": flop, "kernel_ns_matrix_fp8": 3 * flop}
            say(peer, "work", work={"train": {"operator_flop": flop, "recomputed_operator_flop": 2 * flop, **seen}})
        precision = self._draw.choice(("fp8", "fp64", "int8", {"bf16": 999_999, "fp4": 1}))
        say(peer, "declare", facts={"device": self._draw.choice(self._devices), "precision": precision})

    def replay(self, peer: socket.socket) -> None:
        self._hello(peer, "ab" * 16)

    def break_off(self, peer: socket.socket) -> None:
        self._hello(peer)
        message = json.dumps({"flopsd": 1, "kind": "work", "work": {"train": {"tokens": 5}}}).encode()
        peer.sendall(message[: self._draw.randrange(1, len(message))])

    def rubbish(self, peer: socket.socket) -> None:
        if self._draw.random() < 0.5:
            self._hello(peer)
        peer.sendall(self._draw.choice(RUBBISH))

    def never_read(self, peer: socket.socket) -> None:
        self._hello(peer)
        for _ in range(3000):
            say(peer, "phase", phase="nonsense" * 40)

    def drip(self, peer: socket.socket) -> None:
        for byte in b'{"flopsd":1,"kind":"hello"':
            peer.sendall(bytes([byte]))
            self._clock.wait(self._stopping, 0.5)


def say(peer: socket.socket, kind: str, **fields: object) -> None:
    peer.sendall(json.dumps({"flopsd": 1, "kind": kind, **fields}).encode() + b"\n")


def trial(folder: Path, standin: Path, seed: int, seconds: float) -> list[str]:
    """One run beside liars; returns the faults found."""
    scenario, clock = Scenario((a100(LOAD), h100(LOAD, counters="average"))), SystemClock()
    ledger, path, state = folder / "ledger.json", folder / "client.sock", folder / "state"
    options = ("run", "--source", "nvml", "--state-dir", str(state), "--run-id", "lied-to", "--listen", "off",
               "--interval", "0.2", "--checkpoint", "0.5", "--ledger", str(ledger), "--client-socket", str(path))  # fmt: skip
    found = []
    with started(*options, env=environment(standin, scenario.write(folder / "scenario.txt"))) as program:
        program.wait_for(r"daemon start \d+,")
        wait_until(path.exists, "the socket")
        liars = Liars(path, (scenario.uuid(0), scenario.uuid(1)), seed)
        clock.wait(threading.Event(), seconds)
        memory_mb = _memory_mb(program.process.pid)
        since_ns = clock.boottime_ns()
        program.process.send_signal(signal.SIGTERM)
        if program.finish():
            found.append(f"it ended with {program.process.returncode}: {program.text[-500:]}")
        if (took := (clock.boottime_ns() - since_ns) / 10**9) > MOST_SECONDS:
            found.append(f"it took {took:.0f} s to end")
        liars.stop()
        if memory_mb > MOST_MB:
            found.append(f"it had {memory_mb} MB")
    return found + judged(ledger, scenario)


def judged(ledger: Path, scenario: Scenario) -> list[str]:
    """The faults of its ledger."""
    key = ("--key", str(ledger.with_suffix(".pub")))
    found = [] if flopsd("verify", str(ledger), *key).returncode == 0 else ["flopsd refuses it"]
    config = config_dir()
    tables = ["--peaks", str(config / "peaks.yaml")]
    for policy in sorted((config / "policies").glob("*.yaml")):
        tables += ["--policy", str(policy)]
    with redirect_stdout(io.StringIO()):
        code = second.main([str(ledger), *key, *tables])
    if code:
        found.append("the second implementation refuses it")
    records = [json.loads(line)["r"] for line in ledger.with_suffix(".journal.jsonl").read_bytes().splitlines()]
    for device in predicate(ledger)["devices"]:
        executed, rate = device["executed"], 4096 if device["smCount"] == 132 else 2048
        true = truth(scenario, int(device["uuid"][-1]), records[0]["ns"], records[-1]["ns"], device["smCount"],
                     {Pipe.TENSOR_HMMA: rate})  # fmt: skip
        low, measured, high = (None if executed[name] is None else int(executed[name]) for name in FIGURES)
        if high is not None and high < true:
            found.append(f"{device['model']}: high is {high / true:.3f} of the truth")
        if low is not None and measured is not None and low > measured:
            found.append(f"{device['model']}: low {low} above measured {measured}")
        if device["smCount"] == 132 and low is not None and low > true:
            found.append(f"{device['model']}: low {low / true:.3f} of the truth, of which a counter was read")
    return found


def _memory_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.lying_jobs", description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=1)
    args: Any = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        standin = compile_standin(Path(folder) / "standin").parent
        for seed in range(args.seed, args.seed + args.trials):
            place = Path(folder) / str(seed)
            place.mkdir()
            found = trial(place, standin, seed, args.seconds)
            wrong += bool(found)
            sys.stderr.write(f"seed {seed}: {'; '.join(found) or 'held'}\n")
    sys.stderr.write(f"{args.trials} trials, {wrong} violations\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
