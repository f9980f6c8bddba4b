"""The status that a daemon is asked for: by which address, with which password, and what is no answer."""

from base64 import b64encode
from http.server import BaseHTTPRequestHandler

import pytest

from flopsd.errors import FlopsdError
from flopsd.telemetry.status_client import from_url
from tests.support.authorities import Answer, serving


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:10188", "ftp://127.0.0.1", "http://", "https:///x", "http://:80", "http://[::1"]
)
def test_what_is_no_address_is_refused_without_a_word_of_it(url: str) -> None:
    with pytest.raises(FlopsdError, match="^--url is not an http or https address$") as caught:
        from_url(url)
    assert caught.value.hint == "such as http://127.0.0.1:10188"


@pytest.mark.parametrize(
    ("login", "sent"),
    [("", None), ("ada:secret@", "ada:secret"), ("a%40b:p%3Aw%2F@", "a@b:p:w/"), ("ada@", "ada:"), ("a:b:c@", "a:b:c")],
)
def test_a_password_in_the_address_goes_to_the_daemon_and_into_no_message(login: str, sent: str | None) -> None:
    heard: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler, _: bytes) -> Answer:
        heard.append(request.headers["Authorization"])
        return 401, b"", {}

    with serving(answer) as url, pytest.raises(FlopsdError, match=f"^cannot read {url}: HTTP Error 401") as caught:
        from_url(url.replace("//", f"//{login}") + "/")
    assert heard == [None if sent is None else "Basic " + b64encode(sent.encode()).decode()]
    assert "https://USER:PASSWORD@HOST:PORT" in caught.value.hint


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff", b"{", b'{"schema": "another"}', b"[]"])
def test_an_answer_that_is_no_status_is_an_error_that_names_the_address(body: bytes) -> None:
    def answer(_: BaseHTTPRequestHandler, __: bytes) -> Answer:
        return 200, body, {}

    with serving(answer) as url, pytest.raises(FlopsdError, match=url):
        from_url(url)
