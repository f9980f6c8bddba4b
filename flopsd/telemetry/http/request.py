"""One HTTP request from bytes: GET and HEAD without a body, and a head of limited size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

MAX_HEAD_BYTES = 16_384
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. Names of headers are in small letters; `keeps`: the connection goes on afterwards."""

    method: str
    path: str
    headers: Mapping[str, str]
    keeps: bool


class RefusedRequest(Exception):
    """What was sent is no request that is answered here; the connection cannot go on."""

    def __init__(self, status: HTTPStatus, *headers: tuple[str, str]) -> None:
        super().__init__(status.phrase)
        self.status, self.headers = status, headers


def has_request(buffer: bytearray) -> bool:
    """Whether `take_request` would take one, or refuse it."""
    return _END in buffer


def take_request(buffer: bytearray) -> Request | None:
    """The first whole request of `buffer`, taken out of it; None while there is none. Raises RefusedRequest."""
    while buffer[:2] == b"\r\n":  # between two requests
        del buffer[:2]
    end = buffer.find(_END, 0, MAX_HEAD_BYTES)
    if end < 0:
        if len(buffer) >= MAX_HEAD_BYTES:
            raise RefusedRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        return None
    lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + len(_END)]
    method, path, version = _first_line(lines[0])
    headers = _headers(lines[1:])
    if method not in ("GET", "HEAD"):
        raise RefusedRequest(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise RefusedRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keeps = "close" not in options and (version == "HTTP/1.1" or "keep-alive" in options)
    return Request(method, path, headers, keeps)


def _first_line(line: str) -> tuple[str, str, str]:
    method, _, rest = line.partition(" ")
    target, _, version = rest.partition(" ")
    if not _TOKEN.fullmatch(method) or not target or not target.isprintable() or not version.startswith("HTTP/"):
        raise RefusedRequest(HTTPStatus.BAD_REQUEST)
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise RefusedRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    return method, target.partition("?")[0], version


def _headers(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise RefusedRequest(HTTPStatus.BAD_REQUEST)
        name, value = name.lower(), value.strip(" \t")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
