"""Shared by the benchmarks: a line of figures, the CPU time of a process, and the times of scrapes."""

import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.process import FLOPSD, environment

Say = Callable[[str, str, str], None]  # subject, figure, budget


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, including ended ones, to the nanosecond."""
    return time.clock_gettime_ns(
        (~pid << 3) | 2
    )  # CLOCK_PROCESS_CPUTIME_ID of another process, as in clock_getcpuclockid(3)


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


# Through a small process: a child begins with the peak memory of its parent, which may be large.
_MEASURED = """
import resource, subprocess, sys, time
began = time.monotonic()
code = subprocess.run(sys.argv[1:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost and output of one run of the real program."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    out: str
    code: int

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.peak_bytes / 1e6:.0f} MB"


def cost_of(*arguments: str, codes: Sequence[int] = (0,)) -> Cost:
    """Run the program with these arguments to its end; its exit code must be one of `codes`."""
    command = [sys.executable, "-c", _MEASURED, *FLOPSD, *arguments]
    done = subprocess.run(command, env=environment(None), capture_output=True, text=True, check=False)
    assert done.returncode in codes, done.stdout + done.stderr
    seconds, cpu_seconds, peak_kb = map(float, done.stderr.splitlines()[-1].split())
    return Cost(seconds, cpu_seconds, int(peak_kb * 1024), done.stdout, done.returncode)
