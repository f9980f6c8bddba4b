"""A response and its bytes: head and body in one write (with delayed ACK, two writes cost 44 ms per scrape)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from flopsd import __version__
from flopsd.telemetry.http.request import weights_of

TEXT = "text/plain; charset=utf-8"
_MIN_COMPRESSED_BYTES = 1024  # less fits into one packet anyway
_LEVEL = 1  # higher levels cost more time than they save on the network
_WINDOW_BITS, _MEMORY_LEVEL = 13, 6  # lines repeat recent ones: more memory takes a third more time and gains nothing


class Response(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def refusal(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    return Response(status, TEXT, f"{status.phrase.lower()}\n".encode("ascii"), headers)


def encoded(answer: Response, method: str, extra: Mapping[str, str], *, keeps: bool) -> bytes:
    """The complete response. A header in `extra` is left out if the response has its own."""
    own = {name.lower() for name, _ in answer.headers}
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Server: flopsd/{__version__}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        *([] if keeps else ["Connection: close"]),
        *(f"{name}: {value}" for name, value in answer.headers),
        *(f"{name}: {value}" for name, value in extra.items() if name.lower() not in own),
    ]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if method == "HEAD" else head + answer.body


def compressed(body: bytes, accept_encoding: str) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """The body and its headers; gzipped if the client accepts that and the body is large enough."""
    vary = ("Vary", "Accept-Encoding")
    weights = weights_of(accept_encoding) if accept_encoding else {}
    if len(body) < _MIN_COMPRESSED_BYTES or not weights.get("gzip", weights.get("*")):
        return body, (vary,)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 16 + _WINDOW_BITS, _MEMORY_LEVEL)
    return packer.compress(body) + packer.flush(), (vary, ("Content-Encoding", "gzip"))
