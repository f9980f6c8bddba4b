"""The HTTP front and the exposition behind it."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flopsd.system.clock import NS_PER_S
from flopsd.telemetry import metric_families
from flopsd.telemetry.http.server import WebServer
from flopsd.telemetry.prometheus import Exposition
from flopsd.telemetry.snapshot import JournalState, Snapshot
from tests.support.paths import GOLDEN
from tests.support.process import get
from tests.support.runs import A100, H100, STRANGER, Run, interrupted


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "state", devices=(H100, A100, STRANGER))


@pytest.fixture
def url(run: Run) -> Iterator[str]:
    def shown() -> Snapshot:
        now_ns = run.clock.wall_ns()
        return replace(
            run.writer.snapshot, journal_state=JournalState(now_ns, 900 * NS_PER_S, now_ns - 60 * NS_PER_S, 1)
        )

    server = WebServer("127.0.0.1", 0, shown)
    server.start()
    yield server.url
    server.stop()


def test_paths(run: Run, url: str) -> None:
    assert get(f"{url}/-/healthy")[:2] == (200, "flopsd is alive\n")
    status, body, headers = get(f"{url}/-/ready")
    assert (status, body, headers["Retry-After"]) == (503, "no device has been read yet\n", "1")
    run.meter(1)
    assert get(f"{url}/-/ready")[0] == 200
    status, body, headers = get(f"{url}/metrics?name=x")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert headers["Cache-Control"] == "no-store"
    assert get(f"{url}/nope")[0] == 404
    assert get(f"{url}/metricsx")[0] == 404
    page = get(url)[1]
    assert "run-1" in page
    assert 'href="metrics"' in page
    assert "no upper bound is known" in page  # a stranger has no peak


def test_head_has_headers_and_no_body(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    for path, status in (("/metrics", 200), ("/-/ready", 503), ("/nope", 404)):
        connection.request("HEAD", path)  # the same connection: a wrong length would break the next answer
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
        assert int(answer.headers["Content-Length"]) > 0
    connection.close()


def test_openmetrics_is_answered_when_asked_for(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.read().endswith(b"# EOF\n")
    connection.close()


def test_other_methods_are_refused(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/metrics", b"x")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Allow"], answer.headers["Connection"]) == (405, "GET, HEAD", "close")
    connection.close()


def test_a_fault_in_rendering_is_a_500_and_the_daemon_lives(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(metric_families, "flop", broken)
    assert get(f"{url}/metrics")[0] == 500
    assert "internal error while rendering /metrics" in caplog.text
    monkeypatch.undo()
    assert get(f"{url}/metrics")[0] == 200


def test_the_exposition_is_the_golden_one(run: Run, url: str) -> None:
    """Every family, with a fault and a second incarnation in it. Renew with FLOPSD_UPDATE_GOLDEN=1 and read the diff."""
    interrupted(run)
    text = get(f"{url}/metrics")[1]
    stable = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("flopsd_build_info{"))
    golden = GOLDEN / "metrics.prom"
    if os.environ.get("FLOPSD_UPDATE_GOLDEN") == "1":
        golden.write_text(stable)
    assert stable == golden.read_text()
    assert list(text_string_to_metric_families(text))


@pytest.mark.tool("promtool")
def test_promtool_finds_nothing_to_say() -> None:
    text = (GOLDEN / "metrics.prom").read_bytes()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_device_without_a_name_of_its_own_has_its_nodes_before_it(tmp_path: Path) -> None:
    """`neuron0` is on every host: the sums of a fleet take each name once."""
    run = Run(tmp_path / "nameless", devices=(replace(H100, uid="neuron0", serial=None),))
    run.meter(2)
    page = Exposition().render(run.writer.snapshot, "")[0].decode()
    assert set(re.findall(r'uuid="([^"]+)"', page)) == {f"{run.writer.snapshot.view.node}/neuron0"}
