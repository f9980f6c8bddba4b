"""The format of the pipe from daemon to pusher: pages of metrics, each with its time; first and last are marked."""

from __future__ import annotations

import os
from typing import NamedTuple

MAX_PAGE_BYTES = 8 << 20
_HEADER_BYTES = 64
# Keys: whether a page is the first of its run, and whether it is the last.
_KINDS = {(False, False): b"page", (True, False): b"first", (False, True): b"last", (True, True): b"only"}
_MARKS = {kind: marks for marks, kind in _KINDS.items()}


class FrameError(ValueError):
    """The bytes from the pipe are not a page in this format."""


class Page(NamedTuple):
    """The text of /metrics and its time in Unix nanoseconds. `last`: the run ended with it. `first`: nothing of the run
    was pushed before it."""

    text: bytes
    wall_ns: int
    last: bool = False
    first: bool = False


def encode_frame(page: Page) -> bytes:
    """A header line, `page|first|last|only WALL_NS LENGTH`, and the page."""
    return b"%s %d %d\n" % (_KINDS[page.first, page.last], page.wall_ns, len(page.text)) + page.text


class FrameReader:
    """Cuts a stream into pages. The stream may arrive in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Page]:
        """The pages that `data` completes. Raises FrameError."""
        self._buffer += data
        found = []
        while (page := self._next()) is not None:
            found.append(page)
        return found

    def _next(self) -> Page | None:
        end = self._buffer.find(b"\n", 0, _HEADER_BYTES)
        if end < 0:
            if len(self._buffer) >= _HEADER_BYTES:
                raise FrameError("no header where a page should begin")
            return None
        header = bytes(self._buffer[:end]).split(b" ")
        if len(header) != 3 or header[0] not in _MARKS or not (header[1].isdigit() and header[2].isdigit()):
            raise FrameError("no header where a page should begin")
        first, last = _MARKS[header[0]]
        length = int(header[2])
        if length > MAX_PAGE_BYTES:
            raise FrameError(f"a page of {length} bytes")
        if len(self._buffer) < end + 1 + length:
            return None
        page = Page(bytes(self._buffer[end + 1 : end + 1 + length]), int(header[1]), last, first)
        del self._buffer[: end + 1 + length]
        return page


def read_some(descriptor: int) -> bytes | None:
    """The bytes available now, at most 64 KiB; None if there are none yet, empty at the end."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None
