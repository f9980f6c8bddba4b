"""`make long-runs`: the cost of runs of many days, in memory and time, for the daemon, sealing, verifying, copying and
a report.

Journals are of 8 GPUs with a checkpoint a minute: some minutes are metered, and the rest continues them at the same
rate. Every figure is of the real program. A `daemon` that starts on such a journal recovers it first, and reads it
once more at its end. Memory that does not grow has the same peak in every row.
"""

import argparse
import re
import signal
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from flopsd.journal.state_dir import StateDir
from flopsd.testing import FakeClock
from tests.bench.journals import fill, gpus, lengthen
from tests.bench.measuring import cost_of
from tests.support.process import daemon_pid, environment, started
from tests.support.runs import CONTEXT
from tests.support.scenario import Scenario, Segment, compile_standin, h100

GPUS, RUN = 8, "long"
BUSY = (Segment(1000, hmma=0.5, util=100, watts=500),)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.long_runs", description=__doc__)
    parser.add_argument("days", nargs="*", type=int, default=[7, 60, 180], help="simulated days (default 7 60 180)")
    parser.add_argument("--folder", type=Path, help="where journals are kept from one call to the next")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        standin = compile_standin(Path(scratch) / "lib").parent
        for days in args.days:
            place = (args.folder or Path(scratch)) / f"{days}"
            place.mkdir(parents=True, exist_ok=True)
            measure(standin, place, days)


def measure(standin: Path, place: Path, days: int) -> None:
    state, ledger = StateDir(place / "state"), place / "ledger.json"
    if not state.journal.exists():
        context = replace(CONTEXT, node=socket.gethostname())  # that of the daemon below
        fill(state, FakeClock(), gpus(GPUS), 10, context, RUN)
        lengthen(state, days * 24 * 60 - 10)
    for made in (*place.glob("*.json"), *place.glob("*.journal.jsonl"), *place.glob("copy/*")):
        made.unlink()  # made by an earlier call
    size = state.journal.stat().st_size
    say(days, "journal", f"{size / 1e6:.1f} MB, {size / days / GPUS / 1000:.0f} kB a GPU and day")
    seal = ("seal", "--state-dir", str(state.path), "--evidence", "off", "--ledger")
    key = ("--key", str(place / "ledger.pub"))
    html = ("--format", "html", "--output", str(place / "report.html"))
    for what, command in (
        ("seal", (*seal, str(ledger))),
        ("rolling seal", (*seal, str(place / "rolling.json"), "--rolling")),
        ("seal again, and copy it to a folder", (*seal, str(ledger), "--ledger-copy", str(place / "copy" / "l.json"))),
        ("verify with recomputation", ("verify", str(ledger), *key)),
        ("report, verified", ("report", str(ledger), *key, *html)),
    ):
        cost = cost_of(*command)
        say(days, what, f"{cost.seconds:.1f} s, {cost.cpu_seconds:.1f} s of CPU, {cost.peak_bytes / 1e6:.0f} MB")
    restarted(standin, place, days)


def restarted(standin: Path, place: Path, days: int) -> None:
    """A daemon that continues the journal and seals it at its end."""
    state = StateDir(place / "state")
    scenario = Scenario(tuple(h100(BUSY) for _ in range(GPUS))).write(place / "scenario.txt")
    flags = ("--state-dir", str(state.path), "--run-id", RUN, "--listen", "127.0.0.1:0", "--evidence", "off")
    began = time.monotonic()
    with started("run", *flags, "--ledger", str(place / "ledger.json"), env=environment(standin, scenario)) as program:
        program.wait_for(r"metrics at (\S+)/metrics")
        ready = time.monotonic() - began
        pid = daemon_pid(state.path)
        say(days, "daemon that goes on with it: ready, peak until then", f"{ready:.2f} s, {peak_mb(pid):.0f} MB")
        program.process.send_signal(signal.SIGTERM)
        peak, ended = 0.0, time.monotonic()
        while program.process.poll() is None:
            peak = max(peak, peak_mb(pid))
            time.sleep(0.02)
        assert program.finish() == 0, program.text
        say(days, "its end with seal, peak", f"{time.monotonic() - ended:.2f} s, {peak:.0f} MB")


def peak_mb(pid: int) -> float:
    """The peak memory of a process so far; 0 if it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 0.0 if found is None else int(found[1]) * 1024 / 1e6


def say(days: int, what: str, figure: str) -> None:
    print(f"{days:>4} days x {GPUS} GPUs  {what:<52} {figure:>34}", flush=True)


if __name__ == "__main__":
    main()
