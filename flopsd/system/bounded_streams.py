"""Limits what is read of a file: gzip bombs, files of holes, and growing files.

Length that cost the sender nothing is refused, so that the work of reading is proportional to what was sent.
"""

from __future__ import annotations

import gzip
import io
import os
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MOST_TIMES = 100  # logs and journals are packed to a tenth or a thirtieth, zeros to a thousandth


class Unpacked(io.RawIOBase):
    """The content of a gzip file. Reading beyond `free` bytes raises BadGzipFile if that is more than `MOST_TIMES` the
    bytes read from the file."""

    def __init__(self, packed: IO[bytes], free: int) -> None:
        self._packed, self._free, self._unpacked_bytes = _Counted(packed), free, 0
        self._gzip = gzip.GzipFile(fileobj=self._packed, mode="rb")  # type: ignore[call-overload]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = int(self._gzip.readinto(buffer))
        self._unpacked_bytes += count
        if self._unpacked_bytes > max(self._free, MOST_TIMES * self._packed.count):
            raise gzip.BadGzipFile(f"it unpacks to more than {MOST_TIMES} times its size")
        return count


class WithoutHoles(io.RawIOBase):
    """A plain file. Reading raises OSError at a hole, or zeros, of more than `free` bytes."""

    def __init__(self, plain: IO[bytes], free: int) -> None:
        self._plain: Any = plain
        self._free, self._zeros = free, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = int(self._plain.readinto(buffer))
        is_zeros = count > 0 and not memoryview(buffer)[:count].tobytes().strip(b"\0")
        self._zeros = self._zeros + count if is_zeros else 0
        if self._zeros > self._free:
            raise OSError(f"it has more than {self._free} zero bytes in a row")
        return count


class FirstBytes(io.RawIOBase):
    """The first `size` bytes of a file that others may be appending to. Closing this closes the file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size, self._at = file, size, 0

    @classmethod
    def now_in(cls, file: IO[bytes]) -> io.BufferedReader:
        """Return a reader of what the file has now. Raises OSError."""
        return cls(file, os.fstat(file.fileno()).st_size).buffered()

    def buffered(self) -> io.BufferedReader:
        return io.BufferedReader(self, 1 << 18)

    def close(self) -> None:
        super().close()
        self._file.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        left = max(0, self._size - self._at)
        count = os.preadv(self._file.fileno(), [memoryview(buffer)[:left]], self._at)
        self._at += count
        return count


class _Counted:
    """A file that counts the bytes read from it, since a pipe has no position."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data
