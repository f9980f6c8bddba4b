"""Requests for the status of a daemon: the address, the password, and answers that are no status."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler

import pytest

from flopsd.errors import FlopsdError
from flopsd.system.clock import SystemClock
from flopsd.telemetry.push.pusher import run_scraping
from flopsd.telemetry.status_client import from_url
from tests.support.authorities import Answer, serving
from tests.support.process import free_port, in_process


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:10188", "ftp://127.0.0.1", "http://", "https:///x", "http://:80", "http://[::1"]
)
def test_an_invalid_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(FlopsdError, match="^--url is not an http or https address$") as caught:
        from_url(url)
    assert caught.value.hint == "such as http://127.0.0.1:10188"


@contextmanager
def refusing() -> Iterator[tuple[str, list[str | None]]]:
    """A server that answers 401, and the headers of authorization that it received."""
    received: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler, _: bytes) -> Answer:
        received.append(request.headers["Authorization"])
        return 401, b"", {}

    with serving(answer) as url:
        yield url, received


@pytest.mark.parametrize(
    ("login", "sent"),
    [("", None), ("ada:secret@", "ada:secret"), ("a%40b:p%3Aw%2F@", "a@b:p:w/"), ("ada@", "ada:"), ("a:b:c@", "a:b:c")],
)
def test_a_password_in_the_address_is_sent_and_never_shown(login: str, sent: str | None) -> None:
    with (
        refusing() as (url, received),
        pytest.raises(FlopsdError, match=f"^cannot read {url}: HTTP Error 401") as caught,
    ):
        from_url(url.replace("//", f"//{login}") + "/")
    assert received == [None if sent is None else "Basic " + b64encode(sent.encode()).decode()]
    assert "https://USER:PASSWORD@HOST:PORT" in caught.value.hint


def test_the_pushing_process_uses_the_password_and_never_shows_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flopsd.telemetry.push.pusher.awaited", lambda *_: nullcontext(lambda _: "SIGTERM"))
    with refusing() as (url, received):
        assert not run_scraping(url.replace("//", "//ada:secret@"), 1, [], {}, SystemClock())
    assert set(received) == {"Basic " + b64encode(b"ada:secret").decode()}
    assert caplog.messages == [f"cannot read {url}/metrics: HTTP Error 401: Unauthorized; it is tried again"]
    nice = []
    monkeypatch.setattr("flopsd.cli.push.be_nice", lambda: nice.append(1))
    in_process(
        "push", "--push", "otlp+http://h:1/x", "--url", "h:1", code=2, says="--url is not an http or https address"
    )
    assert nice == [1], "it runs beside the job"


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize(("fed", "run"), [((), "run_scraping"), (("--fed",), "run_fed")])
def test_the_exit_code_of_push_says_whether_the_last_page_arrived(
    monkeypatch: pytest.MonkeyPatch, fed: tuple[str, ...], run: str, *, arrived: bool
) -> None:
    monkeypatch.setattr("flopsd.cli.push.be_nice", lambda: None)
    monkeypatch.setattr(f"flopsd.telemetry.push.pusher.{run}", lambda *_: arrived)
    in_process("push", *fed, "--push", "otlp+http://h:1/x", code=0 if arrived else 1)
    in_process("push", *fed, code=2, says="push: no receiver was given")


def test_the_pushing_process_waits_for_a_daemon_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited: list[float] = []

    def wait(seconds: float) -> str | None:
        waited.append(seconds)
        return "SIGTERM" if len(waited) == 2 else None

    monkeypatch.setattr("flopsd.telemetry.push.pusher.awaited", lambda *_: nullcontext(wait))
    url = f"http://127.0.0.1:{free_port()}"
    assert not run_scraping(url, 30, [], {}, SystemClock())
    (message,) = caplog.messages
    assert message.startswith(f"cannot read {url}/metrics: ")
    assert message.endswith("; it is tried again")
    assert 0 < waited[0] <= 30 < waited[1] <= 60, "what is due is counted from the start"


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff", b"{", b'{"schema": "another"}', b"[]"])
def test_an_invalid_status_is_an_error_that_names_the_address(body: bytes) -> None:
    def answer(_: BaseHTTPRequestHandler, __: bytes) -> Answer:
        return 200, body, {}

    with serving(answer) as url, pytest.raises(FlopsdError, match=url):
        from_url(url)


def test_a_redirect_is_not_followed_with_the_password() -> None:
    received: list[str] = []

    def answer(request: BaseHTTPRequestHandler, _: bytes) -> Answer:
        received.append(request.path)
        return 302, b"", {"Location": "http://elsewhere.example/\x1b[2J"}

    with serving(answer) as url, pytest.raises(FlopsdError, match=f"^cannot read {url}: HTTP Error 302") as caught:
        from_url(url.replace("//", "//ada:secret@"))
    assert received == ["/api/status"]
    assert caught.value.hint == "give the address that it redirects to: 'http://elsewhere.example/\\x1b[2J'"
