"""A dcgm-exporter of our own: started with DCGM embedded in it, watched, ended with us.

Flags, log lines and socket activation are from the source of dcgm-exporter 4.8.2 (d5e5f510, with exporter-toolkit
0.16.0). The words with which it ends are from users' reports, named below. Never tried with the real exporter.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections import deque
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from flopsd.errors import SourceUnavailableError
from flopsd.system.guarded_child import Cost, GuardedChild
from flopsd.system.process_groups import how_ended
from flopsd.system.sha256 import file_sha256

_COUNTERS = Path(__file__).parent / "counters.csv"  # the exporter watches it while it runs: not a temporary file
# All that is passed on: no secrets, and no settings of another exporter here, such as DCGM_REMOTE_HOSTENGINE_INFO.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "NODE_NAME", "NVIDIA_VISIBLE_DEVICES")
_VERSION = re.compile(r'msg="Starting dcgm-exporter" Version=(\S+)')
_SERVING = "Starting webserver"
_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_LINES, _LINE_BYTES, _TEXT_MAX = 50, 16 * 1024, 300  # of its log: lines kept, the end of a line, the text in an error
GIVE_BACK_SECONDS, END_SECONDS = 1.0, 5.0


class Ending(Enum):
    """Why DCGM gives no profiling fields, by what the exporter said."""

    REFUSED = "refused"  # for lack of privilege
    IN_USE = "in_use"  # another profiler has the counters
    NOT_SUPPORTED = "not_supported"
    FAULT = "fault"


_WORDS = (
    # DCGM_ST_REQUIRES_ROOT and DCGM_ST_NO_PERMISSION; dcgm-exporter#407, #427.
    (Ending.REFUSED, ("host engine is running as non-root", "no permission", "sufficient privileges")),
    # DCGM_ST_PROFILING_LIBRARY_ERROR, DCGM_ST_IN_USE and DCGM_ST_PAUSED; DCGM#56, #106, dcgm-exporter#7. The first has
    # been seen for a fault of the driver too, dcgm-exporter#148, and nothing here distinguishes the two.
    (
        Ending.IN_USE,
        ("third-party profiling module returned an unrecoverable error", "affected resource is in use", "are paused"),
    ),
    # DCGM_ST_PROFILING_NOT_SUPPORTED and DCGM_ST_MODULE_NOT_LOADED; dcgm-exporter#327, #707.
    (Ending.NOT_SUPPORTED, ("profiling is not supported", "module of dcgm that is not currently loaded")),
)


def ending_of(lines: Sequence[str]) -> tuple[Ending, str]:
    """Return why the exporter ended, by the last line that names a reason, and the text of that line."""
    for line in reversed(lines):
        lowered = line.lower()
        for ending, words in _WORDS:
            if any(one in lowered for one in words):
                return ending, _message_of(line)
    return Ending.FAULT, _message_of(lines[-1]) if lines else "it printed nothing"


class OwnExporter:
    """One address, and the program behind it, of which at most one runs at a time."""

    def __init__(self, path: str, interval_ms: int) -> None:
        """Raises SourceUnavailableError."""
        self.path, self._interval_ms = path, interval_ms
        self.version: str | None = None
        self.lines: deque[str] = deque(maxlen=_LINES)
        self.is_serving = False  # whether its log says that it answers
        self._rest = b""
        self._child: GuardedChild | None = None
        self._before, self._now = Cost(), Cost()
        self.memory_bytes = 0  # the most seen at a look
        try:
            # Kept open as long as this source, even between two starts: no other process can answer in its place.
            self._listener = socket.create_server(("127.0.0.1", 0))
        except OSError as fault:
            why = f"no port for a dcgm-exporter can be opened: {fault.strerror}"
            raise SourceUnavailableError(why, hint="check that this process may listen on 127.0.0.1") from fault

    @property
    def address(self) -> str:
        return "{}:{}".format(*self._listener.getsockname())

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.process.pid

    def program_sha256(self) -> str | None:
        """Return the digest of the running file, even if another file has its path by now; of a script, by its path."""
        running = f"/proc/{self.pid}/exe"
        try:
            is_binary = os.readlink(running).startswith(os.path.realpath(self.path))
        except OSError:
            return None
        return file_sha256(running if is_binary else self.path)

    @property
    def cost(self) -> Cost:
        """The cost of all starts together; for a program that died by itself, as of the last look."""
        return Cost(self._before.cpu_ns + self._now.cpu_ns, self._now.memory_bytes)

    def start(self) -> None:
        """Start the program; only if none runs. Raises SourceUnavailableError."""
        self.lines.clear()
        self._rest, self.is_serving = b"", False
        flags = ("-f", str(_COUNTERS), "-c", str(self._interval_ms), "-a", self.address, "--web-systemd-socket")
        env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            self._child = GuardedChild([self.path, *flags], env=env, listener=self._listener.fileno(), one_output=True)
        except OSError as fault:
            why = f"{self.path} cannot be started: {fault.strerror}"
            raise SourceUnavailableError(why, hint="check that it is executable") from fault
        os.set_blocking(self._child.output.fileno(), False)

    def look(self) -> str | None:
        """Take in the log and the cost of the program; return how it ended, None while it runs."""
        if self._child is None:
            return "is not running"
        self._now = self._child.cost() or self._now  # first: the cost of an ended process is gone once poll reaped it
        self.memory_bytes = max(self.memory_bytes, self._now.memory_bytes)
        code = self._child.process.poll()
        self._read()  # last: its final words are there now
        return None if code is None else f"ended with {how_ended(code)}"

    def stop(self) -> None:
        """End the program and what it started. Harmless if it has ended."""
        child, self._child = self._child, None
        if child is None:
            return
        child.end()
        _wait(child, END_SECONDS)  # a process stuck in the driver is left to the kernel
        child.output.close()
        self._before, self._now = Cost(self._before.cpu_ns + self._now.cpu_ns), Cost()

    def close(self) -> None:
        """Let the program release the counters, and end it."""
        if self._child is not None:
            self._child.process.terminate()
            _wait(self._child, GIVE_BACK_SECONDS)
        self.stop()
        self._listener.close()

    def _read(self) -> None:
        assert self._child is not None
        try:
            while data := os.read(self._child.output.fileno(), _LINE_BYTES):
                *whole, self._rest = (self._rest + data).split(b"\n")
                self._rest = self._rest[-_LINE_BYTES:]
                for line in whole:
                    self._said(line.decode("utf-8", "replace").strip())
        except BlockingIOError:
            pass

    def _said(self, line: str) -> None:
        if line:
            self.lines.append(line)
        if found := _VERSION.search(line):
            self.version = found[1]
        self.is_serving = self.is_serving or _SERVING in line


def _wait(child: GuardedChild, seconds: float) -> None:
    try:
        child.process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def _message_of(line: str) -> str:
    found = _MESSAGE.search(line)
    return (found[1] if found else line)[:_TEXT_MAX]
