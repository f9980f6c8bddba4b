"""The listener: messages of processes arrive as events, and no process can stop the daemon or fill its memory."""

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from flopsd.core.session_protocol import (
    MAX_LINE_BYTES,
    Event,
    NotServed,
    PhaseChanged,
    SessionClosed,
    SessionOpened,
    WorkCounted,
)
from flopsd.daemon.background import REBIND_SECONDS, SessionServerTask
from flopsd.daemon.sessions.peer import BYTES_A_SECOND, HELLO_SECONDS, MESSAGES_A_SECOND, Allowance
from flopsd.daemon.sessions.server import (
    BEHIND_NS,
    CONNECTS_A_SECOND,
    KEPT_OUT_NS,
    MAX_SESSIONS,
    SILENT_NS,
    SessionServer,
)
from flopsd.daemon.sessions.socket_file import listen_on
from flopsd.errors import ConfigError, ListenError
from flopsd.settings.client_socket import LONGEST_PATH_BYTES, client_socket_candidates, socket_path
from flopsd.system.clock import NS_PER_S, SystemClock
from flopsd.system.socket_thread import SocketThread
from flopsd.testing import FakeClock
from tests.support.process import wait_until
from tests.support.session_servers import PATIENCE_SECONDS, EventServer, work_of
from tests.support.sockets import no_descriptor_left

ID = "0123456789abcdef" * 2
NOBODY = 65534


class Peer:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")

    def say(self, kind: str, **fields: Any) -> None:
        self.socket.sendall(json.dumps({"flopsd": 1, "kind": kind, **fields}).encode() + b"\n")

    def hello(self, session: str = ID) -> dict[str, Any]:
        self.say("hello", session=session, client="0.1.0", pid=os.getpid())
        return self.answer()

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.readline())
        return found

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EventServer]:
    server = EventServer(tmp_path / "client.sock")
    yield server
    server.listener.stop()


HELLO = b'{"flopsd":1,"kind":"hello","session":"' + ID.encode() + b'","client":"0.1.0","pid":1}'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"GET / HTTP/1.1", "not JSON"),
        (b"[]", "expected an object"),
        (b'{"kind":"bye"}', "expected an object"),
        (b'{"flopsd":2,"kind":"hello"}', "protocol 2 is not supported, only 1"),
        (b'{"flopsd":true,"kind":"bye"}', "protocol True"),
        (b'{"flopsd":1,"kind":"stop"}', "no kind 'stop'"),
        (b'{"flopsd":1,"kind":["bye"]}', "no kind"),
        (b'{"flopsd":1,"kind":"phase","phase":"train"}', "before hello"),
        (HELLO.replace(b"0123", b"XYZ!"), "32 hexadecimal digits"),
        (HELLO.replace(b'"0.1.0"', b'"\\u001b[31m"'), "hello.client: must be a version such as 0.1.0"),
        (HELLO.replace(b'"pid":1', b'"pid":1,"root":1'), "has the fields client, pid, session"),
        (HELLO.replace(b'"pid":1', b'"pid":1,"pid":2'), "contains the key 'pid' twice"),
        (HELLO.replace(b'"pid":1', b'"pid":NaN'), "not a whole number"),
        (b"\xff\xfe", "UTF-8"),
        (b"[" * 5000, "the line is "),
        (b'{"a":' * 5000, "the line is "),
        (b"x" * MAX_LINE_BYTES, "not JSON"),
        (b"x" * (MAX_LINE_BYTES + 1), f"a line of more than {MAX_LINE_BYTES} bytes"),
    ],
)  # fmt: skip
def test_an_invalid_hello_is_answered_and_closed(server: EventServer, line: bytes, why: str) -> None:
    peer = Peer(server.listener.path)
    with suppress(BrokenPipeError):
        peer.socket.sendall(line + b"\n")
    assert why in peer.answer()["error"]
    with suppress(ConnectionResetError):
        assert peer.file.readline() == b""
    peer.close()
    assert server.events.empty()


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        ("declare", {"facts": {"colour": "red"}}, "colour: unknown; known: model_config"),
        ("declare", {"facts": []}, "must be a mapping"),
        ("phase", {"phase": "training"}, "training"),
        ("phase", {"phase": ["train"]}, "phase"),
        ("work", {"work": {"train": {"tokens": -1}}}, "is not a count"),
        ("work", {"work": {"undeclared": {"tokens": 1}}}, "undeclared"),
    ],
)
def test_a_refused_message_is_answered_and_later_ones_are_read(
    server: EventServer, kind: str, fields: Any, why: str
) -> None:
    peer = Peer(server.listener.path)
    peer.hello()
    peer.say(kind, **fields)
    assert why in peer.answer()["error"]
    peer.say("phase", phase="train")
    assert isinstance(server.next(), SessionOpened)
    assert server.next() == PhaseChanged(ID, "train")
    peer.close()


def test_a_process_that_dies_closes_its_session_uncleanly(server: EventServer) -> None:
    peer = Peer(server.listener.path)
    peer.hello()
    peer.close()
    assert isinstance(server.next(), SessionOpened)
    assert server.next() == SessionClosed(ID, clean=False)


def test_a_process_that_reconnects_continues_its_session(server: EventServer) -> None:
    first, second = Peer(server.listener.path), Peer(server.listener.path)
    first.hello()
    assert second.hello().items() >= {"flopsd": 1, "ok": True, "known": True}.items()
    assert first.file.readline() == b""
    second.say("phase", phase="train")
    opened = SessionOpened(ID, os.getpid(), os.getuid(), "0.1.0")
    assert [server.next() for _ in range(3)] == [opened, opened, PhaseChanged(ID, "train")]
    first.close()
    second.close()


STRANGER = """
import json, os, socket, sys
os.setuid(int(sys.argv[3]))
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
try:
    peer.sendall(sys.argv[2].encode() + b"\\n")
except BrokenPipeError:
    pass
print(peer.makefile().readline())
"""


def stranger(path: Path, uid: int) -> dict[str, Any]:
    """The answer to another process of user `uid` that sends hello with this session's id."""
    command = [sys.executable, "-c", STRANGER, str(path), HELLO.decode(), str(uid)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_session_cannot_be_taken_over_by_another_process_or_user(tmp_path: Path, server: EventServer) -> None:
    """Every reader of a ledger has its session ids: facts and counters of one user were taken for those of another."""
    later = EventServer(tmp_path / "later.sock", known={ID: os.geteuid() + 1})
    late = Peer(later.listener.path)
    assert "another user" in late.hello()["error"]
    assert late.file.read() == b""
    assert later.all() == []
    late.close()
    peer = Peer(server.listener.path)
    peer.hello()
    assert "another process" in stranger(server.listener.path, os.geteuid())["error"]
    peer.say("phase", phase="train")
    assert isinstance(server.next(), SessionOpened)
    assert server.next() == PhaseChanged(ID, "train")
    peer.close()


def test_taking_over_the_session_of_a_paused_connection_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each time the thread failed and stopped for a second, and the web server with it."""
    clock = FakeClock()
    server = EventServer(tmp_path / "client.sock", clock=clock, most=1)
    first, second = Peer(server.listener.path), Peer(server.listener.path)
    assert "ok" in first.hello()
    second.say("hello", session=ID, client="0.1.0", pid=os.getpid())
    wait_until(lambda: len(server.listener._paused) == 1, "it waits until events are taken")
    first.say("phase", phase="train")
    wait_until(lambda: len(server.listener._paused) == 2, "so does the other")
    assert isinstance(server.next(), SessionOpened)
    clock.advance(BEHIND_NS)
    assert "ok" in second.answer()
    assert first.file.read() == b""
    for peer in (first, second):
        peer.close()
    server.all()
    assert not caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(("uids", "served"), [((NOBODY,), True), ((12345,), False)])
def test_the_peer_is_identified_by_the_kernel(uids: tuple[int, ...], served: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = EventServer(Path(folder) / "client.sock", uids)
        answer = stranger(server.listener.path, NOBODY)
        assert answer.get("ok", False) is served
        assert served or f"user {NOBODY} may not connect to this daemon" in answer["error"]
        server.listener.stop()


def test_only_this_user_can_connect_unless_others_are_listed(tmp_path: Path, server: EventServer) -> None:
    assert stat.S_IMODE(server.listener.path.stat().st_mode) == 0o600
    other = EventServer(tmp_path / "other.sock", (1000,))
    assert stat.S_IMODE(other.listener.path.stat().st_mode) == 0o666
    other.listener.stop()


def test_an_excess_session_is_refused_until_another_ends_and_is_missed(tmp_path: Path) -> None:
    clock = FakeClock()
    server = EventServer(tmp_path / "client.sock", clock=clock)
    peers = [Peer(server.listener.path) for _ in range(MAX_SESSIONS)]
    for number, peer in enumerate(peers):
        assert "ok" in peer.hello(f"{number:032x}")

    def is_refused(after_ns: int) -> bool:
        clock.advance(after_ns)
        peers[1].say("phase", phase="train")  # the listener's thread looks at the clock again
        peers.append(Peer(server.listener.path))
        return "connected already" in peers[-1].answer()["error"]

    keeps_out = server.listener.keeps_out
    assert is_refused(NS_PER_S)
    assert (keeps_out(), keeps_out(0)) == (False, True)
    peers[0].say("bye")
    assert "ok" in peers[0].answer()
    peers.append(Peer(server.listener.path))
    assert "ok" in peers[-1].hello()
    assert not keeps_out(0)
    assert is_refused(KEPT_OUT_NS)
    clock.advance(KEPT_OUT_NS - 1)
    assert not keeps_out()
    clock.advance(1)
    assert keeps_out(), "the process may have ended without another try"
    peers[1].say("bye")  # its place is taken by a silent one, which gives way to one that speaks
    assert "ok" in peers[1].answer()
    silent = Peer(server.listener.path)
    peers += [silent, Peer(server.listener.path)]
    assert "connected already" in peers[-1].answer()["error"], "it has a moment for its hello"
    clock.advance(SILENT_NS)
    peers.append(Peer(server.listener.path))
    assert "ok" in peers[-1].hello("e" * 32)
    assert silent.file.read() == b""
    for peer in peers:
        peer.close()
    server.all()


def test_a_removed_socket_is_reopened_and_a_replaced_one_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Processes that started later declared nothing, without any warning."""
    clock, events, path = FakeClock(), list[Event](), tmp_path / "at" / "client.sock"
    task, thread = (
        SessionServerTask(path, (), events.append, clock, {"f" * 32: os.geteuid()}, lambda: False, run_key="r"),
        SocketThread(clock),
    )

    def look() -> None:
        clock.advance(REBIND_SECONDS * NS_PER_S)
        task.each_tick(thread)

    task.each_tick(thread)
    peers = [Peer(path)]
    at_ns = clock.boottime_ns()
    assert peers[0].hello() == {
        "flopsd": 1, "ok": True, "known": False, "run": "r", "at_ns": at_ns, "metered_ns": 0,
    }  # fmt: skip
    path.unlink()
    look()
    assert peers[0].file.readline() == b""
    peers += [Peer(path), Peer(path)]
    assert [peers[1].hello()["known"], peers[2].hello("f" * 32)["known"]] == [True, True]
    path.unlink()
    path.touch()
    look()
    look()
    assert caplog.text.count("was replaced or removed") == 1
    assert NotServed() in events
    peers[1].say("bye")
    assert "ok" in peers[1].answer()
    path.unlink()
    path.parent.rmdir()
    look()
    assert not path.parent.exists(), "no folder is made where the state folder was"
    task.stop()
    for peer in peers:
        peer.close()


def test_processes_that_could_not_connect_are_an_event_and_known_at_the_end(tmp_path: Path) -> None:
    clock, events, path = FakeClock(), list[Event](), tmp_path / "at" / "client.sock"
    path.parent.touch()
    task = SessionServerTask(path, (), events.append, clock, {}, lambda: False)
    thread = SocketThread(clock)

    def look(after_ns: int) -> bool:
        clock.advance(after_ns)
        task.each_tick(thread)
        return events[-1:] == [NotServed()]

    between_ns = REBIND_SECONDS * NS_PER_S
    assert [look(0), look(KEPT_OUT_NS - between_ns), look(between_ns)] == [False, False, True]
    path.parent.unlink()
    look(REBIND_SECONDS * NS_PER_S)
    peers = [Peer(path) for _ in range(MAX_SESSIONS)]
    for number, peer in enumerate(peers):
        assert "ok" in peer.hello(f"{number:032x}")
    clock.advance(NS_PER_S)
    peers[0].say("phase", phase="train")
    peers.append(Peer(path))
    assert "connected already" in peers[-1].answer()["error"]
    events.clear()
    assert [look(KEPT_OUT_NS - 1), look(REBIND_SECONDS * NS_PER_S)] == [False, True]
    assert not task.stop()
    for peer in peers:
        peer.close()


def test_an_allowance_is_spent_to_the_last_unit_and_renewed_a_second_later() -> None:
    allowance = Allowance(3, 0)
    found = [allowance.spend(units, at_ns) for units, at_ns in ((2, 0), (1, NS_PER_S - 1), (2, NS_PER_S))]
    assert found == [True, False, True]
    assert allowance.renewed_ns == 2 * NS_PER_S


@pytest.mark.long
def test_a_peer_that_sends_too_much_is_throttled_and_delays_no_other(server: EventServer) -> None:
    loud, quiet = Peer(server.listener.path), Peer(server.listener.path)
    loud.hello()
    loud.socket.setblocking(False)
    sent, line = 0, b'{"flopsd":1,"kind":"phase","phase":"train"}\n' * 100
    with suppress(BlockingIOError):
        while sent < 100 * BYTES_A_SECOND:
            sent += loud.socket.send(line)
    assert sent < 100 * BYTES_A_SECOND  # the peer is throttled, and nothing piles up here
    assert "ok" in quiet.hello("f" * 32)
    quiet.say("phase", phase="evaluate")
    wait_until(lambda: server.next() == PhaseChanged("f" * 32, "evaluate"), "the quiet one is served")
    loud.close()
    quiet.close()


def test_a_burst_is_fully_read_a_second_later_though_nothing_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    server = EventServer(tmp_path / "client.sock", clock=clock)
    peer, more = Peer(server.listener.path), []
    peer.hello()
    phases = ("train", "evaluate") * MESSAGES_A_SECOND
    peer.socket.sendall(b"".join(b'{"flopsd":1,"kind":"phase","phase":"%b"}\n' % each.encode() for each in phases))
    assert isinstance(server.next(), SessionOpened)
    found = [server.next() for _ in range(MESSAGES_A_SECOND - 1)]
    for number in range(CONNECTS_A_SECOND - 1):
        more.append(Peer(server.listener.path))
        more[-1].say("hello", session=f"{number:032x}", client="0.1.0", pid=os.getpid())
    assert {type(server.next()) for _ in more} == {SessionOpened}
    late = Peer(server.listener.path)
    clock.advance(NS_PER_S)
    more[0].say("phase", phase="train")  # the listener's thread looks at the clock again
    found += [event for _ in range(MESSAGES_A_SECOND + 1) if (event := server.next()).session == ID]
    assert [event.phase for event in found if isinstance(event, PhaseChanged)] == list(phases[: len(found)])
    assert len(found) == 2 * MESSAGES_A_SECOND - 1
    assert "connected already" in late.answer()["error"], "it is accepted a second later, too"
    assert caplog.messages == []
    for one in (peer, *more, late):
        one.close()
    server.listener.stop()


def test_reading_pauses_while_too_many_events_wait_and_then_reads_all(tmp_path: Path) -> None:
    server = EventServer(tmp_path / "client.sock", most=3)
    peer, phases = Peer(server.listener.path), ("train", "evaluate") * 10
    peer.hello()
    peer.socket.sendall(b"".join(b'{"flopsd":1,"kind":"phase","phase":"%b"}\n' % each.encode() for each in phases))
    found, most = list[Event](), 0
    while len(found) < 1 + len(phases):
        found.append(server.next())
        most = max(most, server.events.qsize())
    assert [event.phase for event in found if isinstance(event, PhaseChanged)] == list(phases)
    assert most <= 3
    peer.close()
    server.listener.stop()


def test_a_peer_without_hello_is_closed(tmp_path: Path) -> None:
    clock = FakeClock()
    server = EventServer(tmp_path / "client.sock", clock=clock)
    silent, other = Peer(server.listener.path), Peer(server.listener.path)
    other.hello()
    clock.advance(HELLO_SECONDS * NS_PER_S)
    other.say("phase", phase="train")  # the listener's thread looks at the clock again
    assert silent.answer()["error"] == f"no hello within {HELLO_SECONDS} s"
    for peer in (silent, other):
        peer.close()
    server.listener.stop()


def test_the_socket_of_a_dead_daemon_is_replaced_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "client.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = EventServer(path)
    with pytest.raises(ListenError, match="another daemon listens"):
        EventServer(path)
    peer = Peer(path)
    assert "ok" in peer.hello()
    peer.close()
    server.listener.stop()
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(ListenError, match="is not a socket"):
        EventServer(path)
    assert path.read_text() == "mine"


def test_a_file_system_without_sockets_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "client.sock"
    refused = patch.object(socket.socket, "bind", side_effect=PermissionError(errno.EPERM, "Operation not permitted"))
    with refused, pytest.raises(ListenError, match="cannot listen on .*: Operation not permitted") as caught:
        listen_on(path, mode=0o600, backlog=1)
    assert "--client-socket" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder another's")
def test_a_socket_in_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    with pytest.raises(ListenError, match="belongs to another user"):
        EventServer(tmp_path / "theirs" / "client.sock")
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    for folder in ("theirs", ""):  # its own, or root's
        listen_on(tmp_path / folder / "client.sock", mode=0o600, backlog=1).close()


@pytest.mark.parametrize(("mode", "of_folder"), [(0o600, 0o700), (0o666, 0o711)])
def test_users_of_the_socket_may_enter_the_folder_made_for_it(tmp_path: Path, mode: int, of_folder: int) -> None:
    path = tmp_path / "made" / "client.sock"
    listen_on(path, mode=mode, backlog=1).close()
    assert [one.stat().st_mode & 0o777 for one in (path, path.parent)] == [mode, of_folder]
    listen_on(tmp_path / "client.sock", mode=0o666, backlog=1).close()
    assert tmp_path.stat().st_mode & 0o777 == 0o700, "one that was there stays as it is"


def test_stopping_reads_messages_sent_before_and_leaves_a_foreign_socket(tmp_path: Path) -> None:
    server = EventServer(tmp_path / "client.sock")
    peer = Peer(server.listener.path)
    peer.hello()
    peer.say("work", work={"train": {"tokens": 1}})
    server.listener.path.unlink()
    successor = EventServer(server.listener.path)
    server.listener.stop()
    assert [type(server.next()) for _ in range(3)] == [SessionOpened, WorkCounted, SessionClosed]
    assert successor.listener.path.exists()
    successor.listener.stop()
    peer.close()


def test_stopping_reads_all_that_was_sent_and_then_nothing_can_be_sent(tmp_path: Path) -> None:
    """What one process sent beyond the limit, or after the last read, was lost although its `send` succeeded."""
    server = EventServer(tmp_path / "client.sock")
    peer = Peer(server.listener.path)
    peer.hello()
    for tokens in range(2 * MESSAGES_A_SECOND):
        peer.say("work", work={"train": {"tokens": tokens}})
    assert work_of(server.all()) == {"train": {"tokens": 2 * MESSAGES_A_SECOND - 1}}
    with pytest.raises(BrokenPipeError):
        peer.say("work", work={"train": {"tokens": 1}})
    peer.close()


def test_stopping_waits_for_events_being_posted(tmp_path: Path) -> None:
    begun, posted = threading.Event(), list[type[Event]]()

    def post(event: Event) -> None:
        begun.set()
        wait_until(listener._stopping.is_set, "it is to stop")
        posted.append(type(event))

    listener = SessionServer(tmp_path / "client.sock", (), post, SystemClock())
    listener.start()
    peer = Peer(listener.path)
    peer.say("hello", session=ID, client="0.1.0", pid=os.getpid())
    assert begun.wait(PATIENCE_SECONDS)
    listener.stop()
    assert posted[:1] == [SessionOpened]
    peer.close()


def test_a_socket_path_that_is_too_long_is_replaced_alike_on_both_sides(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    path = socket_path(None, deep)
    assert path is not None
    assert len(os.fsencode(path)) <= LONGEST_PATH_BYTES
    assert client_socket_candidates({"FLOPSD_STATE_DIR": str(deep)})[0] == path
    assert path != socket_path(None, deep / "x")
    server = EventServer(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o022 == 0
    server.listener.stop()
    with pytest.raises(ConfigError, match="is longer than the 107 bytes"):
        socket_path(str(deep / "client.sock"), tmp_path)


@pytest.mark.usefixtures("server")
def test_a_server_without_descriptors_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_UNIX) as process, no_descriptor_left():
        process.connect(str(tmp_path / "client.sock"))
        wait_until(lambda: "no training process can connect: Too many open files" in caplog.text, "a line in the log")
