"""A daemon is killed right after any of its file operations, when a rolling seal has just covered what is there: its
restart under the same launcher continues exactly that."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.ledger_files import journal_beside
from flopsd.core.model import Pipe, Reading, Sweep
from flopsd.core.session_protocol import FactsDeclared, SessionOpened
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.ledgers.sealing import seal
from flopsd.daemon.recovery.local_journal import recover
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.errors import LedgerError
from flopsd.journal.head import KnownJournal
from flopsd.journal.journal import Journal
from flopsd.journal.segments import closed_segments
from flopsd.journal.state_dir import StateDir
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.os_calls import Killed, replace_call
from tests.support.runs import CONTEXT, history_of
from tests.support.story import H100, Second, active
from tests.support.strategies import table

CALLS = ("replace", "fsync", "pwrite", "open", "ftruncate", "mkdir")
WORK = active(132, 1700, {Pipe.TENSOR_HMMA: 300_000})


class Launched:
    """A run whose launcher keeps what the daemon tells it, and the journals of all ledgers ever signed."""

    def __init__(self, folder: Path) -> None:
        self.state, self.clock, self.known = StateDir(folder / "state"), FakeClock(), ""
        self.settings = Settings(
            state_dir=str(folder / "state"), ledger=str(folder / "out" / "run.json"), rotate_every="1d", evidence=()
        )
        self.signed, self.shown_ns = list[bytes](), 0
        self.journal = Journal(self.state)

    def start(self) -> None:
        self.journal = Journal(self.state)
        found = recover(self.journal, self.clock, KnownJournal.parse(self.known) if self.known else None)
        assert found.recovery is None
        wanted = WriterSettings(NS_PER_S, 3 * NS_PER_S, "0" * 64, None, ("sim",), is_rotated=True)
        self.writer = Writer(self.journal, table(), wanted, CONTEXT, self.clock, lambda _: None, self._report)
        self.writer.begin("run", found)
        self.since_ns = self.clock.boottime_ns()
        self.writer.take(Message("sim", self.since_ns, (H100,), Sweep(()), opened={"replay": None}))

    def _report(self) -> None:
        self.known = str(self.journal.as_known_journal("run"))

    def work(self) -> None:
        for process in range(3):
            self.read()
            self.writer.take_event(SessionOpened(f"{process:032x}", 7, 1000, "1"))
            self.writer.take_event(FactsDeclared(f"{process:032x}", {"precision": "fp8"}))
        self.read()
        self.clock.advance(1000)
        assert self.writer.rotate()
        self.read()

    def read(self) -> None:
        self.clock.advance(NS_PER_S)
        second = Second(self.since_ns, self.clock.boottime_ns())
        self.since_ns = second.end_ns
        reading = Reading(H100.uid, second.begin_ns, second.end_ns, WORK(second))
        self.writer.take(Message("sim", second.end_ns, (H100,), Sweep((reading,)), read_seconds=0.001))
        self.shown_ns = self.writer.snapshot.devices[0].observed_ns

    def kill(self) -> None:
        self.journal.close()
        self.state.release()

    def seal(self) -> None:
        if self.state.has_journal():
            try:
                sealed = seal(self.state.journal, self.state, self.settings, self.clock, live=True)
            except LedgerError:  # there is no record, or none since the last seal
                return
            self.signed.append(journal_beside(sealed.ledger).read_bytes())


@contextmanager
def ended_after(step: int, at_the_end: Callable[[], object]) -> Iterator[None]:
    """Make file operation number `step` the last one, and call `at_the_end` after it."""
    left, is_dead = step, False

    def ending(call: Callable[..., Any]) -> Callable[..., Any]:
        def end(*arguments: Any, **named: Any) -> Any:
            nonlocal left, is_dead
            if is_dead:
                raise Killed
            done = call(*arguments, **named)
            left -= 1
            if left == -1:
                at_the_end()
                is_dead = True
                raise Killed
            return done

        return end

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            replace_call(patch, name, ending(getattr(os, name)))
        yield


def test_no_ledger_contradicts_another_after_a_kill_anywhere(tmp_path: Path) -> None:
    sealed = 0
    for step in count():
        run = Launched(tmp_path / str(step))
        run.state.acquire()
        try:
            with ended_after(step, run.seal):
                run.start()
                run.work()
                break
        except Killed:
            pass
        run.kill()
        shown_ns = run.shown_ns
        run.state.acquire()
        run.start()
        assert sum(one.observed_ns for one in run.writer.snapshot.devices) >= shown_ns, step
        run.read()
        assert run.writer.close("sigterm")
        run.kill()
        journals = [*closed_segments(run.state), run.state.journal]
        assert [history_of(path).segment for path in journals] == list(range(1, len(journals) + 1))
        ends = [path.read_bytes() for path in journals]
        for signed in run.signed:
            assert any(end.startswith(signed) for end in ends), step
        sealed += len(run.signed)
    assert (step > 40, sealed > 10) == (True, True)
