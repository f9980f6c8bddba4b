"""`say` on streams that are closed, full or old."""

from __future__ import annotations

import io
import os
import sys

from flopsd.system.streams import say


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_say_returns_whether_the_text_was_written() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as broken:
        assert not say(broken, "words\n")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, writer)
        os.close(null)
    assert not say(Full(), "words")
    assert not say(None, "words")
    closed = io.StringIO()
    closed.close()
    assert not say(closed, "words")
    old = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert say(old, "é日\n")
    assert old.buffer.getvalue() == b"\\xe9\\u65e5\n"
    assert say(sys.stderr, "")
