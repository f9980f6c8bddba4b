"""What the benchmarks share: a line of figures, the CPU time of a process, the times of scrapes."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Say = Callable[[str, str, str], None]  # what, figure, budget


def cpu_ns(pid: int) -> int:
    """Time on a CPU of all threads, to the nanosecond; threads that ended are few and short here."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def scrape(client: http.client.HTTPConnection) -> None:
    client.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    assert client.getresponse().read()


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def p50_p99(seconds: Sequence[float]) -> str:
    """In milliseconds."""
    return f"{1000 * statistics.median(seconds):.2f} / {1000 * statistics.quantiles(seconds, n=100)[98]:.2f} ms"
