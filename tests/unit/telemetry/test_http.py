"""The HTTP server and the exposition behind it; parsing of requests, split at any byte, and refusal of invalid ones."""

import http.client
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

import flopsd.telemetry.http.server as server_module
from flopsd.core.model import GapReason
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry import device_metrics
from flopsd.telemetry.families import metric
from flopsd.telemetry.http.exchange import Connection, Exchange
from flopsd.telemetry.http.request import MAX_HEAD_BYTES, RefusedRequest, Request, take_request
from flopsd.telemetry.http.response import compressed
from flopsd.telemetry.http.server import WebServer
from flopsd.telemetry.process_metrics import ProcessMetrics
from flopsd.telemetry.prometheus import Exposition
from flopsd.telemetry.snapshot import DiskState, JournalState, KeyState, Snapshot
from tests.support.golden import check_golden
from tests.support.paths import GOLDEN
from tests.support.process import get, wait_until
from tests.support.runs import A100, H100, STRANGER, Run, interrupted


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "state", devices=(H100, A100, STRANGER))


@pytest.fixture
def url(run: Run) -> Iterator[str]:
    def shown() -> Snapshot:
        now_ns = run.clock.wall_ns()
        key, last_ns = KeyState(False, "pin_refused", "the PIN is wrong"), run.clock.boottime_ns() - 60 * NS_PER_S
        disk = DiskState(417_000_000, 34_200_000_000, 1)
        state = JournalState(now_ns, 900 * NS_PER_S, last_ns, 1, undelivered_ledgers=2, key=key, disk=disk)
        return replace(run.writer.snapshot, journal_state=state)

    server = WebServer("127.0.0.1", [0], shown)
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def connection(url: str) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    yield opened
    opened.close()


def test_each_path_gives_its_answer(run: Run, url: str) -> None:
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
    assert "no upper bound is known" in page  # an unknown device has no peak


def test_head_has_headers_and_no_body(connection: http.client.HTTPConnection) -> None:
    for path, status in (("/metrics", 200), ("/-/ready", 503), ("/nope", 404)):
        connection.request("HEAD", path)  # the same connection: a wrong length would break the next answer
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
        assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            True,
        ),  # Prometheus
        ("application/openmetrics-text;q=0.3, text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0, */*", False),
        ("application/openmetrics-text; q=2", False),  # no weight
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("", False),
    ],
)
def test_the_weights_of_accept_decide_the_format_and_caches_are_notified(
    connection: http.client.HTTPConnection, accept: str, is_openmetrics: bool
) -> None:
    connection.request("GET", "/metrics", headers={"Accept": accept})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0") == is_openmetrics
    assert body.endswith(b"# EOF\n") == is_openmetrics
    assert {value.strip() for value in ",".join(answer.headers.get_all("Vary") or ()).split(",")} == {
        "Accept",
        "Accept-Encoding",
    }


def test_a_run_whose_devices_are_all_lost_is_not_ready(run: Run, url: str) -> None:
    run.meter(2)
    run.meter(1, GapReason.DEVICE_LOST)
    assert get(f"{url}/-/ready")[:2] == (503, "no device is metered now\n")
    run.meter(1)
    assert get(f"{url}/-/ready")[:2] == (200, "flopsd is metering\n")
    up = [
        line.rpartition(" ")[2]
        for line in get(f"{url}/metrics")[1].splitlines()
        if line.startswith("flopsd_device_up{")
    ]
    assert up == ["1.0", "1.0", "0.0"], "of the stranger, of which the peak table has no row, nothing is known"


def test_each_request_of_a_connection_is_answered_by_its_own_headers(connection: http.client.HTTPConnection) -> None:
    plain, openmetrics, foreign = {"Accept": "*/*"}, {"Accept": "application/openmetrics-text"}, {"Host": "example.org"}
    for headers, status, kind in (
        (plain, 200, "text/plain"),
        (plain, 200, "text/plain"),
        (openmetrics, 200, "application/openmetrics-text"),
        (plain, 200, "text/plain"),
        (foreign, 421, "text/plain"),
        (foreign, 421, "text/plain"),
        (plain, 200, "text/plain"),
    ):
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (status, kind)


def test_methods_that_change_something_are_refused(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", "/metrics", b"x")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Allow"], answer.headers["Connection"]) == (405, "GET, HEAD", "close")


def test_a_refusal_arrives_although_more_was_sent_than_buffers_hold(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12000000\r\n\r\n" + bytes(12_000_000))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 405 ")


def test_a_rendering_error_is_a_500_and_the_daemon_lives(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(device_metrics, "flop", broken)
    assert get(f"{url}/metrics")[0] == 500
    assert "internal error while rendering /metrics" in caplog.text
    monkeypatch.undo()
    assert get(f"{url}/metrics")[0] == 200


def test_process_metrics_match_those_of_prometheus_client() -> None:
    ours = {family.name: family for family in ProcessMetrics().families()}
    theirs = {found.name: found for found in ProcessCollector(registry=None).collect()}
    assert list(ours) == list(theirs)
    assert len(ours) == 6
    for name, found in theirs.items():
        made = metric(ours[name])
        assert (made.documentation, made.type) == (found.documentation, found.type)
        assert made.samples[0].name == found.samples[0].name
        assert made.samples[0].value == pytest.approx(found.samples[0].value, rel=0.1, abs=1)
    for constant in ("process_start_time_seconds", "process_max_fds"):
        assert ours[constant].rows[0][1] == theirs[constant].samples[0].value


def test_a_plain_scrape_needs_no_thread(
    connection: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    for _ in range(2):
        connection.request("GET", "/metrics")
        assert b"flopsd_run_flop" in connection.getresponse().read()
    connection.request("GET", "/-/healthy")
    with pytest.raises(ConnectionError):  # while no thread can be started
        connection.getresponse()


def test_a_page_for_this_machine_is_not_compressed(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    assert answer.headers["Content-Encoding"] is None
    assert b"flopsd_run_flop" in answer.read()


def test_the_rest_of_a_page_that_the_kernel_does_not_accept_is_sent_by_a_thread(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_SEND_BYTES", 4096)
    run.meter(1)
    sent = []
    sendall = Exchange.serve

    def noted(exchange: Exchange, connection: Connection) -> bool:
        sent.append(len(connection.unsent))
        return sendall(exchange, connection)

    monkeypatch.setattr(Exchange, "serve", noted)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        wait_until(lambda: sent, "a thread has the rest")
        page = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = page.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert 0 < sent[0] < len(page)


def test_the_exposition_matches_its_golden(run: Run, url: str) -> None:
    """Every family, with a fault and a second incarnation."""
    interrupted(run)
    text = get(f"{url}/metrics")[1]
    changing = ("flopsd_build_info{", "process_", "# HELP process_", "# TYPE process_")
    stable = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(changing))
    assert "process_resident_memory_bytes" in text
    check_golden(re.sub(r"e\+0(\d\d)\b", r"e+\1", stable), GOLDEN / "metrics.prom")  # prometheus-client 0.20 has a 0
    assert list(text_string_to_metric_families(text))


@pytest.mark.tool("promtool")
def test_promtool_accepts_the_exposition_without_remarks() -> None:
    text = (GOLDEN / "metrics.prom").read_bytes()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_without_rolling_seals_there_are_no_seal_metrics(run: Run) -> None:
    page = Exposition().render(replace(run.writer.snapshot, journal_state=JournalState(5 * NS_PER_S)), "")[0].decode()
    assert "flopsd_time_seconds 5.0" in page
    assert "_seal_" not in page
    for unknown in ("signing_key", "journal_size", "state_free", "closed_segments"):
        assert f"\nflopsd_{unknown}" not in page


def test_a_device_without_a_unique_name_is_prefixed_with_its_node(tmp_path: Path) -> None:
    """`neuron0` exists on every host, and the sums of a fleet count each name once."""
    run = Run(tmp_path / "nameless", devices=(replace(H100, uid="neuron0", serial=None),))
    run.meter(2)
    page = Exposition().render(run.writer.snapshot, "")[0].decode()
    assert set(re.findall(r'uuid="([^"]+)"', page)) == {f"{run.writer.snapshot.view.node}/neuron0"}


TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
HEADS = st.tuples(st.sampled_from(["GET", "HEAD"]), st.sampled_from(["/", "/metrics", "/x%20y"]),
                  st.dictionaries(TOKENS.filter(lambda name: name not in ("content-length", "transfer-encoding", "host")), VALUES, max_size=5).map(lambda found: {"host": "x", **found}))  # fmt: skip


@given(st.lists(HEADS, min_size=1, max_size=3), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_requests_are_parsed_alike_however_the_bytes_arrive(
    heads: list[tuple[str, str, dict[str, str]]], sizes: list[int]
) -> None:
    wire = b"".join(
        f"{method} {path}?q=1 HTTP/1.1\r\n{''.join(f'{name}: {value}{chr(13)}{chr(10)}' for name, value in headers.items())}\r\n".encode()
        for method, path, headers in heads
    )
    found: list[Request] = []
    buffer = bytearray()
    for size in cycle(sizes):
        if not wire:
            break
        buffer += wire[:size]
        wire = wire[size:]
        while (request := take_request(buffer)) is not None:
            found.append(request)
    assert [(one.method, one.path, one.headers) for one in found] == heads
    assert not buffer


def test_empty_lines_before_a_request_are_skipped() -> None:
    buffer = bytearray(b"\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n\r\n")
    found = take_request(buffer)
    assert found is not None
    assert (found.path, take_request(buffer), bytes(buffer)) == ("/metrics", None, b"")


HOST = "\r\nHost: localhost"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET / HTTP/2.0{HOST}", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
        ("GET /", HTTPStatus.BAD_REQUEST),
        (" ", HTTPStatus.BAD_REQUEST),
        (f"G@T / HTTP/1.1{HOST}", HTTPStatus.BAD_REQUEST),
        (f"GET metrics HTTP/1.1{HOST}", HTTPStatus.BAD_REQUEST),
        (f"GET /\xe9 HTTP/1.1{HOST}", HTTPStatus.BAD_REQUEST),
        (f"GET / HTTP/1.1 x{HOST}", HTTPStatus.BAD_REQUEST),
        (f"GET / HTTP/x{HOST}", HTTPStatus.BAD_REQUEST),
        ("GET / HTTP/1.1", HTTPStatus.BAD_REQUEST),
        (f"GET / HTTP/1.1{HOST}{HOST}", HTTPStatus.BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: a b", HTTPStatus.BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: user@localhost", HTTPStatus.BAD_REQUEST),
        (f"GET / HTTP/1.1{HOST}\r\nNo colon", HTTPStatus.BAD_REQUEST),
        (f"GET / HTTP/1.1{HOST}\r\nA: b\r\n folded", HTTPStatus.BAD_REQUEST),
        (f"GET / HTTP/1.1{HOST}\r\nA: b\0c", HTTPStatus.BAD_REQUEST),
        (f"GET / HTTP/1.1{HOST}\r\nA: b\nC: d", HTTPStatus.BAD_REQUEST),
        (f"GET / HTTP/1.1{HOST}\r\nA: b\rC: d", HTTPStatus.BAD_REQUEST),
        (f"GET / HTTP/1.1{HOST}\r\nContent-Length: -1", HTTPStatus.BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost : x", HTTPStatus.BAD_REQUEST),
        (f"POST / HTTP/1.1{HOST}", HTTPStatus.METHOD_NOT_ALLOWED),
        (f"GET / HTTP/1.1{HOST}\r\nContent-Length: 3", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (f"GET / HTTP/1.1{HOST}\r\nTransfer-Encoding: chunked", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (f"GET / HTTP/1.1{HOST}\r\nA: {'b' * MAX_HEAD_BYTES}", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)  # fmt: skip
def test_invalid_requests_are_refused(head: str, status: HTTPStatus) -> None:
    with pytest.raises(RefusedRequest) as caught:
        take_request(bytearray(f"{head}\r\n\r\n".encode("latin-1")))
    assert caught.value.status is status


def test_a_head_is_refused_as_soon_as_it_reaches_the_limit() -> None:
    head = bytearray(f"GET / HTTP/1.1{HOST}\r\nA: ".encode()).ljust(MAX_HEAD_BYTES - 1, b"b")
    assert take_request(head) is None
    with pytest.raises(RefusedRequest) as caught:
        take_request(head + b"b")
    assert caught.value.status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_a_request_is_answered_before_an_invalid_one_behind_it_is_refused() -> None:
    buffer = bytearray(b"GET /metrics HTTP/1.0\r\n\r\nGET / HTTP/1.0\n\n")
    found = take_request(buffer)
    assert found is not None
    assert found.path == "/metrics"
    with pytest.raises(RefusedRequest):
        take_request(buffer)


def test_a_head_with_bare_line_ends_is_refused_before_its_time_is_up() -> None:
    with pytest.raises(RefusedRequest) as caught:
        take_request(bytearray(b"GET / HTTP/1.0\n\n"))
    assert caught.value.status is HTTPStatus.BAD_REQUEST
    assert (
        take_request(bytearray(b"GET / HTTP/1.0\r")) is None
    )  # half a line end, the other half of which is still to come


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:10188", 200), ("127.8.9.1", 200), ("localhost", 200), ("LOCALHOST.:80", 200), ("node.localhost", 200),
     ("[::1]:10188", 200), ("[::ffff:127.0.0.1]", 200), ("rebound.example:10188", 421), ("127.0.0.1.rebound.example", 421),
     ("10.0.0.1", 421), ("notlocalhost", 421), ("[2001:db8::1]", 421), ("", 421), (None, 200)],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/status", "/nope"])
def test_a_loopback_listener_answers_only_to_loopback_host_names(
    connection: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch, host: str | None, status: int, path: str
) -> None:
    """A page in a browser may have its own name resolve to 127.0.0.1, and would then read ours as its own."""
    if host is None:  # HTTP/1.0, which no browser speaks
        monkeypatch.setattr(connection, "_http_vsn_str", "HTTP/1.0")
    connection.putrequest("GET", path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == (404 if (status, path) == (200, "/nope") else status)
    assert (b"run-1" in body) is (status == 200 and path in ("/", "/metrics", "/api/status"))


def test_the_address_of_an_ipv6_listener_can_be_called(run: Run) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = WebServer("::1", [0], lambda: run.writer.snapshot)
    server.start()
    assert re.fullmatch(r"http://\[::1\]:\d+", server.url)
    assert get(f"{server.url}/-/healthy")[0] == 200
    server.stop()


def test_a_listener_for_other_hosts_answers_to_any_name(run: Run) -> None:
    server = WebServer("0.0.0.0", [0], lambda: run.writer.snapshot)
    server.start()
    try:
        opened = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=30)
        opened.request("GET", "/-/healthy", headers={"Host": "gpu-node-7.example"})
        assert opened.getresponse().status == 200
        opened.close()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("deflate, gzip;q=1.0", True), ("*", True), ("GZIP", True), ("", False), ("br", False),
     ("gzip;q=0", False), ("gzip; q=0.0, *", False)],
)  # fmt: skip
def test_gzip_is_used_where_it_is_accepted(accepted: str, packed: bool) -> None:
    body, headers = compressed(b"flopsd " * 1000, accepted)
    assert (("Content-Encoding", "gzip") in headers) is packed
    assert (len(body) < 200) is packed
    assert ("Vary", "Accept-Encoding") in headers
    assert compressed(b"few", accepted)[0] == b"few"
