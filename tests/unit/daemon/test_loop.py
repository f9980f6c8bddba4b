"""The threads around the writer: source readers that fail, hang or come late, and the last reading."""

import errno
import threading
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.model import Active, Device, Evidence, GapReason, Pipe, Reading, Sweep
from flopsd.core.session_protocol import Event, NotServed, PhaseChanged, SessionClosed, WorkCounted
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.background import REBIND_SECONDS, BackgroundTasks
from flopsd.daemon.loop import Daemon, SourceReader
from flopsd.daemon.recovery.local_journal import RecoveredRun
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.journal.journal import Journal
from flopsd.journal.state_dir import StateDir
from flopsd.sources import Source
from flopsd.system.clock import NS_PER_S, SystemClock
from flopsd.system.socket_thread import SocketThread
from flopsd.testing import FakeClock, ScriptedSource
from tests.support.process import PATIENCE_SECONDS, wait_until
from tests.support.runs import CONTEXT, H100, Run
from tests.support.strategies import table

INTERVAL_S = 0.1


class Bench:
    """A daemon with scripted sources on the real clock, which the scripts stop."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        state = StateDir(folder)
        state.acquire()
        self.journal = Journal(state)
        self.journal.recover("aside")
        wanted = WriterSettings(round(INTERVAL_S * NS_PER_S), 3600 * NS_PER_S, "0" * 64, None, ("script",))
        self.writer = Writer(self.journal, table(), wanted, CONTEXT, self.clock, lambda _: None)
        self.writer.begin("run", RecoveredRun(read_history(self.journal.read())))
        self.since_ns = self.clock.boottime_ns()
        self.reads = 0

    def sweep(self) -> Sweep:
        now_ns = self.clock.boottime_ns()
        reading = Reading(H100.uid, self.since_ns, now_ns, Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 1000}))
        self.since_ns = now_ns
        return Sweep((reading,))

    def found(self) -> Source:
        """A source whose first read ends the daemon."""

        def script() -> Sweep:
            self.daemon.stop("found")
            return self.sweep()

        return ScriptedSource("script", [H100], script)

    def run(self, opener: object) -> str:
        self.daemon = Daemon(self.writer, {"script": opener}, self.clock, INTERVAL_S)  # type: ignore[dict-item]
        ticks = iter(range(100))
        why = self.daemon.run(lambda: None if next(ticks, None) is not None else self.daemon.stop("nothing came"))
        assert self.writer.close(why)
        return why


def test_stopping_takes_a_final_reading_and_warns_if_it_is_slow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    after_the_end: list[bool] = []

    def script() -> Sweep:
        after_the_end.append(bench.daemon.stopped_ns is not None)
        if len(after_the_end) == 2:
            bench.daemon.stop("SIGTERM")
        if after_the_end[-1]:
            wait_until(lambda: not bench.writer.snapshot.sources["script"].up, "the silence is noticed", 3)
        return bench.sweep()

    bench.run(lambda: ScriptedSource("script", [H100], script))
    assert after_the_end[:3] == [False, False, True]
    assert "stood still" not in caplog.text
    assert "source script: answers again" in caplog.text


def test_a_source_is_polled_at_its_moments_and_a_fault_costs_no_reading(tmp_path: Path) -> None:
    bench, asked, due = Bench(tmp_path), list[tuple[int, int, int]](), [0]

    def poll(until_ns: int) -> int | None:
        now_ns = bench.clock.boottime_ns()
        asked.append((due[0], now_ns, until_ns))
        due[0] = 0
        if len(asked) == 3:
            raise ZeroDivisionError("a plug-in's own fault")
        if now_ns + 10_000_000 >= until_ns:
            return None
        due[0] = now_ns + 10_000_000
        return due[0]

    def script() -> Sweep:
        bench.reads += 1
        if bench.reads == 6:
            bench.daemon.stop("enough")
        return bench.sweep()

    source = ScriptedSource("script", [H100], script)
    source.poll = poll  # type: ignore[attr-defined]
    assert bench.run(lambda: source) == "enough"
    assert len(asked) > 6
    assert all(now_ns >= due_ns for due_ns, now_ns, _ in asked)
    assert len({until_ns for _, _, until_ns in asked}) >= 4  # one for each wait
    assert bench.writer.snapshot.sources["script"].errors == {}


def test_a_source_that_names_past_moments_is_still_polled_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flopsd.daemon.loop.POLL_PAUSE_NS", 3_000_000)
    bench, asked = Bench(tmp_path), list[tuple[int, int]]()

    def poll(until_ns: int) -> int:
        asked.append((until_ns, bench.clock.boottime_ns()))
        if len(asked) == 20:
            bench.daemon.stop("enough")
        return 0

    source = ScriptedSource("script", [H100], bench.sweep)
    source.poll = poll  # type: ignore[attr-defined]
    bench.run(lambda: source)
    apart = [after - before for (one, before), (other, after) in pairwise(asked) if one == other]
    assert apart
    assert min(apart) >= 3_000_000


@pytest.mark.parametrize("is_declared_to", [False, True], ids=["alone", "beside-a-process-that-declares-without-end"])
def test_a_hanging_source_delays_neither_the_writer_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_declared_to: bool
) -> None:
    bench, hang, pause = Bench(tmp_path), threading.Event(), threading.Event()

    def script() -> Sweep:
        bench.reads += 1
        if bench.reads == 2:
            hang.wait()
        return bench.sweep()

    import flopsd.daemon.loop

    monkeypatch.setattr(flopsd.daemon.loop, "FINAL_READ_SECONDS", 0.1)
    opened = ScriptedSource("script", [H100], script)
    bench.daemon = Daemon(bench.writer, {"script": lambda: opened}, bench.clock, INTERVAL_S)

    def stop_when_ready() -> None:
        if not bench.writer.snapshot.sources["script"].up and bench.reads == 2:
            bench.daemon.stop("asked")

    until_ns, declared = bench.clock.boottime_ns() + PATIENCE_SECONDS * NS_PER_S, list[Event]()

    def declare_again(event: Event) -> None:
        declared.append(event)
        bench.clock.wait(pause, 0.01)
        if bench.clock.boottime_ns() < until_ns:
            bench.daemon.post_event(event)

    if is_declared_to:
        monkeypatch.setattr(bench.writer, "take_event", declare_again)
        bench.daemon.post_event(PhaseChanged("a" * 32, "train"))
    assert bench.daemon.run(stop_when_ready) == "asked"
    assert bench.clock.boottime_ns() < until_ns
    assert bool(declared) is is_declared_to
    assert bench.writer.close("sigterm")
    hang.set()
    (state,) = bench.writer.snapshot.devices
    assert state.tally.gap_ns[GapReason.SOURCE_SILENT] > 0
    assert state.tally.total_observed_ns + state.tally.total_gap_ns == state.tally.span_ns


def test_a_declaration_causes_no_tick_before_one_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, ticks = Bench(tmp_path), list[None]()
    monkeypatch.setattr(bench.writer, "tick", lambda: ticks.append(None))
    bench.daemon = Daemon(bench.writer, {}, FakeClock(), INTERVAL_S)
    bench.daemon.post_event(PhaseChanged("a" * 32, "train"))
    assert bench.daemon.run(lambda: bench.daemon.stop("asked")) == "asked"
    assert ticks == []


@pytest.mark.parametrize("is_slow", [False, True])
def test_what_processes_sent_until_their_server_stopped_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_slow: bool
) -> None:
    bench, taken = Bench(tmp_path), list[Event]()
    monkeypatch.setattr(bench.writer, "take_event", taken.append)
    monkeypatch.setattr("flopsd.daemon.loop.FINAL_READ_SECONDS", 0.0 if is_slow else 3600.0)
    bench.daemon = Daemon(bench.writer, {}, bench.clock, INTERVAL_S)
    counted = [WorkCounted("a" * 32, {"train": {"tokens": tokens}}) for tokens in (1, 2)]
    events: list[Event] = [*counted, SessionClosed("a" * 32, clean=False)]
    for event in events:
        bench.daemon.post_event(event)
    bench.daemon.take_last_events()
    assert taken == ([NotServed()] if is_slow else counted)


def test_the_daemon_ends_with_its_last_source_and_not_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flopsd.daemon.loop.FINAL_READ_SECONDS", 3600.0)
    bench = Bench(tmp_path)

    def script() -> Sweep:
        bench.daemon.stop("enough")
        return bench.sweep()

    class Slow(ScriptedSource):
        def close(self) -> None:
            wait_until(bench.daemon._inbox.empty, "the last reading is taken")
            super().close()

    source = Slow("script", [H100], script)
    running = threading.Thread(target=bench.run, args=(lambda: source,), daemon=True)
    running.start()
    running.join(PATIENCE_SECONDS)
    assert not running.is_alive()
    assert source.closed


class Panic(BaseException):
    """As libraries in Rust raise it."""


class Failing(ScriptedSource):
    """Raises `fault` in one of its calls, the first few times."""

    def __init__(self, bench: Bench, call: str, fault: BaseException, times: int) -> None:
        super().__init__("script", [H100], bench.sweep)
        self.bench, self.call, self.fault, self.left = bench, call, fault, times

    def fail(self, call: str) -> None:
        if call == self.call and self.left > 0:
            self.left -= 1
            raise self.fault

    def describe(self) -> Mapping[str, Any]:
        self.fail("describe")
        return {"driver": "7", "replay": None}

    def read(self) -> Sweep:
        self.fail("read")
        self.bench.reads += self.call == "close" or not self.left
        if self.bench.reads == 3:
            self.bench.daemon.stop("enough")
        return super().read()

    def devices(self) -> Iterator[Device]:  # type: ignore[override]
        self.fail("devices")
        yield from super().devices()

    def close(self) -> None:
        self.fail("close")
        super().close()


@pytest.mark.long
@pytest.mark.parametrize("call", ["describe", "read", "devices"])
@pytest.mark.parametrize(
    "fault", [RuntimeError("its own"), SystemExit(3), Panic("index out of bounds"), KeyboardInterrupt()]
)
def test_a_source_that_fails_in_any_call_is_read_again_and_its_facts_are_kept(
    tmp_path: Path, call: str, fault: BaseException
) -> None:
    bench = Bench(tmp_path)
    assert bench.run(lambda: Failing(bench, call, fault, 2)) == "enough"
    assert bench.writer.snapshot.sources["script"].errors == {"driver_error": 2}
    facts = [record["facts"] for record in bench.journal.read() if record["kind"] == "source"]
    assert facts == [{"driver": "7", "replay": None}]
    (state,) = bench.writer.snapshot.devices
    assert state.tally.total_observed_ns > 0


def test_a_source_that_cannot_be_closed_delays_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path)
    assert bench.run(lambda: Failing(bench, "close", RuntimeError("its own"), 9)) == "enough"
    (state,) = bench.writer.snapshot.devices
    assert set(state.tally.gap_ns) <= {GapReason.STARTING, GapReason.STOPPING}
    assert [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == [
        "source 'script' failed: RuntimeError('its own')"
    ]


@pytest.mark.parametrize(
    "fault", [SourceUnavailableError("not yet", hint="wait"), SystemExit(3), Panic(), ZeroDivisionError()]
)
def test_opening_a_source_is_retried_whatever_it_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    bench = Bench(tmp_path)
    left = [fault]

    def opener() -> Source:
        if left:
            raise left.pop()
        return bench.found()

    monkeypatch.setattr("flopsd.daemon.loop.REOPEN_SECONDS", 0.01)
    assert bench.run(opener) == "found"
    assert bench.writer.snapshot.sources["script"].errors == {"source_down": 1}


@pytest.mark.long
def test_an_absent_source_holds_no_thread_between_two_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, looked, beside = Bench(tmp_path), list[threading.Thread](), list[bool]()
    asked, look_again = threading.Semaphore(0), SourceReader.look_again

    def counted(reader: SourceReader) -> None:
        look_again(reader)
        asked.release()

    monkeypatch.setattr(SourceReader, "look_again", counted)

    def opener() -> Source:
        beside.append(bool(looked) and looked[-1].is_alive())
        looked.append(threading.current_thread())
        for _ in range(5):  # an attempt takes longer than the time to the next one
            assert asked.acquire(timeout=PATIENCE_SECONDS)
        if len(looked) < 3:
            raise SourceUnavailableError("no such device", absent=True)
        return bench.found()

    monkeypatch.setattr("flopsd.daemon.loop.REOPEN_SECONDS", 0.01)
    assert bench.run(opener) == "found"
    assert (len(set(looked)), any(beside)) == (3, False)


def test_a_fault_text_with_half_a_surrogate_pair_can_be_shown(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    def script() -> Sweep:
        bench.reads += 1
        if bench.reads == 3:
            bench.daemon.stop("enough")
        raise SourceError("no card \ud800")

    bench.run(lambda: ScriptedSource("script", [H100], script))
    assert bench.writer.snapshot.sources["script"].reason == r"no card \ud800"


def test_facts_lost_to_a_writer_failure_are_resent_by_their_source_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    daemon = Daemon(bench.writer, {"one": bench.found, "two": bench.found}, bench.clock, INTERVAL_S)
    for reader in daemon._readers:
        reader._described = True
    monkeypatch.setattr(bench.writer, "take", None)
    for message, described in (
        (Message("two", 5), [True, True]),
        (Message("none", 5, opened={}), [True, True]),
        (Message("two", 5, opened={}), [True, False]),
    ):
        daemon._take(message)
        assert [reader._described for reader in daemon._readers] == described


def test_without_threads_or_descriptors_metering_goes_on_and_the_page_comes_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, devices=(H100,))
    caplog.set_level("INFO", "flopsd")
    none_left = RuntimeError("can't start new thread"), OSError(errno.EMFILE, "Too many open files")
    serve = Mock(side_effect=[*none_left, None])
    monkeypatch.setattr(SocketThread, "serve", serve)
    settings = Mock(listen="127.0.0.1:0", web_config=None, device_precision={})
    tasks = BackgroundTasks(run.writer, settings, run.clock, None, Mock(), Mock(), None, None, lambda: False, None)
    assert "cannot listen on 127.0.0.1" in caplog.text
    for _ in none_left:
        run.clock.advance(REBIND_SECONDS * NS_PER_S)
        tasks.each_tick()
    assert "metrics at http://127.0.0.1" in caplog.text
    serve.call_args.args[0]._close()
