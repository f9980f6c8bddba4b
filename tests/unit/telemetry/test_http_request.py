"""Requests from bytes, however they are cut, and what is none."""

from __future__ import annotations

from http import HTTPStatus
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.telemetry.http.request import MAX_HEAD_BYTES, RefusedRequest, Request, take_request
from flopsd.telemetry.http.response import compressed

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
HEADS = st.tuples(st.sampled_from(["GET", "HEAD"]), st.sampled_from(["/", "/metrics", "/x%20y"]),
                  st.dictionaries(TOKENS.filter(lambda name: name not in ("content-length", "transfer-encoding")), VALUES, max_size=5))  # fmt: skip


@given(st.lists(HEADS, min_size=1, max_size=3), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_requests_are_the_same_however_the_bytes_come(
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


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/2.0", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
        ("GET /", HTTPStatus.BAD_REQUEST),
        ("", HTTPStatus.BAD_REQUEST),
        ("G@T / HTTP/1.1", HTTPStatus.BAD_REQUEST),
        ("GET / HTTP/1.1\r\nNo colon", HTTPStatus.BAD_REQUEST),
        ("GET / HTTP/1.1\r\nA: b\r\n folded", HTTPStatus.BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost : x", HTTPStatus.BAD_REQUEST),
        ("POST / HTTP/1.1", HTTPStatus.METHOD_NOT_ALLOWED),
        ("GET / HTTP/1.1\r\nContent-Length: 3", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (f"GET / HTTP/1.1\r\nA: {'b' * MAX_HEAD_BYTES}", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)  # fmt: skip
def test_what_is_refused(head: str, status: HTTPStatus) -> None:
    with pytest.raises(RefusedRequest) as caught:
        take_request(bytearray(f" {head}\r\n\r\n".encode() if not head else f"{head}\r\n\r\n".encode()))
    assert caught.value.status is status


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_none_or_refused(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        found = take_request(buffer)
    except RefusedRequest:
        return
    assert found is None or found.method in ("GET", "HEAD")


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("deflate, gzip;q=1.0", True), ("*", True), ("GZIP", True), ("", False), ("br", False),
     ("gzip;q=0", False), ("gzip; q=0.0, *", False)],
)  # fmt: skip
def test_gzip_where_it_is_accepted(accepted: str, packed: bool) -> None:
    body, headers = compressed(b"flopsd " * 1000, accepted)
    assert (("Content-Encoding", "gzip") in headers) is packed
    assert (len(body) < 200) is packed
    assert ("Vary", "Accept-Encoding") in headers


def test_a_few_bytes_are_not_packed() -> None:
    assert compressed(b"few", "gzip")[0] == b"few"
