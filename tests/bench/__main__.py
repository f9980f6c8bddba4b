"""`make bench`: the budgets of the design, one line each, with the measured figure beside the budget. It prints and
asserts nothing."""

import argparse
import http.client
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pynvml

from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.keys import ensure_key
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.verify import verify_ledger
from flopsd.core.model import Active, Pipe
from flopsd.journal.state_dir import StateDir
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.source import NvmlSource
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.bench.client import client
from tests.bench.daemon import clients, push
from tests.bench.devices import devices
from tests.bench.journals import SECRET, fill
from tests.bench.journals import gpus as gpu_devices
from tests.bench.measuring import cpu_ns, p50_p99, scrape, timed
from tests.bench.merge import merge, merge_many
from tests.bench.operators import operators
from tests.bench.peers import peers
from tests.bench.soak import soak
from tests.bench.verifier import verifier
from tests.bench.windows import windows
from tests.support.process import daemon_pid, environment, get, started
from tests.support.restarts import restarted
from tests.support.runs import CONTEXT
from tests.support.scenario import Scenario, Segment, compile_standin, h100
from tests.support.sim import SharedClock, simulated
from tests.support.strategies import table

SECONDS = 30
BURSTS = (
    Segment(50, hmma=0.9, fp32=0.1, util=100, watts=690),
    Segment(450, util=0, watts=130),
    Segment(500, hmma=0.5, util=100),
)


def say(what: str, figure: str, budget: str) -> None:
    print(f"{what:<62} {figure:>26}   budget {budget}", flush=True)


def running(standin: Path, folder: Path, gpus: int, scraped: bool, counters: str = "average") -> None:
    """CPU, memory, first metric, driver calls and scrape time of a real daemon. Without counters the daemon polls
    the SM clock."""
    calls = folder / "calls"
    scenario = Scenario(tuple(h100(BURSTS, counters=counters) for _ in range(gpus))).write(folder / "scenario.txt")
    env = environment(standin, scenario, NVML_STANDIN_CALLS=str(calls))
    began = time.monotonic()
    with started(
        "run", "--state-dir", str(folder / "state"), "--listen", "127.0.0.1:0", "--no-seal", env=env
    ) as program:
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        assert "flopsd_run_flop" in get(f"{url}/metrics")[1]
        first = time.monotonic() - began
        pause = threading.Event()
        pause.wait(8)  # until the counters are proven
        process = psutil.Process(daemon_pid(folder / "state"))
        client = http.client.HTTPConnection(url.removeprefix("http://"))  # kept open, as by Prometheus
        spent, made, since = cpu_ns(process.pid), _count(calls), time.monotonic()
        while time.monotonic() - since < SECONDS:
            if scraped:
                scrape(client)
            pause.wait(1)
        passed = time.monotonic() - since
        cpu = (cpu_ns(process.pid) - spent) / 1e7 / passed
        rss = process.memory_info().rss / 1e6
        per_second = (_count(calls) - made) / passed
        what = f"{gpus} GPUs at 1 Hz" + (", scraped every second" if scraped else "")
        what += ", clock polled" if counters == "none" else ""
        say(f"daemon CPU, {what}", f"{cpu:.3f} % of a core", "0.2 %" if scraped else "0.1 %")
        say(f"daemon RSS, {what}", f"{rss:.1f} MB", "32 MB")
        if scraped:
            times = p50_p99([timed(lambda: scrape(client)) for _ in range(300)])
            budget = "3 ms" if gpus == 16 else "1.5 ms"
            say(f"one scrape, {gpus} GPUs, client's time incl. HTTP, p50 / p99", times, budget)
        else:
            say("first metric after start", f"{first:.2f} s", "0.5 s")
            budget = "65" if counters == "average" else f"{65 + 20 * gpus}"
            say(f"driver calls a second, {what}", f"{per_second:.1f}", budget)


def _count(calls: Path) -> int:
    return int.from_bytes(calls.read_bytes(), "little")


def integral_error(standin: Path, folder: Path) -> None:
    clock = SharedClock(folder / "clock")
    gpu = h100(BURSTS)
    with simulated(standin, folder, Scenario((gpu,)), clock):
        source = NvmlSource(pynvml, SourceSettings(clock, table()))
        start = clock.boottime_ns()
        clock.advance(NS_PER_S // 3)
        source.read()
        begin = clock.boottime_ns()
        counted = 0
        for _ in range(3600):
            clock.advance(NS_PER_S)
            for reading in source.read().readings:
                assert isinstance(reading.work, Active)
                counted += reading.work.sm_cycles[Pipe.TENSOR_HMMA]
        source.close()
    true = gpu.sm_cycles(Pipe.TENSOR_HMMA, begin - start, clock.boottime_ns() - start, 132)
    say(
        "integral against closed form, 1 h at 1 Hz, bursts of 50 ms",
        f"{100 * float(counted / true - 1):+.9f} %",
        "0.1 %",
    )


def week(folder: Path, days: int = 7, gpus: int = 8) -> None:
    """A journal as a daemon with default settings writes it, and the cost of sealing and verifying it."""
    clock, state = FakeClock(), StateDir(folder / "week")
    fill(state, clock, gpu_devices(gpus), days * 24 * 60, CONTEXT, "week")
    size = state.journal.stat().st_size
    say("journal, bytes a device and day", f"{size / days / gpus:,.0f} B", f"{40e6 / 56:,.0f} B")
    say(f"journal, {days} days x {gpus} GPUs", f"{size / 1e6:.1f} MB", "40 MB")
    key, _ = ensure_key(None, state.path)
    seal_s = timed(lambda: seal_journal(state.journal, key, folder / "ledger.json", clock, code_secrets=[SECRET]))
    say(f"seal, {days} days x {gpus} GPUs", f"{seal_s:.2f} s", "1 s")
    public = load_public(str(folder / "ledger.pub"))
    verify_s = timed(lambda: verify_ledger(open_ledger(folder / "ledger.json", [public])))
    say(f"verify with recomputation, {days} days x {gpus} GPUs", f"{verify_s:.2f} s", "1 s")


def starts(folder: Path, count: int = 6000) -> None:
    """A journal of that many daemon starts, with a checkpoint line of each in a log."""
    sealed = restarted(folder, count)
    public = load_public(str(sealed.public_key))
    verify_s = timed(lambda: verify_ledger(open_ledger(sealed.ledger, [public]), anchors=[folder / "log"]))
    say(f"verify with checkpoint lines, {count} daemon starts", f"{verify_s:.2f} s", "5 s")


def daemons(standin: Path, folder: Path) -> None:
    for gpus, scraped, counters in (
        (8, False, "average"), (8, False, "none"), (8, True, "average"), (16, True, "average"),
    ):  # fmt: skip
        place = folder / f"{gpus}{scraped}{counters}"
        place.mkdir()
        running(standin, place, gpus, scraped, counters)


# In this order, the client last: it loads PyTorch, and a child begins with its parent's peak memory.
BENCHES: dict[str, Callable[[Path, Path], None]] = {
    "peers": peers,
    "daemons": daemons,
    "devices": devices,
    "soak": soak,
    "push": lambda standin, folder: push(standin, folder, say),
    "clients": lambda standin, folder: clients(standin, folder, say),
    "integral": integral_error,
    "week": lambda _, folder: week(folder),
    "starts": lambda _, folder: starts(folder),
    "verifier": lambda _, folder: verifier(folder, say),
    "merge": lambda _, folder: merge(folder, say),
    "merge-many": lambda _, folder: merge_many(folder, say),
    "client": lambda _, folder: client(folder, say),
    "operators": lambda *_: operators(say),
    "windows": lambda *_: windows(say),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*BENCHES, []], default=[], help="these alone")
    names = parser.parse_args().name or [name for name in BENCHES if name != "merge-many"]  # 5 GB, a quarter of an hour
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    print(f"{cpu}, {psutil.cpu_count()} cores, Python {platform.python_version()}; simulated GPUs (stand-in NVML)")
    with tempfile.TemporaryDirectory() as scratch:
        standin = compile_standin(Path(scratch) / "lib").parent
        for name in names:
            folder = Path(scratch) / name
            folder.mkdir()
            BENCHES[name](standin, folder)


if __name__ == "__main__":
    main()
