"""neuron-monitor as a child process. Its documents are stamped as they come, and buffered, so that no read waits.

The child ends with this process, however that ends: see `flopsd.system.guarded_child`.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections import deque
from contextlib import suppress
from typing import IO

from flopsd.core.dataclass import dataclass
from flopsd.errors import SourceUnavailableError
from flopsd.sources.neuron.document import SAID_CHARACTERS, DocumentError, MonitorDocument, parse, scrub
from flopsd.system.clock import Clock
from flopsd.system.guarded_child import GuardedChild
from flopsd.system.process_groups import how_ended

LINE_MAX_BYTES = 8_000_000
# "1.0s" is silently ignored and gives 5 s (pantheonneuron, measured); "1s" is taken.
CONFIG = {
    "period": "1s",
    "neuron_runtimes": [{"tag_filter": ".*", "metrics": [{"type": "neuroncore_counters"}]}],
    "system_metrics": [{"type": "neuron_hw_counters"}],
}
_BUFFERED = 600  # ten minutes; what falls out is a hole between documents, and a hole is a gap
_BUFFERED_BYTES = 4 * LINE_MAX_BYTES
_SAID_BYTES = 4096  # of a line of its log
END_SECONDS = 5.0
_VERSION = re.compile(r"\bversion:?\s+v?(\d+(?:\.\d+)+\S*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that is no document; or the child has `ended`, and prints no more lines."""

    fault: str
    ended: bool = False


@dataclass(frozen=True, slots=True)
class StreamItem:
    """What came, and when (boot time)."""

    at_ns: int
    what: MonitorDocument | Failure


class MonitorProcess:
    def __init__(self, path: str, clock: Clock) -> None:
        """Start the child. Raises SourceUnavailableError if it cannot be started."""
        self._path, self._clock = path, clock
        self._items: deque[StreamItem] = deque(maxlen=_BUFFERED)
        self._arrived = threading.Event()
        self._said = ""  # the last line of its log
        self._said_all = threading.Event()
        self.version: str | None = None
        try:
            self._config = _write_config()
            self._child = GuardedChild([path, "-c", self._config])
        except OSError as fault:
            raise SourceUnavailableError(
                f"{path} cannot be started: {fault}", hint="check that it is executable and that TMPDIR is writable"
            ) from fault
        self._threads = [
            threading.Thread(target=work, name=f"neuron-{name}", daemon=True)
            for name, work in (("stdout", self._follow_stdout), ("stderr", self._follow_stderr))
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as fault:  # no more threads: nobody would read what it prints
            self._child.end()
            self._forget_config()
            for thread, pipe in zip(self._threads, (self._child.output, self._child.process.stderr), strict=True):
                if thread.ident is None and pipe is not None:
                    pipe.close()
            raise SourceUnavailableError(
                f"{path} cannot be followed: {fault}", hint="allow this user or container more processes and threads"
            ) from fault

    def wait(self, seconds: float) -> bool:
        """Wait until something has come, at most `seconds`; for the opening only."""
        return self._arrived.wait(seconds)

    def drain(self) -> list[StreamItem]:
        """Return all that came since the last call, oldest first. Never waits."""
        self._arrived.clear()
        return [self._items.popleft() for _ in range(len(self._items))]

    def close(self, *, wait: bool = True) -> None:
        """End the child and what it started. Harmless if it has ended."""
        self._child.end()
        for thread in self._threads:
            thread.join(END_SECONDS if wait else 0)  # a child stuck in its driver is left to the kernel
        self._forget_config()

    def _follow_stdout(self) -> None:
        with self._child.output as stdout:
            while (line := stdout.readline(LINE_MAX_BYTES)) != b"":
                if not line.strip():
                    continue
                self._put(_read_on(line, stdout), len(line))
                self._forget_config()
        self._child.end()  # a child that closed its output is of no use any more
        how = how_ended(self._child.process.wait())
        self._said_all.wait(END_SECONDS)  # its last words say why it ended
        self._put(Failure(f"neuron-monitor ended with {how}{self._said and f': {self._said}'}", ended=True))

    def _follow_stderr(self) -> None:
        assert self._child.process.stderr is not None
        with self._child.process.stderr as stderr:
            while (line := stderr.readline(_SAID_BYTES)) != b"":
                text = scrub(line.decode("utf-8", "replace").strip())[:SAID_CHARACTERS]
                self._said = text or self._said
                if self.version is None and (match := _VERSION.search(text)):
                    self.version = match[1]
        self._said_all.set()

    def _put(self, what: MonitorDocument | Failure, size_bytes: int = 1) -> None:
        self._items.append(StreamItem(self._clock.boottime_ns(), what))
        with suppress(IndexError):  # `drain` takes them meanwhile
            while len(self._items) * size_bytes > _BUFFERED_BYTES:
                self._items.popleft()
        self._arrived.set()

    def _forget_config(self) -> None:
        try:
            os.unlink(self._config)
        except FileNotFoundError:
            pass  # deleted already: the child reads it before it prints the first line


def _read_on(line: bytes, stdout: IO[bytes]) -> MonitorDocument | Failure:
    """Return the document of a line. If more of the line is unread, it is too long, and its rest is skipped."""
    if not line.endswith(b"\n"):
        length = len(line)
        while line and not line.endswith(b"\n"):
            line = stdout.readline(LINE_MAX_BYTES)
            length += len(line)
        return Failure(f"a line of {length} bytes, too long or cut off")
    try:
        return parse(line)
    except DocumentError as fault:
        return Failure(str(fault))


def _write_config() -> str:
    handle, path = tempfile.mkstemp(prefix="flopsd-neuron-", suffix=".json")
    with os.fdopen(handle, "w", encoding="ascii") as file:
        json.dump(CONFIG, file)
    return path
