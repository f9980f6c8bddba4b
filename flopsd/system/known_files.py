"""Files, or the first part of growing files, with a known digest: copied and compared in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

from flopsd.errors import FileChangedError
from flopsd.system.atomic_files import replace_file, replacing
from flopsd.system.bounded_streams import FirstBytes
from flopsd.system.regular_files import open_regular
from flopsd.system.sha256 import fastest

_CHUNK = 1 << 20


class KnownFile(NamedTuple):
    """The first bytes of a file, which may have grown since, and the SHA-256 that they must have."""

    path: Path
    size_bytes: int
    sha256: str


Content: TypeAlias = "bytes | KnownFile"


def known_file(path: Path, most: int | None = None) -> KnownFile:
    """Return the file at `path` as it is now, or its first `most` bytes. Raises OSError."""
    digest, size = fastest()(b""), 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK if most is None else min(_CHUNK, most - size)):
            digest.update(chunk)
            size += len(chunk)
    return KnownFile(path, size, digest.hexdigest())


def open_content(content: Content) -> IO[bytes]:
    """Raises OSError."""
    if not isinstance(content, KnownFile):
        return io.BytesIO(content)
    return FirstBytes(open_regular(content.path), content.size_bytes).buffered()


def size_of(content: Content) -> int:
    return content.size_bytes if isinstance(content, KnownFile) else len(content)


def sha256_of(content: Content) -> str:
    return content.sha256 if isinstance(content, KnownFile) else fastest()(content).hexdigest()


def put_file(path: Path, content: Content, mode: int | None = None) -> None:
    """Replace `path` atomically and durably by `content`. Raises OSError, FileChangedError."""
    if isinstance(content, bytes):
        replace_file(path, content, mode)
        return
    digest = fastest()(b"")
    with open_content(content) as source, replacing(path, mode) as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
        if digest.hexdigest() != content.sha256:
            raise FileChangedError(content.path)


def refuse_changed(contents: Iterable[Content]) -> None:
    """Raises FileChangedError for a file that no longer has its digest, OSError."""
    for content in contents:
        if isinstance(content, KnownFile) and known_file(content.path, content.size_bytes) != content:
            raise FileChangedError(content.path)


def one_extends_other(path: Path, content: Content) -> bool:
    """Whether the shorter of a file and a content is the beginning of the longer. Raises OSError."""
    left = min(path.stat().st_size, size_of(content))
    with open_regular(path) as first, open_content(content) as second:
        while chunk := first.read(min(left, _CHUNK)):
            if second.read(len(chunk)) != chunk:
                return False
            left -= len(chunk)
    return True
