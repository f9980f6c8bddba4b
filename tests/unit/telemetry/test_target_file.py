"""The file by which Prometheus finds a run: address and labels, from the start of serving to the end of the run."""

import json
import logging
import socket
import threading
from pathlib import Path

import pytest

from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.http.scrapes import Scrapes
from flopsd.telemetry.target_file import TargetFile
from flopsd.testing.fakes import FakeClock
from tests.support.process import wait_until

LABELS = {"instance": "n1/slurm-7", "run_id": "slurm-7", "node": "n1", "slurm_user": "ada"}


@pytest.mark.parametrize(
    ("url", "address", "more"),
    [("http://127.0.0.1:10188", "127.0.0.1:10188", {}), ("https://10.0.0.3:9", "10.0.0.3:9", {"__scheme__": "https"}),
     ("http://[fd00::1]:9", "[fd00::1]:9", {}), ("http://0.0.0.0:9", f"{socket.gethostname()}:9", {}),
     ("http://[::]:9", f"{socket.gethostname()}:9", {})],
)  # fmt: skip
def test_the_address_is_one_that_prometheus_can_reach(
    url: str, address: str, more: dict[str, str], tmp_path: Path
) -> None:
    target = TargetFile(tmp_path, "slurm-7", "n1", {"slurm_user": "ada"}, FakeClock())
    target.start(url)
    wait_until(target.path.exists, "it is written")
    assert [one.name for one in tmp_path.iterdir()] == ["slurm-7.n1.json"]
    assert json.loads(target.path.read_bytes()) == [{"targets": [address], "labels": {**LABELS, **more}}]
    assert target.path.stat().st_mode & 0o777 == 0o644, "Prometheus is another user"
    target.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_appears_later_causes_one_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, clock = tmp_path / "mount", FakeClock()
    begin_ns = clock.boottime_ns()
    target = TargetFile(folder, "../../r/1", "n/1", {}, clock)
    with caplog.at_level(logging.ERROR, "flopsd"):
        target.start("http://127.0.0.1:1")
        wait_until(lambda: clock.boottime_ns() > begin_ns + 30 * NS_PER_S, "it has tried four times")
        folder.mkdir()
        wait_until(target.path.exists, "it is written")
    assert target.path == folder / "..-..-r-1.n-1.json"
    (message,) = caplog.messages
    assert message.startswith(f"cannot write {target.path}: No such file or directory")
    target.remove()


def test_the_file_of_a_killed_daemon_is_removed_when_its_address_is_reused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise Prometheus would attribute the figures of the next run to the dead one, and show it as alive."""
    dead, other = (
        TargetFile(tmp_path, "run-1", "n1", {}, FakeClock()),
        TargetFile(tmp_path, "run-2", "n1", {}, FakeClock()),
    )
    elsewhere, far = TargetFile(tmp_path, "run-1", "n2", {}, FakeClock()), tmp_path / "far.json"
    for one, port in ((dead, 1), (other, 2), (elsewhere, 1)):
        one.start(f"http://127.0.0.1:{port}")
        wait_until(one.path.exists, "it is written")
    far.write_text('[{"targets": ["127.0.0.1:1", "127.0.0.1:2"], "labels": {"node": "n1"}}]')
    (tmp_path / "foreign.json").write_text("[")
    (tmp_path / "deep.json").write_text("[" * 60_000)
    (tmp_path / "folder.json").mkdir()
    before = {*tmp_path.iterdir()}
    following = TargetFile(tmp_path, "run-3", "n1", {}, FakeClock())
    with caplog.at_level(logging.WARNING, "flopsd"):
        following.start("http://127.0.0.1:1")
        wait_until(lambda: bool(caplog.messages), "it is removed")
    assert {*tmp_path.iterdir()} == {*before, following.path} - {dead.path}
    assert caplog.messages == [f"removed {dead.path}: its daemon is gone, since this daemon now has its address"]
    following.remove()
    assert not following.path.exists(), "no file of others ends its thread"


def test_a_first_scrape_has_a_next_where_prometheus_has_the_run_as_a_target() -> None:
    """The end of a run that was scraped only once is scraped too; otherwise it would look killed."""
    clock = FakeClock()
    scrapes, begin_ns = Scrapes(clock), clock.boottime_ns()
    scrapes.wait_for_one_since(begin_ns, 30, is_discovered=True)
    scrapes.note()
    scrapes.wait_for_one_since(begin_ns, 30)
    assert clock.boottime_ns() == begin_ns, "there was none, or it may have been a person's"
    scrapes.wait_for_one_since(begin_ns, 30, is_discovered=True)
    assert clock.boottime_ns() == begin_ns + 30 * NS_PER_S


class Waits(FakeClock):
    """A scrape comes `after` seconds of a wait; None: none comes."""

    after: float | None = None
    scrapes: Scrapes

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if self.after is None or self.after > seconds:
            return super().wait(event, seconds)
        self.advance(round(self.after * NS_PER_S))
        self.scrapes.note()
        return event.is_set()


@pytest.mark.parametrize(
    ("scraped", "since", "now", "at_most", "after", "came", "waited"),
    [
        ((0, 10), 2, 12, 30, None, True, 0),  # one since then, and more than a quarter of their interval later
        ((0, 10), 7, 12, 30, None, True, 0),
        ((0, 10), 7.5, 12, 30, None, False, 23),
        ((0, 10), 8, 12, 30, 8, True, 8),
        ((0, 10), 12, 12, 30, 9, True, 9),
        ((0, 10), 12, 12, 22, None, False, 22),
        ((0, 10), 12, 12, 8, None, False, 8),  # it is due just in time
        ((0, 10), 12, 12, 7.9, 5, False, 0),
        ((0, 10), 33, 33, 30, None, False, 23),  # it is late, by at most an interval and three seconds
        ((0, 10), 33.1, 33.1, 30, 1, False, 0),
        ((0, 100), 112, 112, 300, None, False, 203),
    ],
)
def test_the_next_scrape_is_waited_for_if_it_is_due_in_time(
    scraped: tuple[int, int], since: float, now: float, at_most: float, after: float | None, came: bool, waited: float
) -> None:
    clock = Waits(0)
    scrapes = clock.scrapes = Scrapes(clock)
    for second in scraped:
        clock.advance(second * NS_PER_S - clock.boottime_ns())
        scrapes.note()
    clock.advance(round(now * NS_PER_S) - clock.boottime_ns())
    clock.after, before = after, clock.boottime_ns()
    assert scrapes.wait_for_one_since(round(since * NS_PER_S), at_most) is came
    assert (clock.boottime_ns() - before) / NS_PER_S == waited
