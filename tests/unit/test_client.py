"""The client in a training process: its messages arrive, and no kind of daemon changes anything for the training."""

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from flopsd.client import Client, connect
from flopsd.client.client import MAX_TRANSITIONS, SEND_SECONDS
from flopsd.client.connection import DaemonConnection, line
from flopsd.client.counted_work import MAX_NOTED, CountedWork, note_of
from flopsd.client.work_by_run import FORGOTTEN, WorkByRun
from flopsd.core.declarations import Phase
from flopsd.core.session_protocol import (
    MAX_LINE_BYTES,
    QUEUED_NS,
    FactsDeclared,
    PhaseChanged,
    SessionClosed,
    SessionOpened,
    WorkCounted,
)
from flopsd.system.clock import Clock, SystemClock
from tests.support.process import PATIENCE_SECONDS, modules_after, wait_until
from tests.support.session_servers import Daemon, EventServer, SkippingClock, foreign, never_reads, work_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.sock"


@pytest.fixture
def server(path: Path) -> Iterator[EventServer]:
    server = EventServer(path)
    yield server
    server.listener.stop()


@pytest.fixture
def client(path: Path) -> Iterator[Client]:
    client = connect(path)
    yield client
    client.close()


def test_declarations_arrive(server: EventServer, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.declare(method="lora", lora={"r": 8, "target_modules": ["v_proj", "q_proj"]}, model_name=None)
    client.set_phase("train")
    server.wait_for(PhaseChanged(client.session, "train"))
    with client.phase("evaluate"):
        server.wait_for(PhaseChanged(client.session, "evaluate"))
        with client.phase("generate"):
            server.wait_for(PhaseChanged(client.session, "generate"))
        server.wait_for(PhaseChanged(client.session, "evaluate"))
    server.wait_for(PhaseChanged(client.session, "train"))
    with pytest.raises(KeyError), client.phase("other"):
        raise KeyError
    server.wait_for(PhaseChanged(client.session, "train"))
    client.count("train", tokens=100, steps=1)
    again = client.counting("train", tokens=5, steps=1)
    again()
    again()
    client.count("train", tokens=1)
    client.count("evaluate", tokens=5)
    client.declare(method="qlora")
    client.declare(model_config={"rope_theta": 1e4, "layers": [1, 2], "ünicode": "ß"})
    client.close()
    events = server.all()
    assert FactsDeclared(client.session, {"method": "qlora"}) in events
    kept = {"model_config": {"rope_theta": "10000.0", "layers": [1, 2], "ünicode": "ß"}}
    assert FactsDeclared(client.session, kept) in events
    assert work_of(events) == {"train": {"tokens": 111, "steps": 3}, "evaluate": {"tokens": 5}}
    assert events[-1] == SessionClosed(client.session, clean=True)
    assert not [text for text in caplog.messages if "model_name" in text], "what is None is ignored"


def test_a_change_after_a_quiet_time_is_sent_at_once(
    path: Path, server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change must not wait for the next counters, which would come in an hour."""
    monkeypatch.setattr("flopsd.client.client.WORK_SECONDS", 3600.0)
    client = connect(path)
    client.set_phase("train")
    server.wait_for(PhaseChanged(client.session, "train"))
    wait_until(lambda: not client._awake, "the thread waits")
    client.declare(method="full")
    server.wait_for(FactsDeclared(client.session, {"method": "full"}))
    wait_until(lambda: not client._awake, "the thread waits")
    client.set_phase("evaluate")
    server.wait_for(PhaseChanged(client.session, "evaluate"))
    wait_until(lambda: not client._awake, "the thread waits")
    client.close(PATIENCE_SECONDS)
    assert server.all()[-1] == SessionClosed(client.session, clean=True)


def test_setting_the_same_phase_again_is_no_change(server: EventServer, client: Client) -> None:
    client.set_phase("train")
    server.wait_for(PhaseChanged(client.session, "train"))
    for phase in (None, None, Phase.TRAIN, "train", None):
        client.set_phase(phase)
    client.close()
    phases = [event.phase for event in server.all() if isinstance(event, PhaseChanged)]
    assert phases == ["undeclared", "train", "undeclared"]


def test_a_restarted_daemon_receives_everything_once(path: Path, client: Client) -> None:
    first = Daemon(path)
    client.declare(method="full")
    client.set_phase("train")
    client.count("train", tokens=100)
    opened = first.next("SessionOpened")
    assert first.next("WorkCounted")["work"] == {"train": {"tokens": 100}}
    first.kill()
    client.set_phase("evaluate")
    second = Daemon(path)
    assert second.next("SessionOpened") == opened
    assert second.next("FactsDeclared")["facts"] == {"method": "full"}
    assert second.next("PhaseChanged")["phase"] == "evaluate"
    assert second.next("WorkCounted")["work"] == {"train": {"tokens": 100}}
    client.close()
    assert second.next("SessionClosed")["clean"] is True
    second.close()


def test_a_new_daemon_gets_only_the_current_phase(path: Path, client: Client) -> None:
    for phase in ("train", "evaluate", "generate"):
        client.set_phase(phase)
    daemon = Daemon(path)
    assert daemon.next("PhaseChanged")["phase"] == "generate"
    client.set_phase("train")
    assert daemon.next("PhaseChanged")["phase"] == "train"
    daemon.close()


@pytest.mark.long
def test_operator_counts_restart_for_another_run_once_queued_work_has_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SkippingClock()
    client = Client((path,), clock)
    first = Daemon(path)
    client.count("train", tokens=100)
    first.next("WorkCounted")
    client.count("train", operator_flop=1000)
    assert first.next("WorkCounted")["work"] == {"train": {"tokens": 100, "operator_flop": 1000}}
    first.kill()
    client.count("train", tokens=20, operator_flop=200)
    client.declare(operators_not_counted={"train": ["a"], "evaluate": ["b"]})
    second = Daemon(path)
    declared = {"train": sorted(["a", FORGOTTEN]), "evaluate": ["b"]}
    assert second.next("FactsDeclared")["facts"] == {"operators_not_counted": declared}
    assert second.next("WorkCounted")["work"] == {"train": {"tokens": 120}}
    client.declare(operators_not_counted={"other": ["c"]})
    assert second.next("FactsDeclared")["facts"] == {"operators_not_counted": {"other": ["c"], "train": [FORGOTTEN]}}
    facts_to_send = client._facts_to_send

    def counted_meanwhile() -> dict[str, Any]:  # also between two steps of the sending thread
        client.count("train", tokens=1, operator_flop=30)  # may belong to a pass that began before
        monkeypatch.undo()
        return facts_to_send()

    monkeypatch.setattr(client, "_facts_to_send", counted_meanwhile)
    assert second.next("WorkCounted")["work"] == {"train": {"tokens": 121}}
    clock.skipped_ns = QUEUED_NS
    client.count("train", operator_flop=7)
    assert second.next("WorkCounted")["work"] == {"train": {"tokens": 121, "operator_flop": 7}}
    client.close()
    second.close()


def test_counts_of_another_session_without_a_daemon_are_not_sent_to_the_next(path: Path, client: Client) -> None:
    first = Daemon(path)
    client.count("train", tokens=100)
    first.next("WorkCounted")
    first.kill()
    wait_until(lambda: client._connection is None, "the daemon is missed")
    other = client.another_session()
    other.count("train", tokens=1, operator_flop=11)
    second = EventServer(path)
    second.wait_for(WorkCounted(other.session, {"train": {"tokens": 1}}))
    second.listener.stop()


def answered_later(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """The daemon was asked; and the event before which it does not answer."""
    hello, asked, answers = DaemonConnection.hello, threading.Event(), threading.Event()

    def answered(connection: DaemonConnection, session: str, clock: Clock) -> tuple[str, bool, int]:
        asked.set()
        answers.wait(PATIENCE_SECONDS)
        return hello(connection, session, clock)

    monkeypatch.setattr(DaemonConnection, "hello", answered)
    return asked, answers


@pytest.mark.long
def test_counts_of_another_session_before_the_next_daemon_answers_are_not_sent_to_it(
    path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Daemon(path)
    client.count("train", tokens=100)
    first.next("WorkCounted")
    asked, answers = answered_later(monkeypatch)
    first.kill()
    second = EventServer(path)
    assert asked.wait(PATIENCE_SECONDS)
    other = client.another_session()
    other.count("train", tokens=1, operator_flop=11)
    answers.set()
    second.wait_for(WorkCounted(other.session, {"train": {"tokens": 1}}))
    second.listener.stop()


def test_counts_of_another_session_before_its_answer_go_to_the_first_sessions_daemon(
    server: EventServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: client._is_served, "the daemon is met")
    _, answers = answered_later(monkeypatch)
    other = client.another_session()
    other.count("train", operator_flop=11)
    answers.set()
    server.wait_for(WorkCounted(other.session, {"train": {"operator_flop": 11}}))


@pytest.mark.long
def test_a_daemon_that_continues_the_run_gets_all_counts(path: Path, client: Client) -> None:
    first = EventServer(path)
    client.count("train", tokens=100)
    assert isinstance(first.next(), SessionOpened)
    assert isinstance(first.next(), WorkCounted)
    client.count("train", operator_flop=1000)
    assert isinstance(first.next(), WorkCounted)
    first.listener.stop()
    second = EventServer(path, known={client.session: os.geteuid()})
    client.count("train", operator_flop=200)
    assert isinstance(second.next(), SessionOpened)
    while not isinstance(event := second.next(), WorkCounted) or event.work["train"].get("operator_flop") != 1200:
        pass
    client.close()
    second.listener.stop()


@pytest.mark.long
def test_a_run_that_goes_on_in_a_new_journal_keeps_the_counts_that_it_has(path: Path, client: Client) -> None:
    for run, known, tokens in (("a", {}, 100), ("a, anew", {client.session: os.geteuid()}, 120)):
        client.count("train", tokens=100 if run == "a" else 20)
        server = EventServer(path, known=known, run_key=run)
        server.wait_for(WorkCounted(client.session, {"train": {"tokens": tokens}}))
        server.listener.stop()


@pytest.mark.long
@pytest.mark.parametrize("is_continued", [False, True])
def test_each_run_gets_the_work_that_no_other_run_has(path: Path, client: Client, *, is_continued: bool) -> None:
    """Every run got all work since the process began, so a lineage of two had it twice."""
    began_ns = SystemClock().boottime_ns()
    runs, given = [("a", 1), ("b", 20), ("a", 300), ("c", 4000)], dict[str, int]()
    for run, tokens in runs:
        client.count("train", tokens=tokens)
        now_ns = began_ns if is_continued else SystemClock().boottime_ns()
        server = EventServer(path, run_key=run, since_ns=(now_ns, now_ns))
        given[run] = given.get(run, 0) + tokens
        server.wait_for(WorkCounted(client.session, {"train": {"tokens": given[run]}}))
        server.listener.stop()
    assert client._by_run.left_out["not_counted"].keys() == ({"train"} if is_continued else set())


@pytest.mark.long
@pytest.mark.parametrize(
    ("is_known", "is_stopped", "counted"), [(False, False, 1200), (True, True, 1000), (False, True, None)]
)
def test_a_daemon_gets_counts_of_the_time_that_its_run_metered(
    path: Path, client: Client, *, is_known: bool, is_stopped: bool, counted: int | None
) -> None:
    """A daemon that was killed in the first second of a session is continued by one that does not know it. Work
    between the end of a daemon and the start of the next is in no figure."""
    first = EventServer(path, since_ns=(0, 0))
    client.count("train", operator_flop=1000)
    first.wait_for(WorkCounted(client.session, {"train": {"operator_flop": 1000}}))
    first.listener.stop()
    client.count("train", operator_flop=200)
    now_ns = SystemClock().boottime_ns()
    known = {client.session: os.geteuid()} if is_known else {}
    second = EventServer(path, known=known, since_ns=(now_ns, now_ns) if is_stopped else (0, 0))
    while not isinstance(event := second.next(), WorkCounted):
        pass
    assert event.work["train"].get("operator_flop") == counted
    client.close()
    second.listener.stop()
    assert client._by_run.left_out["operators_not_counted"].keys() == ({"train"} if is_stopped else set())


@pytest.mark.long
def test_a_run_that_was_met_before_there_was_work_gets_none_of_another_run(path: Path, client: Client) -> None:
    first = EventServer(path, run_key="a")
    wait_until(lambda: client._is_served, "the first daemon")
    first.listener.stop()
    for run, known, work in (("b", {}, {"tokens": 14}), ("a", {client.session: os.geteuid()}, {"steps": 1})):
        client.count("train", **work)
        server = EventServer(path, known=known, run_key=run)
        server.wait_for(WorkCounted(client.session, {"train": work}))
        server.listener.stop()


def test_counters_kept_for_one_run_are_not_those_of_another() -> None:
    counted = CountedWork()
    runs = WorkByRun(counted, 0)

    def send(now_ns: int, flop: int) -> Any:
        counted.add(note_of("train", {"operator_flop": flop}))
        runs.sent(work := runs.changed(now_ns), now_ns)
        return work

    runs.meet("a", 0, 1, is_known=False)
    send(2, 100)
    runs.meet("a", 10, 11, is_known=True)  # it was restarted
    assert send(12, 7) == {"train": {"operator_flop": 100}}
    runs.meet("b", 5, 20, is_known=False)
    assert send(21, 3) == {"train": {}}


class Whole:
    """A whole number of another type, like NumPy's."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


@pytest.mark.parametrize("of", [int, Whole])
def test_a_count_of_zero_and_the_largest_one_are_counted(
    client: Client, caplog: pytest.LogCaptureFixture, of: Any
) -> None:
    assert note_of("train", {"tokens": of(7)}) == ("train", {"tokens": 7})
    with caplog.at_level(logging.WARNING, "flopsd.client"):
        client.count("train", tokens=of(0), steps=of(10**30))
    assert caplog.text == ""


def test_a_fact_may_fill_a_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    fields = {f"{n:03}": "x" * 200 for n in range(400)}
    spare = len(line("declare", facts={"model_config": fields})) - MAX_LINE_BYTES
    short = {name: text[: 200 - min(200, max(0, spare - 200 * at))] for at, (name, text) in enumerate(fields.items())}
    assert len(line("declare", facts={"model_config": short})) == MAX_LINE_BYTES
    with caplog.at_level(logging.WARNING, "flopsd.client"):
        client.declare(model_config=short)
    assert "more than" not in caplog.text


class Raises:
    """An object of the training that cannot even be printed, as some configurations."""

    def __repr__(self) -> str:
        raise RuntimeError("it has no name yet")

    def __index__(self) -> int:
        raise RuntimeError("it is on another device")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.set_phase("training"), "'training' is not a phase"),
        (lambda c: c.set_phase(["train"]), "is not a phase"),
        (lambda c: c.set_phase(Raises()), "an object of type Raises is not a phase"),
        (lambda c: c.declare(model_name=Raises()), "declare: ignored: RuntimeError"),
        (lambda c: c.declare(model_config={"x": Raises()}), "Raises is not JSON"),
        (lambda c: c.count("train", tokens=Raises()), "count: ignored: RuntimeError"),
        (lambda c: c.counting("train", tokens=Raises())(), "count: ignored: RuntimeError"),
        (lambda c: c.declare(colour="red"), "colour: unknown; known: model_config"),
        (lambda c: c.declare(method="magic"), "method"),
        (lambda c: c.declare(model_config={str(n): n for n in range(401)}), "more than 400 entries"),
        (lambda c: c.declare(model_config={"x": object()}), "object is not JSON"),
        (lambda c: c.declare(model_config={"x": "\ud800"}), "surrogate"),
        (lambda c: c.declare(model_config={str(n) * 60: "x" * 200 for n in range(400)}), "more than 65536 bytes"),
        (lambda c: c.declare(parameters_total=10**50), "parameters_total: must be a whole number"),
        (lambda c: c.count("train", tokens=-1), "cannot decrease"),
        (lambda c: c.count("train", tokens=1.5), "float"),
        (lambda c: c.count("train", tokens=float("nan")), "float"),
        (lambda c: c.count("train", tokens=1, steps=True), "steps: a counter is a whole number, not bool"),
        (lambda c: c.count("train", tokens=10**30 + 1), "at most 1000"),
        (lambda c: c.count(["train"], tokens=1), "unhashable"),
        (lambda c: c.count("train", coffee=1), "'coffee' is not a counter; docs/training-process.md lists them"),
        (lambda c: c.count("train", stepz=1), "did you mean steps?"),
        (lambda c: c.count("train", tokens=0.5), "tokens: a counter is a whole number, not float"),
        (lambda c: c.count("undeclared", tokens=1), "phases are"),
        (lambda c: c.counting("train", tokens=-1)(), "cannot decrease"),
    ],
)  # fmt: skip
def test_an_invalid_call_is_logged_once_and_ignored(
    server: EventServer, client: Client, caplog: pytest.LogCaptureFixture, call: Any, words: str
) -> None:
    with caplog.at_level(logging.WARNING, "flopsd.client"):
        call(client)
        call(client)
    assert [words in record.getMessage() for record in caplog.records] == [True]
    client.close()
    assert {type(event) for event in server.all()} <= {SessionOpened, PhaseChanged, SessionClosed}


def test_many_different_invalid_calls_do_not_fill_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(40):
        client.set_phase(f"phase {number}")
    assert [record.getMessage()[:20] for record in caplog.records] == [
        f"set_phase: 'phase {n}'"[:20] for n in range(16)
    ]


def test_a_daemon_of_another_version_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with foreign(path), caplog.at_level(logging.WARNING, "flopsd.client"):
        other = connect(path)
        other.count("train", tokens=1)
        other.close()
    assert [record.getMessage() for record in caplog.records if "only 2" in record.getMessage()] == [
        "flopsd's daemon refused this process: protocol 1 is not supported, only 2; its declarations are not recorded, "
        "and the client tries again every 60 s"
    ]


class Waits(SystemClock):
    """Records the requested waits, does not wait, and closes after eight of them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.seconds.append(seconds)
        if len(self.seconds) == 8:
            event.set()
        return event.is_set()


def test_an_absent_daemon_is_sought_ever_less_often_and_a_refusing_one_seldom(path: Path) -> None:
    for peer, expected in ((nullcontext(), [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]), (foreign(path), [60.0] * 8)):
        with peer:
            clock = Waits()
            client = Client([path], clock)
            client._thread.join(PATIENCE_SECONDS)
            assert clock.seconds == expected
            client._close_connection()  # as in a forked child, without a connection
            client.close()


def test_a_daemon_that_was_met_and_is_gone_is_sought_again_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it was sought before: a restarted daemon lets its processes return for only a few seconds."""
    servers = list[EventServer]()

    class Meets(Waits):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            if len(self.seconds) == 2:
                servers.append(EventServer(path))
            elif len(self.seconds) == 3:  # in the session
                servers[0].listener.stop()
            return super().wait(event, seconds)

    monkeypatch.setattr("flopsd.client.client.WORK_SECONDS", SEND_SECONDS)
    monkeypatch.setattr("flopsd.client.connection.ANSWER_SECONDS", PATIENCE_SECONDS)  # a slow answer is no absence
    client = Client([path], clock := Meets())
    client._thread.join(PATIENCE_SECONDS)
    assert clock.seconds == [0.2, 0.4, 0.8, SEND_SECONDS, 0.2, 0.4, 0.8, 1.6]


def test_rejections_by_the_daemon_are_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with never_reads(path) as listening, caplog.at_level(logging.WARNING, "flopsd.client"):
        client = connect(path)
        daemon, _ = listening.accept()
        daemon.recv(1000)
        daemon.sendall(b'{"flopsd":1,"ok":true}\n{"error":"too many facts"}\n')
        wait_until(lambda: bool(caplog.records), "it is logged")
        daemon.close()
        client.close(0)
    assert caplog.messages == ["flopsd's daemon rejected a declaration: too many facts"]


def test_a_closed_client_is_freed_and_close_may_interrupt_close(
    path: Path, server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(path)
    others = [client.another_session(), client.another_session()]

    def signalled(close: Callable[[], None] = client.close, go_on: Callable[[], None] = client._closing.set) -> None:
        close()
        go_on()

    monkeypatch.setattr(client._closing, "set", signalled)
    client.close(PATIENCE_SECONDS)
    ended = [event.session for event in server.all() if isinstance(event, SessionClosed) and event.clean]
    assert sorted(ended) == sorted(one.session for one in (client, *others))
    monkeypatch.undo()
    freed = weakref.ref(client)
    del client, others, signalled
    gc.collect()
    assert freed() is None


def test_unsent_changes_are_bounded(path: Path) -> None:
    with never_reads(path):
        client = connect(path)
        for _ in range(1000):
            client.set_phase("train")
            client.set_phase("evaluate")
            client.count("train", tokens=1)
        assert len(client._transitions) == MAX_TRANSITIONS
        assert client._wake.qsize() <= 1
        assert len(client._work._noted) < MAX_NOTED
        client.close(0.01)


def test_without_a_phase_none_is_sent_and_an_initial_block_leaves_it_undeclared(
    server: EventServer, client: Client
) -> None:
    client.count("train", tokens=1)
    assert [type(server.next()) for _ in range(2)] == [SessionOpened, WorkCounted]
    with client.phase("evaluate"):
        server.wait_for(PhaseChanged(client.session, "evaluate"))
    server.wait_for(PhaseChanged(client.session, "undeclared"))


def test_after_quick_phase_changes_the_last_phase_is_active(server: EventServer, client: Client) -> None:
    client.set_phase("other")
    server.wait_for(PhaseChanged(client.session, "other"))
    for _ in range(500):
        client.set_phase("train")
        client.set_phase("evaluate")
    client.set_phase("other")
    client.close()
    phases = [event.phase for event in server.all() if isinstance(event, PhaseChanged)]
    assert phases[-1] == "other"


def test_concurrent_threads_lose_no_count(server: EventServer, client: Client) -> None:
    def work() -> None:
        for _ in range(2000):
            client.count("train", tokens=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert work_of(server.all()) == {"train": {"tokens": 16000}}


def test_a_signal_handler_may_call_while_its_thread_is_inside(server: EventServer, client: Client) -> None:
    rang = []

    def ring(*_: object) -> None:
        rang.append(1)
        client.set_phase("evaluate" if len(rang) % 2 else "train")
        client.count("evaluate", tokens=1)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        counted = 0
        while len(rang) < 300:
            client.count("train", tokens=1)
            client.set_phase("other")
            counted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    client.close()
    assert work_of(server.all()) == {"train": {"tokens": counted}, "evaluate": {"tokens": len(rang)}}


def test_a_count_that_interrupts_another_anywhere_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal comes between any two instructions, also while the counting thread sums up."""
    monkeypatch.setattr("flopsd.client.counted_work.MAX_NOTED", 1)
    codes = [function.__code__ for function in (CountedWork.add, CountedWork._sum_up)]
    position, done = 0, False
    sys._getframe().f_trace_opcodes = True  # before settrace, or Python 3.12 gives no such event
    assert CountedWork().changed(frozenset(), {}) == ({}, set())
    while not done:
        work, left, position, done = CountedWork(), position, position + 1, True

        def step(frame: FrameType, event: str, _: object, work: CountedWork = work) -> Any:
            nonlocal left, done
            if frame.f_code not in codes:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode" and left == 0:
                done = False
                sys.settrace(None)
                work.add(("train", {"tokens": 10}))
            left -= event == "opcode"
            return step

        before = sys.gettrace()
        sys.settrace(step)
        work.add(("train", {"tokens": 1}))
        sys.settrace(before)
        assert work.changed(frozenset(), {})[0] == {"train": {"tokens": 1 if done else 11}}, position
    assert position > 80


TRAINING = """
import os, sys, threading, time
import flopsd.client
client = flopsd.client.connect()
client.set_phase("train")
client.count("train", tokens=1000, steps=1)
if "fork" in sys.argv:
    again = client.counting("train", tokens=5)
    while client._connection is None:  # else there is none that the child could keep open
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        client.set_phase("evaluate")
        holder = threading.Thread(target=client._work._lock.acquire)  # as a thread of the parent may have, for ever
        holder.start()
        holder.join()
        for _ in range(300):
            client.count("train", tokens=5)
            again()
        other = client.another_session()
        other.count("train", tokens=5)
        other.close(5)
        client.declare(method="full")
        client.close()
        assert (client.current_phase, client._facts) == ("train", {})
        assert ("train", {"tokens": 5}) not in client._work._noted
        assert client._connection._socket.fileno() == -1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
if "raise" in sys.argv:
    raise RuntimeError("the training's own")
sys.exit(7)
"""


def trained(path: Path, *how: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRAINING, *how], env={**os.environ, "FLOPSD_SOCKET": str(path), **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["end", "fork", "raise"])
def test_unsent_changes_are_sent_at_exit(server: EventServer, path: Path, how: str) -> None:
    done = trained(path, how)
    assert done.returncode == (1 if how == "raise" else 7), done.stderr
    events = server.all()
    assert work_of(events) == {"train": {"tokens": 1000, "steps": 1}}
    assert isinstance(events[-1], SessionClosed)
    assert events[-1].clean
    assert len({event.session for event in events}) == 1
    assert not [event for event in events if isinstance(event, FactsDeclared)]


def test_closing_several_sessions_takes_no_longer_than_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waited = SkippingClock(), list[float]()

    def join(_: threading.Thread, seconds: float) -> None:
        waited.append(seconds)
        clock.skipped_ns += round(seconds * 10**9)

    with never_reads(path):
        client = Client((path,), clock)
        others = [client.another_session(), client.another_session().another_session()]
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "join", join)
            client.close()
        assert len(waited) == 4
        assert sum(waited) <= 1
        assert all(one._closing.is_set() for one in (client, *others))


@pytest.mark.long
def test_no_peer_at_the_socket_affects_the_training(path: Path, tmp_path: Path) -> None:
    for place in (path, tmp_path / ("x" * 200), tmp_path, Path("/dev/null")):
        done = trained(place)
        assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    with never_reads(path):
        done = trained(path)
        assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def test_a_thread_that_cannot_start_does_not_affect_the_training(
    server: EventServer, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        client = connect(path)
    with client.phase("train"):
        client.count("train", tokens=1)
        assert client.current_phase == "train"
    client._close_connection()  # as in a forked child, without a connection
    client.close()
    assert [record.message for record in caplog.records] == [
        "nothing is declared to flopsd: can't start new thread; the training goes on"
    ]
    assert server.all() == []


def test_the_client_imports_nothing_of_the_daemon() -> None:
    loaded = modules_after("import flopsd.client")
    assert not {"yaml", "psutil", "prometheus_client", "torch"} & loaded
    rooms = {name.split(".")[1] for name in loaded if name.startswith("flopsd.")}
    assert rooms <= {"client", "core", "errors", "settings", "system"}
    assert not {name for name in loaded if name.startswith(("flopsd.core.ledger", "flopsd.core.policy"))}
