"""Files that others handed over or still write to: the part that is read, and files that are refused."""

import errno
import gzip
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from flopsd.errors import FileChangedError
from flopsd.system.bounded_streams import MOST_TIMES, FirstBytes, Unpacked, WithoutHoles
from flopsd.system.known_files import (
    KnownFile,
    known_file,
    one_extends_other,
    open_content,
    put_file,
    sha256_of,
    size_of,
)
from flopsd.system.regular_files import first_bytes, open_own, open_regular, read_at_most, unfit
from flopsd.system.sha256 import file_sha256, hex_sha256


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (Path.mkdir, errno.EISDIR, "Is a directory"),
        (os.mkfifo, errno.EINVAL, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), errno.EINVAL, "not a regular file"),
        (lambda path: path.write_bytes(bytes(6)), errno.EFBIG, "larger than 5 bytes"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 40), errno.EFBIG, "larger than 5 bytes"),
        (lambda _path: None, errno.ENOENT, "No such file or directory"),
    ],
)
def test_an_irregular_or_too_large_file_is_named_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], object], code: int, words: str
) -> None:
    make(path := tmp_path / "given")
    before = open_descriptors()
    with pytest.raises(OSError, match=words) as caught:
        read_at_most(path, 5)
    assert (caught.value.errno, caught.value.strerror, caught.value.filename) == (code, words, str(path))
    assert open_descriptors() == before


@pytest.mark.parametrize(("make", "words"), [(os.mkfifo, "not a regular file"), (lambda p: p.symlink_to("/x"), "link")])
def test_an_irregular_own_file_is_refused_and_not_left_open(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    make(path := tmp_path / "journal.jsonl")
    before = open_descriptors()
    with pytest.raises(OSError, match=words):
        open_own(path)
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Path.touch, None),
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda _path: None, "No such file or directory"),
    ],
)
def test_the_reason_why_a_path_is_no_file_is_given(
    tmp_path: Path, make: Callable[[Path], object], why: str | None
) -> None:
    make(path := tmp_path / "given")
    assert unfit(path) == why


def test_a_file_or_own_pipe_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (path := tmp_path / "given").write_bytes(b"12345")
    assert read_at_most(path, 5) == b"12345"
    with open_regular(path) as file:
        assert first_bytes(file, 1 << 50) == b"12345"
        assert not os.get_inheritable(file.fileno())
    for name in ("/dev/fd/{}", "/proc/self/fd/{}"):
        reader, writer = os.pipe()
        os.write(writer, b"123456")
        with pytest.raises(OSError, match="larger than 5 bytes"):
            read_at_most(Path(name.format(reader)), 5)
        os.write(writer, b"12345")
        os.close(writer)
        assert read_at_most(Path(name.format(reader)), 5) == b"12345"
        with open_regular(Path(name.format(reader))) as file:
            assert os.get_blocking(file.fileno()), "its writer may be slow"
        os.close(reader)
    # Under any other name a pipe may belong to another process that never writes.
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="not a regular file"):
        read_at_most(Path(f"/proc/{os.getpid()}/fd/{reader}"), 5)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("size", "free", "is_refused"),
    [(20_000, 0, False), (20_001, 0, True), (20_001, 20_000, True), (20_001, 20_001, False), (20_000, 5, False)],
)
def test_gzip_is_unpacked_to_a_hundred_times_its_size_or_the_free_allowance(
    size: int, free: int, is_refused: bool
) -> None:
    packed = gzip.compress(bytes(size)).ljust(200, b"\0")  # trailing zeros are skipped
    assert (MOST_TIMES, len(packed)) == (100, 200)
    file = Unpacked(io.BytesIO(packed), free)
    assert file.readable()
    if is_refused:
        with pytest.raises(gzip.BadGzipFile, match="it unpacks to more than 100 times its size"):
            file.read()
    else:
        assert file.read() == bytes(size)


@pytest.mark.parametrize(
    ("pieces", "is_refused"),
    [
        ([bytes(5)], False),
        ([bytes(6)], True),
        ([bytes(3), bytes(3)], True),
        ([bytes(1)] * 6, True),
        ([bytes(3), b"\0\0\1", bytes(5)], False),
        ([bytes(5), b"\1\0\0", bytes(5)], False),
        ([bytes(5), b"\0\1\0", bytes(5)], False),
        ([bytes(5), b"\1"], False),
    ],
)
def test_consecutive_zeros_are_counted_across_reads(pieces: list[bytes], is_refused: bool) -> None:
    class Pieces(io.RawIOBase):
        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            piece = left.pop(0) if left else b""
            buffer[: len(piece)] = piece
            return len(piece)

    left = list(pieces)
    file = WithoutHoles(Pieces(), 5)  # type: ignore[arg-type]
    assert file.readable()
    if is_refused:
        with pytest.raises(OSError, match="it has more than 5 zero bytes in a row"):
            file.read()
    else:
        assert file.read() == b"".join(pieces)


def test_only_the_first_bytes_of_a_growing_file_are_read(tmp_path: Path) -> None:
    (path := tmp_path / "given").write_bytes(b"0123456789")
    plain = path.open("rb")
    file = FirstBytes.now_in(plain)
    with path.open("ab") as more:
        more.write(b"more")
    assert (file.readable(), file.seekable(), file.read()) == (True, True, b"0123456789")
    raw = FirstBytes(path.open("rb"), 8)
    assert (raw.read(3), raw.seek(2, os.SEEK_CUR), raw.read(2), raw.read(), raw.read()) == (b"012", 5, b"56", b"7", b"")
    assert (raw.seek(-3, os.SEEK_END), raw.read(), raw.seek(1), raw.read(2)) == (5, b"567", 1, b"12")
    assert (raw.seek(20), raw.read()) == (20, b"")
    file.close()
    raw.close()
    assert plain.closed
    assert raw.closed


def test_a_file_is_identified_and_copied_by_its_first_bytes(tmp_path: Path) -> None:
    (path := tmp_path / "given").write_bytes(b"0123456789")
    whole, part = known_file(path), known_file(path, 4)
    assert whole == KnownFile(path, 10, hex_sha256(b"0123456789"))
    assert part == KnownFile(path, 4, hex_sha256(b"0123"))
    assert known_file(path, 99) == whole
    with path.open("ab") as more:
        more.write(b"more")
    before = open_descriptors()
    for content, expected in ((whole, b"0123456789"), (part, b"0123"), (b"012", b"012")):
        assert (size_of(content), sha256_of(content)) == (len(expected), hex_sha256(expected))
        with open_content(content) as file:
            assert file.read() == expected
        target = tmp_path / "copy"
        put_file(target, content, 0o640)
        assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (expected, 0o640)
        assert one_extends_other(path, content)
        assert one_extends_other(target, whole)
    assert not one_extends_other(path, b"0123x")
    assert not one_extends_other(path, b"x" + bytes(100))
    assert open_descriptors() == before
    path.write_bytes(b"012345678x")
    with pytest.raises(FileChangedError, match=str(path)):
        put_file(target, whole)
    assert target.read_bytes() == b"012"
    assert sorted(tmp_path.iterdir()) == [target, path]
    assert (file_sha256(str(target)), file_sha256(str(tmp_path))) == (hex_sha256(b"012"), None)
