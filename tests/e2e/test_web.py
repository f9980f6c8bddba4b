"""The HTTP front of a real daemon as its clients meet it: curl, promtool, and the driver that must not notice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from tests.support.certificates import Authority
from tests.support.process import environment, flopsd, started, wait_until
from tests.support.scenario import Scenario, Segment, a100, h100

PASSWORD = "correct horse"
BUSY = (Segment(1000, hmma=0.5, fp32=0.1, util=100, watts=500),)


class Daemon:
    """One that meters two simulated GPUs behind TLS and a password, and reads them once a minute."""

    def __init__(self, url: str, authority: Authority, calls: Path) -> None:
        self.url, self.authority, self.calls = url, authority, calls
        self._seen: list[int] = []

    def curl(self, path: str, password: str = PASSWORD) -> bytes:
        who = ("--cacert", str(self.authority.ca), "-u", f"prometheus:{password}")
        return subprocess.run(["curl", "-sS", "--fail", *who, self.url + path], capture_output=True, check=True).stdout

    def has_settled(self) -> bool:
        """Whether the driver has not been called for some 50 looks."""
        self._seen.append(self.calls_made() if self.calls.exists() else 0)
        return self._seen[-1] > 0 and len(self._seen) > 50 and self._seen[-50] == self._seen[-1]

    def calls_made(self) -> int:
        return int.from_bytes(self.calls.read_bytes(), "little")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, standin: Path) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("web")
    authority = Authority(folder / "tls")
    authority.server()
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    file = folder / "tls" / "web.yml"
    file.write_text(
        f"tls_server_config: {{cert_file: server.crt, key_file: server.key}}\nbasic_auth_users: {{prometheus: '{hashed}'}}\n"
    )
    scenario = Scenario((h100(BUSY), a100(BUSY))).write(folder / "scenario.txt")
    env = environment(standin, scenario, NVML_STANDIN_CALLS=str(folder / "calls"))
    with started("run", "--state-dir", str(folder / "state"), "--listen", "127.0.0.1:0", "--no-seal", "--interval", "60",
                 "--web-config-file", str(file), env=env) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (https://\S+)/metrics")[1]
        found = Daemon(url, authority, folder / "calls")
        wait_until(found.has_settled, "the first read is over, a minute before the next")
        yield found


@pytest.mark.tool("curl", "promtool")
def test_nothing_that_is_looked_at_costs_a_driver_call(daemon: Daemon) -> None:
    before = daemon.calls_made()
    assert before > 0
    for path in ("/metrics", "/", "/metrics"):
        for _ in range(5):
            daemon.curl(path)
    assert daemon.calls_made() == before
    page = daemon.curl("/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    with pytest.raises(subprocess.CalledProcessError):
        daemon.curl("/metrics", password="wrong")


def test_a_wrong_file_is_said_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text("rate_limit: {burst: 1}\nbasic_auth_users: {a: b}")
    for verb in (["run"], ["exec", "--", "true"]):
        done = flopsd(verb[0], "--web-config-file", str(file), "--state-dir", str(tmp_path / "state"), *verb[1:])
        assert done.returncode == 2
        assert "rate_limit: not supported" in done.stderr
        assert "must be the bcrypt hash" in done.stderr
