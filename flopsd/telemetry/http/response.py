"""An answer and its bytes: one write for head and body (two of them cost 44 ms a scrape, by delayed ACK)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from flopsd import __version__

TEXT = "text/plain; charset=utf-8"
_WORTH_IT = 1024  # bytes; less fits into one packet anyway
_LEVEL = 1  # the higher ones cost more than the network they save


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def refusal(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    return Response(status, TEXT, f"{status.phrase.lower()}\n".encode("ascii"), headers)


def encoded(answer: Response, method: str, extra: Mapping[str, str], *, keeps: bool) -> bytes:
    """The whole answer; `extra` headers stand beside its own and, where both have one, the answer's own counts."""
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
    """The body, by gzip where the client takes that and it is worth it, and the headers that say so."""
    vary = ("Vary", "Accept-Encoding")
    if len(body) < _WORTH_IT or not _takes_gzip(accept_encoding):
        return body, (vary,)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush(), (vary, ("Content-Encoding", "gzip"))


def _takes_gzip(accept_encoding: str) -> bool:
    found = {}
    for part in accept_encoding.lower().split(","):
        name, _, options = part.strip().partition(";")
        quality = options.strip().removeprefix("q=")
        found[name.strip()] = not options or quality.strip("0.") != ""
    return found.get("gzip", found.get("*", False))
