"""The real program as its users start it, with the stand-in where the dynamic loader looks first."""

import io
import json
import logging
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flopsd.attestation.ledger_files import companions_beside
from flopsd.cli.main import main
from flopsd.core.companions import kind_of
from flopsd.settings.data_files import companion_beside
from flopsd.system.clock import NS_PER_S, SystemClock
from tests.support.paths import ROOT
from tests.support.scenario import Scenario
from tests.support.tools import missing, require_tools

# Even as root, with no more rights than the owner of the files has.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--") if os.geteuid() == 0 else ()
FLOPSD = (sys.executable, "-m", "flopsd")
PATIENCE_SECONDS = 60
NO_NVML = (
    ROOT / "tests" / "standin" / "no-nvml"
)  # the loader finds its empty library before the machine's, and refuses it
NO_EXPORTER = "http://127.0.0.1:1/metrics"


def environment(
    standin: Path | None, scenario: Path | None = None, *, dcgm_url: str | None = NO_EXPORTER, **more: str
) -> dict[str, str]:
    """This process's environment without other settings of flopsd, with the stand-in or without any NVML. This
    machine's drivers and exporter are hidden; with `dcgm_url` None the exporter is visible."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FLOPSD_", "NVML_STANDIN_"))}
    clean |= {"LD_LIBRARY_PATH": str(NO_NVML if standin is None else standin), "FLOPSD_NEURON_MONITOR": "off"}
    if dcgm_url is not None:
        clean["FLOPSD_DCGM_URL"] = dcgm_url
    if scenario is not None:
        clean["NVML_STANDIN_SCENARIO"] = str(scenario)
    return {**clean, **more}


Done = subprocess.CompletedProcess[str]
Says = str | tuple[str, ...]


def flopsd(*arguments: str, env: Mapping[str, str] | None = None, code: int | None = None, says: Says = ()) -> Done:
    """Run the program to its end. Checks the exit code, where one is given, and that stderr contains these words."""
    done = subprocess.run(
        [*FLOPSD, *arguments], env=dict(env) if env is not None else environment(None), capture_output=True, text=True,
        timeout=PATIENCE_SECONDS * 3, check=False,
    )  # fmt: skip
    return as_expected(done, code, says)


def as_expected(done: Done, code: int | None, says: Says) -> Done:
    """Check a finished program against the exit code and the words on stderr that a test expects."""
    assert code in (None, done.returncode), done.stdout + done.stderr
    for words in (says,) if isinstance(says, str) else says:
        assert words in done.stderr, done.stderr
    return done


def in_process(*arguments: str, env: Mapping[str, str] | None = None, code: int | None = None, says: Says = ()) -> Done:
    """Like `flopsd`, without the cost of an interpreter: for verbs that start no process and leave the streams
    alone."""
    out, err, logger = io.StringIO(), io.StringIO(), logging.getLogger("flopsd")
    clean = dict(env) if env is not None else environment(None)
    handlers, level = logger.handlers[:], logger.level
    try:
        with redirect_stdout(out), redirect_stderr(err), patch.dict(os.environ, clean, clear=True):
            main(arguments)
    except SystemExit as left:
        done = Done(arguments, int(left.code or 0), out.getvalue(), err.getvalue())
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    return as_expected(done, code, says)


ADDRESS_SPACE = 256 * 1024**2


IN_LITTLE_MEMORY = """import json, sys
from tests.support.process import in_process
for command in json.load(sys.stdin):
    done = in_process(*command)
    print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)"""


def in_little_memory(*expected: tuple[Sequence[str], int, str]) -> None:
    """Run these commands one after another in one process with 256 MB of address space; each has its exit code and
    words of its output."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY], input=json.dumps([command for command, _, _ in expected]),
        env=environment(None), capture_output=True, text=True, timeout=PATIENCE_SECONDS * 2, check=False,
        preexec_fn=limit,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for (command, code, says), (left, printed) in zip(expected, found, strict=False):
        assert (left, says in printed) == (code, True), (command, left, printed)
    assert len(found) == len(expected), (expected[len(found)], done.stderr)


def until_ended(pid: int | None) -> None:
    """Wait for a child to end without reaping it."""
    assert pid is not None
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


class Program:
    """A running flopsd whose stderr is followed line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self._rest = b""  # read, but not yet a whole line

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line of stderr, past or future, that matches. Fails when the program ends or hangs."""
        for line in self.said:
            if match := re.search(pattern, line):
                return match
        until = time.monotonic() + PATIENCE_SECONDS
        while (said := self._next_line(until)) is not None:
            if match := re.search(pattern, said):
                return match
        raise AssertionError(f"{pattern!r} was never said; it said:\n{self.text}")

    def _next_line(self, until: float) -> str | None:
        """Read past Python's own buffer, which would hide lines from select. None at the end of the stream or after
        too long."""
        assert self.process.stderr is not None
        fd = self.process.stderr.fileno()
        while b"\n" not in self._rest:
            left = max(0, until - time.monotonic())
            if not select.select([fd], [], [], left)[0] or not (data := os.read(fd, 1 << 16)):
                return None
            self._rest += data
        raw, _, self._rest = self._rest.partition(b"\n")
        self.said.append(raw.decode() + "\n")
        return self.said[-1]

    def finish(self) -> int:
        """Wait for the end, and keep the output."""
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS * 3)
        self.said += (self._rest.decode() + err).splitlines(keepends=True)
        self._rest, self.out = b"", out
        return self.process.returncode

    @property
    def text(self) -> str:
        return "".join(self.said)


@contextmanager
def started(*arguments: str, env: Mapping[str, str]) -> Iterator[Program]:
    """A flopsd process that does not outlive the test. Its stderr is unbuffered text. At its end it waits for no
    scrape, since many tests look at /metrics and then stop it; `env` may say otherwise."""
    process = subprocess.Popen(
        [*FLOPSD, *arguments], env={"FLOPSD_WAIT_FOR_SCRAPE": "0", **env}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
    )  # fmt: skip
    with process:
        try:
            yield Program(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            _end_session(process.pid)


def _end_session(leader: int) -> None:
    """Kill the session's processes: a job of `exec` has a process group of its own, and outlives a launcher that was
    killed."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(ProcessLookupError):
            if os.getsid(int(pid)) == leader:
                os.kill(int(pid), signal.SIGKILL)


def daemon_pid(state_dir: Path) -> int:
    """The pid of the daemon that holds a state folder."""
    return int((state_dir / "lock").read_text())


def modules_after(code: str, *arguments: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `code`."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)", *arguments]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Any, what: str, seconds: int = PATIENCE_SECONDS) -> Any:
    """Poll a condition that no event announces, until it holds."""
    clock = SystemClock()
    deadline = clock.boottime_ns() + seconds * NS_PER_S
    pause = threading.Event()
    while clock.boottime_ns() < deadline:
        if found := condition():
            return found
        pause.wait(0.05)
    raise AssertionError(f"never happened: {what}")


def get(url: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as fault:
        with fault:
            return fault.code, fault.read().decode(), dict(fault.headers)


def post_json(url: str, document: object) -> None:
    """Raises HTTPError for any answer other than success."""
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        answer.read()


def answers(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def query(url: str, expression: str, at_seconds: float | None = None) -> list[dict[str, Any]]:
    """A Prometheus's answer to an expression."""
    at = "" if at_seconds is None else f"&time={at_seconds:.3f}"
    status, body, _ = get(f"{url}/api/v1/query?query={urllib.parse.quote(expression)}{at}")
    assert status == 200, body
    found: list[dict[str, Any]] = json.loads(body)["data"]["result"]
    return found


@contextmanager
def running(command: Sequence[str], url: str) -> Iterator[str]:
    """Run a program that answers at `url` + /-/ready, until the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(f"{url}/-/ready"), f"{command[0]} is ready")
            yield url
        finally:
            process.terminate()


def accepting(ledger: Path) -> list[str]:
    """The options that accept the files beside a ledger."""
    found = ((kind_of(name), companion_beside(ledger, name)) for name in companions_beside(ledger))
    return [word for kind, path in found for word in (f"--{kind}", str(path))]


def predicate(ledger: Path) -> dict[str, Any]:
    """The predicate of a ledger that `flopsd verify` accepts; fails with the verifier's reason otherwise."""
    command = ["verify", str(ledger), "--key", str(ledger.with_suffix(".pub")), "--json", "--allow-replay"]
    done = in_process(*command, *accepting(ledger), code=0)
    found: dict[str, Any] = json.loads(done.stdout)["predicate"]
    return found


def truth(scenario: Scenario, index: int, begin_ns: int, end_ns: int, sms: int, rates: Mapping[Any, int]) -> int:
    """FLOP that a simulated GPU executed between two boot times, in closed form."""
    gpu, zero = scenario.gpus[index], scenario.epoch_ns
    return int(sum(gpu.sm_cycles(pipe, begin_ns - zero, end_ns - zero, sms) * rate for pipe, rate in rates.items()))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of `size` at `folder`. Without permission to mount, the test is skipped, or fails where CI requires
    all tools."""
    require_tools("mount", "umount")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"no right to mount a small tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all free space on `disk`. Removing the returned file frees it again."""
    path = disk / "fill"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return path
