"""Ledgers in a `.tar.gz`, as SageMaker packs /opt/ml/output/data and /opt/ml/model.

The archive is read as a stream. Only ledgers, journals and companions are unpacked, into numbered folders of a private
temporary folder: no folder name in an archive ever becomes a path.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from flopsd.attestation.merge.ledger_folders import (
    LEDGER_ENDING,
    OWN_ENDING,
    FoundLedger,
    Note,
    in_folder,
    is_other_json,
    most_bytes,
)
from flopsd.errors import LedgerError
from flopsd.system.bounded_streams import Unpacked
from flopsd.system.regular_files import open_regular

MAX_UNPACKED_BYTES = 64 * 1024**3
FREE_UNPACKED_BYTES = 1024**3  # allowed at any compression ratio: a checkpoint may be full of zeros
MAX_HEADER_BYTES = 4 * 1024**2  # of one member; headers are kept in memory
_CHUNK = 1 << 20
# Errors that tarfile may raise, since it does not validate headers.
_INVALID_ARCHIVE = (
    tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, TypeError, LookupError, AttributeError,
    ArithmeticError, RecursionError,
)  # fmt: skip


def in_archive(archive: Path, shown: str, temporary: Path, note: Note) -> Iterator[FoundLedger]:
    """The ledgers in `archive`, unpacked below `temporary`. Raises LedgerError for a damaged or unsafe archive."""
    try:
        folders = _unpack(archive, shown, temporary, note)
    except _INVALID_ARCHIVE as fault:
        raise LedgerError(
            f"{shown} is not a complete .tar.gz: {fault!s:.200}",
            hint="fetch it again, or unpack it and give the folder",
        ) from fault
    except OSError as fault:
        raise LedgerError(
            f"cannot unpack {shown}: {fault.strerror or fault}", hint="set TMPDIR to a folder with free disk space"
        ) from fault
    for inside, folder in sorted(folders.items()):
        yield from in_folder(folder, f"{shown}:{inside}/" if inside else f"{shown}:", note)


def _unpack(archive: Path, shown: str, temporary: Path, note: Note) -> dict[str, Path]:
    """Unpack the ledgers and their files; return the folders by their names in the archive."""
    folders: dict[str, Path] = {}
    left = MAX_UNPACKED_BYTES
    # Not mode "r|gz": it accepts a truncated file.
    with open_regular(archive) as packed:
        stream = BufferedReader(Unpacked(packed, FREE_UNPACKED_BYTES), _CHUNK)
        bounded = _Bounded(stream)
        # Any: the stubs lack `members`. Only the stream needs closing.
        members: Any = tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r|")  # noqa: SIM115
        while (member := members.next()) is not None:
            members.members.clear()  # tarfile would keep every member that it has read
            members.pax_headers.clear()
            if member.size < 0:
                raise tarfile.ReadError(f"{member.name!r:.200} has a negative size")
            bounded.left = member.size + MAX_HEADER_BYTES
            name = _safe_name(member, shown)
            most = most_bytes(name.name)
            if most is None or member.isdir():
                continue
            if not member.isfile():
                raise LedgerError(f"{shown}: {member.name!r} is a link or device", hint="unpack it and give the folder")
            if member.size > most:
                if not name.name.endswith(LEDGER_ENDING) or name.name.endswith(OWN_ENDING):
                    raise LedgerError(f"{shown}: {member.name!r} has {member.size} bytes; at most {most} are allowed")
                note(f"{shown}: skipped {member.name!r}, which is too large for a ledger")
                continue
            left -= member.size
            if left < 0:
                raise LedgerError(
                    f"{shown} contains more than {MAX_UNPACKED_BYTES} bytes of ledgers and journals",
                    hint="unpack it and give the folder",
                )
            inside = "" if name.parent == PurePosixPath(".") else str(name.parent)
            source = members.extractfile(member)
            assert source is not None  # it is a regular file
            begin = source.read(_CHUNK)
            if inside not in folders:
                if member.size <= _CHUNK and is_other_json(name.name, begin):
                    continue  # do not make a folder for each of many, such as evaluations, that hold only such a file
                folders[inside] = temporary / f"{len(folders):06d}"
                folders[inside].mkdir()
            try:
                with (folders[inside] / name.name).open("xb") as kept:
                    kept.write(begin)
                    shutil.copyfileobj(source, kept, _CHUNK)
            except FileExistsError:
                raise LedgerError(f"{shown} contains {member.name!r} twice") from None
        while stream.read(_CHUNK):  # read to the checksum at the end
            pass
    return folders


class _Bounded:
    """The stream that tarfile reads. tarfile trusts the sizes in headers and keeps headers in memory, so `left` bounds
    the bytes that it may read before the next member."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._ended, self.left = stream, False, MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if not data and self._ended:
            raise EOFError("it ends in the middle of a member")
        self._ended = not data
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.ReadError(f"a member has more than {MAX_HEADER_BYTES} bytes of headers")
        return data


def _safe_name(member: tarfile.TarInfo, shown: str) -> PurePosixPath:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name:
        raise LedgerError(
            f"{shown}: the name {member.name!r} points outside of the archive",
            hint="do not trust this archive: no tool that packs training output writes such names",
        )
    return name
