"""The standard streams: closed, full, slow or missing ones, and systemd's journal."""

import fcntl
import io
import logging
import os
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from flopsd.system.streams import last_flush, open_missing, say, with_priority


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_reader_that_does_not_read_blocks_nothing(is_terminal: bool) -> None:
    """A hanging filter behind the log, or Ctrl-S: no journal was written any more, and no ledger at the end."""
    reader, writer = os.openpty() if is_terminal else os.pipe()
    go_on = partial(termios.tcflow, writer, termios.TCOON) if is_terminal else partial(os.read, reader, 1 << 16)
    late = threading.Timer(5, go_on)
    with os.fdopen(writer, "w") as stream:
        if is_terminal:
            termios.tcflow(writer, termios.TCOOFF)
        else:
            os.set_blocking(writer, False)
            with suppress(BlockingIOError):
                while os.write(writer, b"x" * 100):
                    pass
            os.set_blocking(writer, True)
        late.start()
        assert not say(stream, "words\n" * 1000)
        late.cancel()
        go_on()
        assert say(stream, "words\n")
    os.close(reader)


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


def test_the_last_flush_returns_whether_all_was_written() -> None:
    assert last_flush(None)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        stream.write("words")
        assert last_flush(stream)
        assert os.read(reader, 9) == b"words"
        os.close(reader)
        stream.write("more")
        descriptors = len(os.listdir("/proc/self/fd"))
        assert not last_flush(stream)  # closing it raises nothing
        assert os.fstat(stream.fileno()).st_rdev == os.stat(os.devnull).st_rdev
        assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not last_flush(Full())


def test_output_of_a_verb_is_not_cut_for_a_slow_reader() -> None:
    """A pager: for a while `flopsd report … | less` had exit code 1."""
    reader, writer = os.pipe()
    filled = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"x" * filled)
    later = threading.Timer(0.3, os.read, (reader, filled))
    with os.fdopen(writer, "w") as stream:
        stream.write("words")
        later.start()
        assert last_flush(stream)
    later.join()
    assert os.read(reader, 9) == b"words"
    os.close(reader)


def test_lines_have_a_priority_where_the_stream_is_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        found = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        text = "a\nb"
        levels = {level: with_priority(text, level, journal) for level in (0, 10, 19, 20, 29, 30, 39, 40, 49, 50, 99)}
        assert {with_priority(text, logging.ERROR, stream) for stream in (other, None, io.StringIO())} == {text}
        other.close()
        assert with_priority(text, logging.ERROR, other) == text
        monkeypatch.delenv("JOURNAL_STREAM")
        assert with_priority(text, logging.ERROR, journal) == text
    assert {text[1] for text in levels.values()} == set("76432")
    assert all(text == f"<{text[1]}>a\n<{text[1]}>b" for text in levels.values())
    assert "".join(text[1] for text in levels.values()) == "77766443322"


MISSING = """
import os, sys
from flopsd.system.streams import open_missing
before = {number: os.fstat(number) for number in range(3) if str(number) not in sys.argv[1]}
streams = sys.stdin, sys.stdout, sys.stderr
open_missing()
null = os.stat(os.devnull)
for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
    found = os.fstat(number)
    assert stream.fileno() == number and (stream.readable(), stream.writable()) == (number == 0, number > 0)
    if number in before:
        assert os.path.samestat(found, before[number]) and stream is streams[number]
    else:
        assert os.path.samestat(found, null) and os.get_inheritable(number)
        assert stream.encoding == "utf-8"
        stream.close()
        os.fstat(number)
first = os.open(os.devnull, os.O_RDONLY)
assert first == 3, first
"""


@pytest.mark.parametrize("missing", ["", "0", "12", "012"])
def test_missing_streams_are_opened_and_the_others_left_alone(missing: str, tmp_path: Path) -> None:
    streams = sys.stdin, sys.stdout, sys.stderr
    open_missing()
    assert (sys.stdin, sys.stdout, sys.stderr) == streams
    closed = "".join(f" {number}>&-" for number in missing)
    with (tmp_path / "out").open("w+") as out:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@"{closed}', "sh", sys.executable, "-c", MISSING, missing],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
        )  # fmt: skip
        out.seek(0)
        assert done.returncode == 0, out.read()
