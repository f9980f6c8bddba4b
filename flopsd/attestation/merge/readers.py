"""Read ledgers in several processes, and yield the results in the order in which the ledgers were found.

A process gets its next batch after its last answer was taken, so the number of waiting results is bounded. The
processes are not in the terminal's group: Ctrl-C reaches only the parent, which ends them. They also end if the parent
is gone.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import flopsd
from flopsd.attestation.merge.ledger_folders import FoundLedger
from flopsd.attestation.merge.read_child import Child, ChildReader
from flopsd.attestation.signing.public_key import parse_public
from flopsd.core.dataclass import dataclass
from flopsd.errors import FlopsdError, LedgerError
from flopsd.settings.data_files import Tables

log = logging.getLogger("flopsd")
FEW, BATCH, MOST_PROCESSES = 200, 16, 16  # FEW: ledgers that one process reads before others have started
# The current folder may contain a `pickle.py`: the processes import from this process's path, and the same flopsd.
_START = """import sys
sys.path[:] = {path!r}
import flopsd
del sys.path[0]
from flopsd.system.process_memory import collect_rarely
collect_rarely()
from flopsd.attestation.merge.readers import serve
serve()
"""
_Read = Child | Exception | None
_Found = tuple[FoundLedger, Child | None]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The settings for reading ledgers, which another process can be sent."""

    kind: str
    trusted: Sequence[bytes]  # public keys, as PEM
    peaks_files: Sequence[str]
    policy_files: Sequence[str]
    allow_replay: bool

    def reader(self) -> ChildReader:
        keys = [parse_public(pem, "a trusted key") for pem in self.trusted]
        tables = Tables(peaks_files=self.peaks_files, policy_files=self.policy_files)
        return ChildReader(self.kind, keys, tables, allow_replay=self.allow_replay)


def read_all(found: Iterator[FoundLedger], reading: ReadOptions, *, passing: Path) -> Generator[_Found, None, None]:
    """Each found ledger with its child. Ledgers below the folder `passing` exist only until the next is requested.
    Raises the errors of `ChildReader.read` and `found`, for the first ledger in order."""
    reader, count = reading.reader(), 0
    with ExitStack() as ended:
        processes: list[_Process] = []
        waiting: deque[tuple[_Process, list[FoundLedger]]] = deque()
        batch: list[FoundLedger] = []

        def taken(most: int) -> Iterator[_Found]:
            """The results of the oldest batches, until no more than `most` batches wait."""
            while len(waiting) > most:
                process, ledgers = waiting.popleft()
                yield from _checked(ledgers, process.answer())

        def give() -> Iterator[_Found]:
            yield from taken(len(processes) - 1)
            process = next(one for one in processes if all(one is not busy for busy, _ in waiting))
            process.give(batch)
            waiting.append((process, batch[:]))
            batch.clear()

        while True:
            fault: Exception | None = None
            try:
                one = next(found, None)
            except (FlopsdError, OSError) as raised:  # faults of ledgers found earlier come first
                one, fault = None, raised
            count += 1
            if one is not None and count > FEW and not processes:
                processes += [ended.enter_context(_Process()) for _ in range(_processes())]
                for process in processes:
                    process.give(reading)
            if one is not None and processes and not one.path.is_relative_to(passing):
                batch.append(one)
                if len(batch) == BATCH:
                    yield from give()
                continue
            if batch:
                yield from give()
            yield from taken(0)
            if fault is not None:
                raise fault
            if one is None:
                return
            yield from _checked([one], [_read(reader, one)])


def _checked(ledgers: Iterable[FoundLedger], read: Iterable[_Read]) -> Iterator[_Found]:
    for ledger, child in zip(ledgers, read, strict=True):
        if isinstance(child, Exception):
            raise child
        yield ledger, child


def _processes() -> int:
    """How many processes to start: 0 if there is one core, or if the debug log is on, which they would not write to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores == 1 or log.isEnabledFor(logging.DEBUG) else min(cores, MOST_PROCESSES)


class _Process:
    """A process that reads ledgers, as a context manager that ends it."""

    def __enter__(self) -> _Process:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=[str(Path(flopsd.__file__).parents[1]), *sys.path])],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, os.fdopen(os.dup(self._process.stdout.fileno()), "rb")
        self._process.stdout.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._orders.close()
        self._answers.close()
        self._process.wait()

    def give(self, what: object) -> None:
        """Send the `ReadOptions` first, then batches, one at a time. Raises LedgerError if the process has ended."""
        left = memoryview(pickle.dumps(what))
        try:
            while left:
                left = left[self._orders.write(left) :]
        except BrokenPipeError as fault:
            raise _ended(self._process) from fault

    def answer(self) -> list[_Read]:
        """The results of the batch. Raises LedgerError if the process has ended."""
        try:
            found: list[_Read] = pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError) as fault:
            raise _ended(self._process) from fault
        return found


def _ended(process: subprocess.Popen[bytes]) -> LedgerError:
    code = process.wait()
    return LedgerError(
        f"a process that read ledgers ended with {code}",
        hint="the system may have killed it for lack of memory: merge again",
    )


def serve() -> None:
    """The main function of a reading process: answer each batch on stdin, until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # other writes to stdout must not mix with the answers
    reading: Any = pickle.load(sys.stdin.buffer)
    reader = reading.reader()
    while True:
        try:
            batch: list[FoundLedger] = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump([_for_pickle(_read(reader, one)) for one in batch], answers)
        answers.flush()


def _for_pickle(read: _Read) -> _Read:
    return replace(read, claims=list(read.claims)) if isinstance(read, Child) else read


def _read(reader: ChildReader, found: FoundLedger) -> _Read:
    log.debug("reading %s", found.label)
    try:
        return reader.read(found)
    except FlopsdError as fault:
        return fault
    except OSError as fault:
        return LedgerError(f"cannot read {found.label}: {fault.strerror or fault}")
