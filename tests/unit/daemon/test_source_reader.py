"""When a source is opened and read."""

import threading
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from flopsd.core.model import Sweep
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.loop import SourceReader
from flopsd.daemon.open_sources import SourceOpener
from flopsd.errors import SourceUnavailableError
from flopsd.settings.device_selection import parse_devices
from flopsd.settings.schema import Settings
from flopsd.sources import Source, SourceSettings
from flopsd.sources.ownership.rule import Job
from flopsd.system.clock import NS_PER_S, SystemClock
from flopsd.testing import FakeClock, ScriptedSource
from tests.support.process import PATIENCE_SECONDS, wait_until
from tests.support.runs import H100
from tests.support.strategies import table


@pytest.mark.parametrize(
    ("interval_s", "most_ms"), [(0.05, 0), (0.2, 0), (0.3, 50), (0.4, 100), (0.5, 125), (1, 250), (60, 15_000)]
)
def test_reads_are_jittered_and_never_too_close_for_the_driver(
    monkeypatch: pytest.MonkeyPatch, interval_s: float, most_ms: int
) -> None:
    reader = SourceReader("script", lambda: None, lambda _: None, SystemClock(), interval_s, threading.Event())  # type: ignore[arg-type,return-value]
    ends = []
    for end in (lambda _: 0, lambda limit: limit - 1):
        monkeypatch.setattr("flopsd.daemon.loop.random_below", end)
        ends.append(reader._offset_ns())
    assert ends == [-most_ms * 1_000_000, most_ms * 1_000_000]


def test_reads_are_jittered_around_regular_moments_and_a_slow_one_is_not_made_up_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, stop, waits, posted = FakeClock(0), threading.Event(), list[float](), list[Message]()

    def script() -> Sweep:
        clock.advance(25 * NS_PER_S if len(waits) == 3 else 0)
        return Sweep(())

    def wait(_reader: SourceReader, due_ns: int) -> None:
        waits.append(due_ns / NS_PER_S)
        clock.advance(due_ns - clock.boottime_ns())
        if len(waits) == 6:
            stop.set()

    monkeypatch.setattr("flopsd.daemon.loop.random_below", lambda _limit: 0)
    monkeypatch.setattr(SourceReader, "_wait", wait)
    reader = SourceReader("script", lambda: ScriptedSource("script", [H100], script), posted.append, clock, 10, stop)
    reader._run()
    assert waits == [0.2, 7.7, 17.7, 47.7, 57.7, 67.7]
    assert [round(one.at_ns / NS_PER_S, 1) for one in posted[1:]] == [0.2, 7.7, 42.7, 47.7, 57.7, 67.7, 0.0]
    assert reader.finished.is_set()


def test_a_request_for_facts_that_comes_during_a_read_is_met_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, posted, waits = threading.Event(), list[Message](), list[int]()

    def script() -> Sweep:
        if len(waits) == 1:
            reader.describe_again()  # by the writer's thread
        return Sweep(())

    def wait(_reader: SourceReader, due_ns: int) -> None:
        waits.append(due_ns)
        if len(waits) == 3:
            stop.set()

    monkeypatch.setattr(SourceReader, "_wait", wait)
    source = ScriptedSource("script", [H100], script)
    reader = SourceReader("script", lambda: source, posted.append, FakeClock(0), 1, stop)
    reader._run()
    assert [one.opened is not None for one in posted] == [True, False, True, False, False]


def test_a_daemon_stopped_before_its_first_reading_still_lists_the_devices() -> None:
    posted, stop = list[Message](), threading.Event()
    stop.set()
    source = ScriptedSource("script", [H100], lambda: Sweep(()))
    SourceReader("script", lambda: source, posted.append, FakeClock(0), 1, stop)._run()
    assert [message.devices for message in posted] == [(H100,), ()]


def test_a_source_is_notified_before_its_last_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stop, calls = FakeClock(0), threading.Event(), list[str]()

    def script() -> Sweep:
        calls.append("read")
        return Sweep(())

    def wait(_reader: SourceReader, due_ns: int) -> None:
        clock.advance(due_ns - clock.boottime_ns())
        if len(calls) == 2:
            stop.set()

    def last() -> None:
        calls.append("last")
        raise OSError  # costs no reading

    monkeypatch.setattr(SourceReader, "_wait", wait)
    source = ScriptedSource("script", [H100], script)
    monkeypatch.setattr(source, "before_last_read", last, raising=False)
    SourceReader("script", lambda: source, lambda _: None, clock, 1, stop)._run()
    assert calls == ["read", "read", "last", "read"]


@pytest.mark.parametrize(
    ("sources", "is_absent", "expected"),
    [(("probe",), True, True), (("probe",), False, False), (("nvml",), True, False), (("nvml", "probe"), True, False)],
)
def test_a_missing_source_is_a_fault_only_if_it_was_named(
    monkeypatch: pytest.MonkeyPatch, sources: tuple[str, ...], is_absent: bool, expected: bool
) -> None:
    fault = SourceUnavailableError("no such device", absent=is_absent)

    def find(_name: str) -> Any:
        raise fault

    monkeypatch.setattr("flopsd.daemon.open_sources.find_with_origin", find)
    with pytest.raises(SourceUnavailableError) as caught:
        SourceOpener(Settings(sources=sources), None, None).open("nvml")  # type: ignore[arg-type]
    assert caught.value is fault
    assert (fault.is_failure, fault.absent) == (not expected, is_absent)


def test_a_replayed_device_belongs_to_no_job_and_is_never_filtered() -> None:
    settings = Settings(sources=("replay",), devices=parse_devices("GPU-of-nobody"))
    source = SourceOpener(settings, SourceSettings(FakeClock(), table()), Job({})).open("replay")
    assert source.devices()
    source.close()


def test_facts_are_read_again_when_they_change_and_at_the_end() -> None:
    reader = SourceReader("script", lambda: None, lambda _: None, SystemClock(), 1, threading.Event())  # type: ignore[arg-type,return-value]
    source: Any = SimpleNamespace(facts_version="1", describe=lambda: {"version": source.facts_version})
    reader._source = source
    assert [reader._new_facts(is_last=last) for last in (False, False, True)] == [
        {"version": "1"},
        None,
        {"version": "1"},
    ]
    source.facts_version = "2"
    assert reader._new_facts(is_last=False) == {"version": "2"}


def test_a_source_without_a_thread_is_read_once_a_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, posted, stop = FakeClock(), list[Message](), threading.Event()
    source = ScriptedSource("script", [H100], lambda: Sweep(()))
    reader = SourceReader("script", lambda: source, posted.append, clock, 1, stop)
    with monkeypatch.context() as now:
        now.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        reader.start()
    reader.look_again()
    assert [message.fault for message in posted] == ["source 'script' failed: RuntimeError(\"can't start new thread\")"]
    clock.advance(5 * NS_PER_S)
    stop.set()
    reader.look_again()
    wait_until(reader.finished.is_set, "its last read")
    assert posted[1].devices == (H100,)


def test_missing_hardware_is_looked_for_ever_less_often_but_once_a_minute() -> None:
    clock, looks = FakeClock(), list[int]()

    def opener() -> Source:
        looks.append((clock.boottime_ns() - began_ns) // NS_PER_S)
        raise SourceUnavailableError("no such device", absent=True)

    reader = SourceReader("script", opener, lambda _: None, clock, 1, threading.Event())
    began_ns = clock.boottime_ns()
    reader.start()
    for _ in range(200):
        assert reader.finished.wait(PATIENCE_SECONDS)
        clock.advance(NS_PER_S)
        reader.look_again()
    assert looks == [0, 5, 15, 35, 75, 135, 195]


@pytest.mark.parametrize(("is_absent", "fault"), [(False, "no such device; plug it in"), (True, "no such device")])
def test_a_remedy_is_given_for_a_fault_and_not_for_missing_hardware(is_absent: bool, fault: str) -> None:
    posted, stop = list[Message](), threading.Event()

    def opener() -> Source:
        stop.set()
        raise SourceUnavailableError("no such device", hint="plug it in", absent=is_absent)

    SourceReader("script", opener, posted.append, FakeClock(0), 1, stop)._run()
    assert posted[0].fault == fault
