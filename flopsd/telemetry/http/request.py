"""Parse one HTTP request: GET or HEAD without a body, with a head of limited size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

MAX_HEAD_BYTES = 16_384
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[!-~]*")
_VERSION = re.compile(r"HTTP/[0-9]\.[0-9]")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
_LONE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")  # half a line end, which other parsers may accept as a whole one
_WEIGHT = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)
END = b"\r\n\r\n"


class Request(NamedTuple):
    """One request. Header names are lower case; `keeps`: the connection stays open afterwards."""

    method: str
    path: str
    headers: Mapping[str, str]
    keeps: bool
    host: str = ""  # as the client named us, without the port


class RefusedRequest(Exception):
    """The request is invalid or not supported; the connection has to be closed."""

    def __init__(self, status: HTTPStatus, *headers: tuple[str, str]) -> None:
        self.status, self.headers = status, headers


def has_request(buffer: bytearray) -> bool:
    """Whether `buffer` has a complete head, which `take_request` returns or refuses."""
    return END in buffer


def take_request(buffer: bytearray) -> Request | None:
    """Remove and return the first complete request of `buffer`; None if there is none yet. Raises RefusedRequest."""
    while buffer[:2] == b"\r\n":  # empty lines between two requests
        del buffer[:2]
    end = buffer.find(END, 0, MAX_HEAD_BYTES)
    if _LONE.search(buffer, 0, min(len(buffer), MAX_HEAD_BYTES) if end < 0 else end):
        raise RefusedRequest(HTTPStatus.BAD_REQUEST)
    if end < 0:
        if len(buffer) >= MAX_HEAD_BYTES:
            raise RefusedRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        return None
    lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + len(END)]
    method, path, version = _first_line(lines[0])
    headers = _headers(lines[1:])
    host = _HOST.fullmatch(headers.get("host", "" if version == "HTTP/1.0" else " "))
    length = headers.get("content-length", "0")
    if host is None or not (length.isascii() and length.isdigit()):
        raise RefusedRequest(HTTPStatus.BAD_REQUEST)
    if method not in ("GET", "HEAD"):
        raise RefusedRequest(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
    if length.strip("0") or "transfer-encoding" in headers:
        raise RefusedRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keeps = "close" not in options and (version == "HTTP/1.1" or "keep-alive" in options)
    return Request(method, path, headers, keeps, host[1].lower())


def _first_line(line: str) -> tuple[str, str, str]:
    method, _, rest = line.partition(" ")
    target, _, version = rest.partition(" ")
    if not (_TOKEN.fullmatch(method) and _TARGET.fullmatch(target) and _VERSION.fullmatch(version)):
        raise RefusedRequest(HTTPStatus.BAD_REQUEST)
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise RefusedRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    return method, target.partition("?")[0], version


def weights_of(accept: str) -> dict[str, float]:
    """The kinds in an Accept or Accept-Encoding header, lower case, with their weights by RFC 9110; malformed: 0."""
    found: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *options = (piece.strip() for piece in part.split(";"))
        text = next((option[2:] for option in options if option.startswith("q=")), "1")
        found[kind] = max(found.get(kind, 0.0), float(text) if _WEIGHT.fullmatch(text) else 0.0)
    return found


def _headers(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise RefusedRequest(HTTPStatus.BAD_REQUEST)
        name, value = name.lower(), value.strip(" \t")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
