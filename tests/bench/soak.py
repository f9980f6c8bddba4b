"""A simulated week of metering, as fast as possible: does memory, or the number of descriptors or threads, grow with
time?

The real NVML source, writer, journal and web server run in a process of their own, on a clock that is stepped by hand,
with a scrape each simulated minute. `python -m tests.bench.soak STANDIN FOLDER HOURS` is that process.
"""

import http.client
import os
import subprocess
import sys
import time
from pathlib import Path

import pynvml

from flopsd.core.ledger.history_from_records import read_history
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.recovery.local_journal import RecoveredRun
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.journal.journal import Journal
from flopsd.journal.state_dir import StateDir
from flopsd.settings.data_files import load_policies
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.source import NvmlSource
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.http.server import WebServer
from tests.bench.measuring import scrape
from tests.support.runs import CONTEXT
from tests.support.scenario import Scenario, Segment, h100
from tests.support.sim import SharedClock, pass_time, simulated
from tests.support.strategies import table

GPUS, HOURS, SHOWN_HOURS = 8, 7 * 24, (1, 2, 12, 24)
LOAD = (Segment(700, hmma=0.8, fp32=0.1, util=100, watts=650), Segment(300, util=0, watts=130))


def soak(standin: Path, folder: Path, hours: int = HOURS) -> None:
    """Prints a line for the first hour, for some later ones, and for each day."""
    command = [sys.executable, "-m", "tests.bench.soak", str(standin), str(folder), str(hours)]
    subprocess.run(command, check=True)


def _run(standin: Path, folder: Path, hours: int) -> None:
    clock, state = SharedClock(folder / "clock"), StateDir(folder / "state")
    scenario = Scenario(tuple(h100(LOAD, counters="average") for _ in range(GPUS)))
    with simulated(standin, folder, scenario, clock):
        state.acquire()
        journal = Journal(state)
        journal.recover("aside")
        settings = WriterSettings(NS_PER_S, 60 * NS_PER_S, "0" * 64, None, ("nvml",), policies=load_policies())
        writer = Writer(journal, table(), settings, CONTEXT, clock, lambda _: None)
        writer.begin("soak", RecoveredRun(read_history(journal.read())))
        source = NvmlSource(pynvml, SourceSettings(clock, table()))
        opened = Message("nvml", clock.boottime_ns(), source.devices(), source.read(), opened=source.describe())
        writer.take(opened)
        server = WebServer("127.0.0.1", (0,), lambda: writer.snapshot, clock=clock)
        server.start()
        began, first_kb = time.monotonic(), 0
        for second in range(1, hours * 3600 + 1):
            pass_time(source, clock, NS_PER_S)
            sweep = source.read()
            writer.take(Message("nvml", clock.boottime_ns(), source.devices(), sweep, read_seconds=0.001))
            hour = second / 3600
            if hour in SHOWN_HOURS or (second % (24 * 3600)) == 0 or hour == hours:
                used_kb = _resident_kb()
                first_kb = first_kb or used_kb
                size_mb = state.journal.stat().st_size / 1e6
                print(
                    f"after {hour:>4.0f} h: {used_kb * 1.024 / 1000:.2f} MB ({(used_kb - first_kb) * 1.024 / 1000:+.2f}), "
                    f"{sys.getallocatedblocks()} blocks, {_entries('fd')} descriptors, {_entries('task')} threads, journal "
                    f"{size_mb:.1f} MB, {1e3 * (time.monotonic() - began) / second:.2f} ms a tick",
                    flush=True,
                )
            if second % 60 == 0:  # after the figures, which are taken while no client is connected
                client = http.client.HTTPConnection(server.url.removeprefix("http://"))
                scrape(client)
                client.close()
        server.stop()
        source.close()
        writer.close("sigterm")


def _resident_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def _entries(kind: str) -> int:
    return len(os.listdir(f"/proc/self/{kind}"))


if __name__ == "__main__":
    _run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
