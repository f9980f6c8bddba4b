"""What goes through the pipe from daemon to pusher: pages of metrics, each with its time, the last one marked."""

from __future__ import annotations

import os
from typing import NamedTuple

MAX_PAGE_BYTES = 8 << 20
_HEADER_BYTES = 64


class FrameError(ValueError):
    """What came through the pipe is not a page of ours."""


class Page(NamedTuple):
    """/metrics as text, and when it was true, in nanoseconds of Unix time. `last`: the run ended with it."""

    text: bytes
    wall_ns: int
    last: bool = False


def encode_frame(page: Page) -> bytes:
    """The page behind a header line: `page|last WALL_NS LENGTH`."""
    return b"%s %d %d\n" % (b"last" if page.last else b"page", page.wall_ns, len(page.text)) + page.text


class FrameReader:
    """Cuts a stream into pages, however it is chopped."""

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
        if len(header) != 3 or header[0] not in (b"page", b"last") or not (header[1].isdigit() and header[2].isdigit()):
            raise FrameError("no header where a page should begin")
        length = int(header[2])
        if length > MAX_PAGE_BYTES:
            raise FrameError(f"a page of {length} bytes")
        if len(self._buffer) < end + 1 + length:
            return None
        page = Page(bytes(self._buffer[end + 1 : end + 1 + length]), int(header[1]), header[0] == b"last")
        del self._buffer[: end + 1 + length]
        return page


def read_some(descriptor: int) -> bytes | None:
    """What is there now; None: nothing yet. Empty at the end."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None
