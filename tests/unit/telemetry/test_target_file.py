"""The file by which Prometheus finds a run: address and labels, from the start of serving to the end of the run."""

import json
import logging
import socket
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
def test_the_address_is_one_that_prometheus_can_ask(
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


def test_a_folder_that_comes_later_is_one_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_first_scrape_has_a_next_where_prometheus_was_told_of_the_run() -> None:
    """The end of a run that was scraped once is shown too: else it would look like one that was killed."""
    clock = FakeClock()
    scrapes, begin_ns = Scrapes(clock), clock.boottime_ns()
    scrapes.wait_for_one_since(begin_ns, 30, is_discovered=True)
    scrapes.note()
    scrapes.wait_for_one_since(begin_ns, 30)
    assert clock.boottime_ns() == begin_ns, "there was none, or it may have been a person's"
    scrapes.wait_for_one_since(begin_ns, 30, is_discovered=True)
    assert clock.boottime_ns() == begin_ns + 30 * NS_PER_S
