"""Ledgers in a `.tar.gz`, as SageMaker packs /opt/ml/output/data and /opt/ml/model.

The archive is read as a stream. Of its members only ledgers, journals and peak tables are kept, under names of
our own in a private temporary folder: no name in an archive ever becomes a path.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from flopsd.attestation.merge.ledger_folders import (
    LEDGER_ENDING,
    OWN_ENDING,
    FoundLedger,
    Note,
    in_folder,
    most_bytes,
)
from flopsd.errors import LedgerError

MAX_UNPACKED_BYTES = 64 * 1024**3
MAX_HEADER_BYTES = 4 * 1024**2  # of one member; they lie in memory
_CHUNK = 1 << 20
# tarfile parses what the headers say without asking whether it can be so.
_NO_ARCHIVE = (
    tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, TypeError, LookupError, AttributeError,
    ArithmeticError, RecursionError,
)  # fmt: skip


def in_archive(archive: Path, shown: str, temporary: Path, note: Note) -> Iterator[FoundLedger]:
    """The ledgers in `archive`, unpacked below `temporary`.

    Raises LedgerError for one that is not whole or not safe.
    """
    try:
        folders = _unpack(archive, shown, temporary, note)
    except _NO_ARCHIVE as fault:
        raise LedgerError(
            f"{shown} is not a whole .tar.gz: {fault!s:.200}", hint="fetch it again, or unpack it and name the folder"
        ) from fault
    except OSError as fault:
        raise LedgerError(
            f"cannot unpack {shown}: {fault.strerror or fault}", hint="let TMPDIR name a folder on a disk with room"
        ) from fault
    for inside, folder in sorted(folders.items()):
        yield from in_folder(folder, f"{shown}:{inside}/" if inside else f"{shown}:", note)


def _unpack(archive: Path, shown: str, temporary: Path, note: Note) -> dict[str, Path]:
    """Folders by the names that they have in the archive."""
    folders: dict[str, Path] = {}
    left = MAX_UNPACKED_BYTES
    # Not mode "r|gz": that one takes a cut file for a short one.
    with gzip.open(archive, "rb") as stream:
        bounded = _Bounded(stream)
        # Any: what it keeps of the members is in no stub. There is nothing to close but the stream.
        members: Any = tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r|")  # noqa: SIM115
        while (member := members.next()) is not None:
            members.members.clear()  # tarfile keeps all that it met
            members.pax_headers.clear()
            if member.size < 0:
                raise tarfile.ReadError(f"{member.name!r:.200} has a size below zero")
            bounded.left = member.size + MAX_HEADER_BYTES
            name = _safe_name(member, shown)
            most = most_bytes(name.name)
            if most is None or member.isdir():
                continue
            if not member.isfile():
                raise LedgerError(
                    f"{shown} holds {member.name!r} as a link or device", hint="unpack it and name the folder"
                )
            if member.size > most:
                if not name.name.endswith(LEDGER_ENDING) or name.name.endswith(OWN_ENDING):
                    raise LedgerError(
                        f"{member.name!r} in {shown} has {member.size} bytes, more than the {most} allowed"
                    )
                note(f"{member.name!r} in {shown} is too big for a ledger and was passed over")
                continue
            left -= member.size
            if left < 0:
                raise LedgerError(
                    f"{shown} holds more than {MAX_UNPACKED_BYTES} bytes of ledgers and journals",
                    hint="unpack it and name the folder",
                )
            inside = "" if name.parent == PurePosixPath(".") else str(name.parent)
            if inside not in folders:
                folders[inside] = temporary / f"{len(folders):06d}"
                folders[inside].mkdir()
            source = members.extractfile(member)
            assert source is not None  # it is a regular file
            try:
                with (folders[inside] / name.name).open("xb") as kept:
                    _copy(source, kept)
            except FileExistsError:
                raise LedgerError(f"{shown} holds {member.name!r} twice") from None
        while stream.read(_CHUNK):  # to the end, where the checksum is
            pass
    return folders


class _Bounded:
    """What tarfile reads from. It believes the sizes in headers, skips to the end of a member behind that of the file,
    and holds headers in memory: `left` is what it may read until the next member is there."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self._ended, self.left = stream, False, MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if not data and self._ended:
            raise EOFError("it ends within a member")
        self._ended = not data
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.ReadError(f"a member has more than {MAX_HEADER_BYTES} bytes of headers")
        return data


def _safe_name(member: tarfile.TarInfo, shown: str) -> PurePosixPath:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name:
        raise LedgerError(
            f"{shown} holds the name {member.name!r}, which leads out of it",
            hint="no packer of training outputs makes such an archive: do not trust it",
        )
    return name


def _copy(source: IO[bytes], kept: IO[bytes]) -> None:
    while chunk := source.read(_CHUNK):
        kept.write(chunk)
