"""Messages to the service manager, and their times; and a manager that does not read."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flopsd.system.clock import NS_PER_S
from flopsd.system.sd_notify import Notifier
from flopsd.testing import FakeClock
from tests.support.sockets import fill_socket


class Manager:
    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def received(self) -> list[str]:
        texts = []
        while True:
            try:
                texts.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return texts

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    yield one
    one.close()


def run(notifier: Notifier, clock: FakeClock, manager: Manager, seconds: range, read_at: int) -> list[tuple[int, str]]:
    """The messages received in each second, with one tick per second."""
    asked: list[int] = []

    def has_read() -> bool:
        asked.append(second)
        return second >= read_at

    received = []
    for second in seconds:
        notifier.each_tick(has_read, lambda: f"\udcffat {second}")  # noqa: B023
        received += [(second, text) for text in manager.received()]
        clock.advance(NS_PER_S)
    assert asked == list(range(min(read_at, 10) + 1)), "until it is ready"
    return received


@pytest.mark.parametrize("read_at", [0, 4, 10, 99])
def test_ready_status_and_watchdog_are_sent_on_time_until_the_stop(
    manager: Manager, tmp_path: Path, read_at: int
) -> None:
    clock, more = FakeClock(), {"WATCHDOG_USEC": "9000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), **more}, clock)
    assert notifier.ping_seconds == 3
    ready = min(read_at, 10)
    received = run(notifier, clock, manager, range(75), read_at)
    assert received[0] == (ready, "READY=1")
    assert [one for one in received if "STATUS" in one[1]] == [(at, f"STATUS=?at {at}") for at in range(ready, 75, 30)]
    assert [at for at, text in received if text == "WATCHDOG=1"] == list(range(ready, 75, 3))
    assert len(received) == 1 + len(range(ready, 75, 30)) + len(range(ready, 75, 3))
    notifier.stopping()
    stop = "STOPPING=1\nSTATUS=final reading, then the seal\nWATCHDOG_USEC=3600000000\nWATCHDOG=1"
    assert manager.received() == [stop]
    notifier.stopping()
    notifier.each_tick(lambda: True, lambda: "x")
    assert manager.received() == []


@pytest.mark.parametrize(
    ("timeout_us", "pid", "expected"),
    [("3", "", 1e-6), ("6000000", None, 2), ("6000000", "1", None), ("0", "", None), ("", "", None),
     ("-3", "", None), ("3.0", "", None), ("३", "", None)],
)  # fmt: skip
def test_a_watchdog_for_another_process_or_without_a_number_is_ignored(
    manager: Manager, tmp_path: Path, timeout_us: str, pid: str | None, expected: float | None
) -> None:
    pid, clock = str(os.getpid()) if pid is None else pid, FakeClock()
    variables = {"WATCHDOG_USEC": timeout_us, "WATCHDOG_PID": pid}
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), **variables}, clock)
    assert notifier.ping_seconds == expected
    assert Notifier(variables, clock).ping_seconds is None, "nobody is there to be sent it"
    notifier.each_tick(lambda: True, lambda: "x")
    notifier.stopping()
    assert ("WATCHDOG" in "".join(manager.received())) == (expected is not None)
    assert Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, clock).ping_seconds is None


def test_an_abstract_socket_name_is_supported() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind("")  # the kernel assigns a name
        name = one.getsockname()
        Notifier({"NOTIFY_SOCKET": "@" + name[1:].decode()}, FakeClock()).stopping()
        assert one.recv(4096, socket.MSG_DONTWAIT) == b"STOPPING=1\nSTATUS=final reading, then the seal"


@pytest.mark.parametrize(
    ("address", "complaints"), [("", 0), ("vsock:2:1", 0), ("/none/notify", 1), ("/" + 200 * "x", 1), ("FULL", 1)]
)
def test_an_unreachable_manager_is_logged_once_and_raises_nothing(
    tmp_path: Path, manager: Manager, caplog: pytest.LogCaptureFixture, address: str, complaints: int
) -> None:
    clock = FakeClock()
    if address == "FULL":
        address = str(tmp_path / "notify")
        fill_socket(address)
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}, clock)
    for _ in range(3):
        notifier.each_tick(lambda: True, lambda: "x")
        clock.advance(NS_PER_S)
    assert caplog.text.count("cannot notify the service manager at $NOTIFY_SOCKET") == complaints
    if manager.received():  # it accepts messages again
        notifier.each_tick(lambda: True, lambda: "x")
        assert manager.received() == ["READY=1", "STATUS=x", "WATCHDOG=1"]
    notifier.stopping()
    assert len(caplog.records) == complaints
