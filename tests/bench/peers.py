"""flopsd beside a bare loop and nvitop-exporter: the same 8 GPUs, the same second, one machine.

In a run the three start one after the other. Then all of them run at once, first at rest and then each scraped every
second: other load on the machine affects all three, and each has its default settings. A driver call answers at once,
or waits 100 µs as in a busy driver. There are two kinds of machine: GPUs alone, whose driver answers the queries of
flopsd; and a training node, where a process holds each GPU, the load changes, and memory, temperatures, PCIe and 18
NVLinks answer too.
"""

import http.client
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psutil

from tests.bench.measuring import cpu_ns, scrape, timed
from tests.support.process import FLOPSD, PATIENCE_SECONDS, environment, free_port
from tests.support.scenario import Gpu, Process, Scenario, Segment, compile_standin, h100

GPUS, RUNS, SECONDS, SCRAPES = 8, 3, 12, 50
PROVEN_SECONDS = 180  # the running counters of all GPUs are proven after 20 to 60 s; until then flopsd polls clocks
ALONE, NODE = "GPUs alone", "training node"
MACHINES = ((ALONE, 0), (NODE, 0), (NODE, 100))  # with the microseconds that a driver call waits
BUSY = (Segment(1000, hmma=0.5, fp32=0.1, util=100, watts=500),)
STEPS = (Segment(700, hmma=0.8, fp32=0.1, util=100, watts=650), Segment(300, util=0, watts=130))
TRAINING = (sys.executable, "-c", "import time; time.sleep(10**6)", "train.py", "--config", "run.yaml")
OURS, BARE, NVITOP = "flopsd", "bare loop", "nvitop-exporter"
# Each row: the quantity, its digits after the point, and the target for flopsd as a ratio to one of the peers.
ROWS = (
    ("CPU at rest, s a minute", 3, (BARE, 2.0)),
    ("CPU scraped each second, s a minute", 3, (NVITOP, 1 / 6)),
    ("memory, MB", 1, (NVITOP, 1.0)),
    ("threads", 0, None),
    ("scrape, ms", 2, (NVITOP, 1 / 10)),
    ("first scrape after a reading, ms", 2, None),
    ("first page, s", 2, None),
)  # fmt: skip
Figures = dict[str, list[float]]  # by row, one for each run


def peers(standin: Path, folder: Path) -> None:
    """Prints the median of the runs and their range, and the ratio of the medians beside its target."""
    commands = {
        OURS: [*FLOPSD, "run", "--no-seal", "--state-dir", "{folder}", "--listen", "127.0.0.1:{port}"],
        BARE: [sys.executable, str(Path(__file__).with_name("bare_loop.py")), "{port}"],
    }
    if nvitop := _nvitop(folder / "venv"):
        commands[NVITOP] = [str(nvitop), "--bind-address", "127.0.0.1", "--port", "{port}", "--interval", "1"]
    standins = {ALONE: standin, NODE: compile_standin(folder / NODE, "TRAINING_NODE").parent}
    for machine, delay_us in MACHINES:
        found: dict[str, Figures] = {name: {row[0]: [] for row in ROWS} for name in commands}
        for run in range(RUNS):
            place = folder / f"{machine} {delay_us} {run}"
            place.mkdir()
            with _gpus(machine) as gpus:
                _run(standins[machine], place, Scenario(gpus), commands, found, delay_us)
        title = f"{machine}, {delay_us} us a driver call"
        print(f"\n{title:<38}", *(f"{name:<22}" for name in commands))
        for what, digits, target in ROWS:
            ratio = ""
            if target is not None and target[0] in found:
                share = statistics.median(found[OURS][what]) / statistics.median(found[target[0]][what])
                ratio = f"{share:.2f} of {target[0]}, budget {target[1]:.2f}"
            print(f"{what:<38}", *(f"{_shown(found[name][what], digits):<22}" for name in commands), ratio, flush=True)


@contextmanager
def _gpus(machine: str) -> Iterator[tuple[Gpu, ...]]:
    if machine == ALONE:
        yield tuple(h100(BUSY, counters="average") for _ in range(GPUS))
        return
    with ExitStack() as stack:
        pids = [stack.enter_context(_started(TRAINING, None)).pid for _ in range(GPUS)]
        yield tuple(h100(STEPS, counters="average", processes=(Process(0, 10**12, pid),)) for pid in pids)


def _shown(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _run(
    standin: Path, folder: Path, scenario: Scenario, commands: Mapping[str, Sequence[str]],
    found: Mapping[str, Figures], delay_us: int,
) -> None:  # fmt: skip
    env = environment(standin, scenario.write(folder / "scenario.txt"), NVML_STANDIN_DELAY_US=str(delay_us))
    pause = threading.Event()
    with ExitStack() as stack:
        running: dict[str, tuple[psutil.Process, http.client.HTTPConnection]] = {}
        for name, command in commands.items():
            port = free_port()
            began = time.monotonic()
            process = stack.enter_context(_started([part.format(folder=folder, port=port) for part in command], env))
            client = http.client.HTTPConnection("127.0.0.1", port)  # kept open, as by Prometheus
            _first_page(client, scenario.uuid(GPUS - 1), process)
            found[name]["first page, s"].append(time.monotonic() - began)
            running[name] = (process, client)
        _proven(running[OURS][1])
        firsts: dict[str, list[float]] = {name: [] for name in running}
        for what, is_scraped in (("CPU at rest, s a minute", False), ("CPU scraped each second, s a minute", True)):
            since, spent = time.monotonic(), {name: cpu_ns(process.pid) for name, (process, _) in running.items()}
            while time.monotonic() - since < SECONDS:
                for name, (_, client) in running.items():
                    if is_scraped:
                        firsts[name].append(timed(partial(scrape, client)))
                pause.wait(1)
            minutes = (time.monotonic() - since) / 60
            for name, (process, _) in running.items():
                found[name][what].append((cpu_ns(process.pid) - spent[name]) / 1e9 / minutes)
        times: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(SCRAPES):
            for name, (_, client) in running.items():
                times[name].append(timed(partial(scrape, client)))
        for name, (process, _) in running.items():
            found[name]["scrape, ms"].append(1000 * statistics.median(times[name]))
            found[name]["first scrape after a reading, ms"].append(1000 * statistics.median(firsts[name]))
            found[name]["memory, MB"].append(process.memory_info().rss / 1e6)
            found[name]["threads"].append(process.num_threads())


@contextmanager
def _started(command: Sequence[str], env: Mapping[str, str] | None) -> Iterator[psutil.Process]:
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def _first_page(client: http.client.HTTPConnection, last_uuid: str, process: psutil.Process) -> None:
    """Poll until the page contains the last GPU."""
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, threading.Event()
    while time.monotonic() < deadline and process.is_running():
        try:
            client.request("GET", "/metrics")
            if last_uuid.encode() in client.getresponse().read():
                return
        except OSError:
            client.close()
        pause.wait(0.005)
    raise AssertionError(f"no page of {process.cmdline()}")


def _proven(client: http.client.HTTPConnection) -> None:
    deadline, pause = time.monotonic() + PROVEN_SECONDS, threading.Event()
    while time.monotonic() < deadline:
        client.request("GET", "/metrics")
        if len(re.findall(rb'flopsd_device_info{[^}]*evidence="cycles"', client.getresponse().read())) == GPUS:
            return
        pause.wait(1)
    raise AssertionError(f"the running counters of some GPU are not proven after {PROVEN_SECONDS} s")


def _nvitop(venv: Path) -> Path | None:
    """The installed program; None if it cannot be installed here."""
    program = venv / "bin" / "nvitop-exporter"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "nvitop-exporter"]
    return program if subprocess.run(install, check=False).returncode == 0 else None
