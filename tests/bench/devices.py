"""The cost of each further device: a real daemon with 8 to 64 simulated GPUs, and the cost added for each GPU from
one count to the next."""

import http.client
import statistics
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil

from tests.bench.measuring import cpu_ns, scrape, timed
from tests.support.process import daemon_pid, environment, get, started
from tests.support.scenario import Scenario, Segment, h100

COUNTS, SECONDS, SCRAPES = (8, 16, 32, 64), 15, 50
WARM_SECONDS = 25  # by then flopsd has proven the running counters
BUSY = (Segment(1000, hmma=0.5, fp32=0.1, util=100, watts=500),)
ROWS = ("CPU at rest, % of a core", "scraped each second, %", "memory, MB", "page, kB", "scrape, ms", "threads")


def devices(standin: Path, folder: Path) -> None:
    """Where a cost is linear, the amount added for each GPU is the same in all columns."""
    found = {count: list(_figures(standin, folder / f"{count}", count)) for count in COUNTS}
    steps = [f"each, {few} to {many}" for few, many in pairwise(COUNTS)]
    print(f"{'':<26}", *(f"{count:>5} GPUs" for count in COUNTS), *(f"{step:>15}" for step in steps))
    for at, what in enumerate(ROWS):
        each = ((found[many][at] - found[few][at]) / (many - few) for few, many in pairwise(COUNTS))
        print(f"{what:<26}", *(f"{found[count][at]:>10.2f}" for count in COUNTS), *(f"{one:>15.4f}" for one in each))


def _figures(standin: Path, folder: Path, count: int) -> Iterator[float]:
    """One figure for each of ROWS."""
    folder.mkdir()
    scenario = Scenario(tuple(h100(BUSY, counters="average") for _ in range(count))).write(folder / "scenario.txt")
    flags = ("--state-dir", str(folder / "state"), "--listen", "127.0.0.1:0", "--no-seal")
    pause = threading.Event()
    with started("run", *flags, env=environment(standin, scenario)) as program:
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]
        process = psutil.Process(daemon_pid(folder / "state"))
        client = http.client.HTTPConnection(url.removeprefix("http://"))  # kept open, as by Prometheus
        pause.wait(WARM_SECONDS)
        for is_scraped in (False, True):
            spent, since = cpu_ns(process.pid), time.monotonic()
            while time.monotonic() - since < SECONDS:
                if is_scraped:
                    scrape(client)
                pause.wait(1)
            yield (cpu_ns(process.pid) - spent) / 1e7 / (time.monotonic() - since)
        yield process.memory_info().rss / 1e6
        yield len(get(f"{url}/metrics")[1]) / 1e3
        yield 1000 * statistics.median(timed(partial(scrape, client)) for _ in range(SCRAPES))
        pause.wait(1)
        yield process.num_threads()
