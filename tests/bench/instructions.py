"""The functions of a running daemon that use the processor's instructions. `python -m tests.bench.instructions`.

Callgrind counts the instructions, and Python's perf trampolines (3.12 or newer) name the functions, so that the
figures are the same on a busy machine: a change of one per cent shows. 8 simulated GPUs; valgrind must be installed.
"""

import argparse
import bisect
import http.client
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.support.process import environment, free_port
from tests.support.proven_counters import write_proven
from tests.support.scenario import BUSY, Scenario, compile_standin, h100

GPUS, SETTLES_SECONDS, LISTED = 8, 25, 120  # under valgrind a tick takes fifty times as long
_COST, _NAME = re.compile(r"[+\-*\d]\S* (\d+)"), re.compile(r"\((\d+)\)(?: (.*))?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--scraped", action="store_true", help="with a scrape each second")
    parser.add_argument(
        "--python", default=sys.executable, help="that runs flopsd, 3.12 or newer with its requirements"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs, calls = _count(arguments.python, Path(folder), arguments.seconds, is_scraped=arguments.scraped)
    seconds = arguments.seconds
    print("thousands of instructions a second with all that it calls, calls a second, function")
    for name, cost in costs.most_common(LISTED):
        print(f"{cost / seconds / 1000:9.1f} {calls[name] / seconds:9.1f}  {name}")


def _count(python: str, folder: Path, seconds: int, *, is_scraped: bool) -> tuple[Counter[str], Counter[str]]:
    """Instructions and calls by function."""
    scenario, port, pause = (
        Scenario(tuple(h100(BUSY, counters="average") for _ in range(GPUS))),
        free_port(),
        threading.Event(),
    )
    write_proven(folder / "state", scenario, "instructions")
    out = folder / "callgrind"
    command = [
        "valgrind", "--tool=callgrind", "--smc-check=all-non-file", f"--callgrind-out-file={out}", python,
        "-X", "perf", "-m", "flopsd", "run", "--no-seal", "--state-dir", str(folder / "state"),
        "--listen", f"127.0.0.1:{port}",
    ]  # fmt: skip
    env = environment(compile_standin(folder / "lib").parent, scenario.write(folder / "scenario.txt"))
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            page = b""
            while scenario.uuid(GPUS - 1).encode() not in page:
                if process.poll() is not None:
                    sys.exit(f"{python} cannot run flopsd: it needs flopsd's requirements")
                pause.wait(0.5)
                with suppress(OSError):
                    page = _scrape(port)
            functions = Path(f"/tmp/perf-{process.pid}.map")
            if not functions.exists():
                sys.exit(f"{python} names no functions: it needs Python 3.12, give --python")
            pause.wait(SETTLES_SECONDS)
            _dump(process.pid)
            for _ in range(seconds):
                if is_scraped:
                    _scrape(port)
                pause.wait(1)
            _dump(process.pid)
            return _read(Path(f"{out}.2").read_text(), functions.read_text())
        finally:
            process.kill()
            Path(f"/tmp/perf-{process.pid}.map").unlink(missing_ok=True)


def _scrape(port: int) -> bytes:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.request("GET", "/metrics")
    return client.getresponse().read()


def _dump(pid: int) -> None:
    """Write the counts since the last dump to the next file."""
    subprocess.run(["callgrind_control", "-d", str(pid)], check=True, capture_output=True)


def _read(profile: str, functions: str) -> tuple[Counter[str], Counter[str]]:
    """Parse callgrind's file, and Python's map of its trampolines with lines of `BEGIN SIZE NAME` in hex."""
    lines = (line.split(" ", 2) for line in functions.splitlines())
    mapped = sorted((int(begin, 16), int(size, 16), name) for begin, size, name in lines)
    begins, names = [begin for begin, _, _ in mapped], dict[str, str]()
    costs, calls = Counter[str](), Counter[str]()

    def named(text: str) -> str:
        found = _NAME.fullmatch(text)
        assert found is not None
        name = names.setdefault(found[1], found[2] or "")
        if not name.startswith("0x"):
            return ""
        address = int(name.partition("'")[0], 16)
        begin, size, function = mapped[bisect.bisect(begins, address) - 1]
        return function.removeprefix("py::") if begin <= address < begin + size else ""

    function = called = ""
    times = 0
    for line in profile.splitlines():
        if line.startswith("fn="):
            function = named(line[3:])
        elif line.startswith("cfn="):
            called = named(line[4:])
        elif line.startswith("calls="):
            times = int(line[6:].split()[0])
        elif cost := _COST.match(line):
            costs[function] += int(cost[1])
            if times:
                calls[called] += times
            times = 0
    costs.pop("", None)
    return costs, calls


if __name__ == "__main__":
    main()
