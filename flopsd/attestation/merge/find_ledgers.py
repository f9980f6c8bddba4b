"""Find the ledgers that arguments name: files, folders, globs, archives and S3 prefixes."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from flopsd.attestation.merge.archives import in_archive
from flopsd.attestation.merge.ledger_folders import (
    ARCHIVE_ENDINGS,
    FoundLedger,
    Note,
    final_of,
    in_folder,
    is_earlier_state,
    is_same,
)
from flopsd.attestation.merge.s3_ledgers import SCHEME, in_s3
from flopsd.errors import LedgerError
from flopsd.system.file_presence import is_folder


def find_ledgers(
    arguments: Sequence[str], temporary: Path, note: Note, but: Path | None = None
) -> Generator[FoundLedger, None, None]:
    """Every ledger that `arguments` name, except `but`. A fetched or unpacked ledger is in `temporary` until the next
    is requested. Raises LedgerError for an argument without ledgers, and for unreadable files."""
    named = {Path(argument) for argument in arguments}
    for argument in arguments:
        if argument.startswith(SCHEME):
            found = in_s3(argument, temporary, note)
        else:
            try:
                paths = _paths(argument)
            except OSError as fault:
                raise LedgerError(
                    f"cannot read {fault.filename}: {fault.strerror}, and {argument!r} may have ledgers there",
                    hint="let this user read it, or give each ledger by name",
                ) from fault
            given = _without_earlier(paths, named | {Path(path) for path in paths}, note)
            kept = [path for path in given if but is None or not is_same(Path(path), but)]
            if paths and not kept:
                continue
            found = (one for path in kept for one in _at(path, temporary, note, but))
        nothing = True
        try:
            for one in found:
                nothing = False
                yield one
        except OSError as fault:
            raise LedgerError(f"cannot read {fault.filename or argument}: {fault.strerror or fault}") from fault
        if nothing:
            raise LedgerError(
                f"no ledger found in {argument}", hint="a ledger is a signed .json file with its journal next to it"
            )


def _paths(argument: str) -> list[str]:
    if os.path.exists(argument):
        return [argument]
    matches = sorted(glob.glob(argument, recursive=True)) if glob.has_magic(argument) else []
    _refuse_unreadable(argument)
    if not matches:
        raise LedgerError(f"{argument!r} does not exist and matches nothing")
    return matches


def _refuse_unreadable(pattern: str) -> None:
    """Raises OSError for a folder in which a glob may have matches, and which cannot be read: `glob` skips it."""
    parent, name = os.path.split(pattern)
    if glob.has_magic(parent):
        _refuse_unreadable(parent)
    for folder in glob.glob(parent, recursive=True) if glob.has_magic(parent) else [parent or "."]:
        try:
            os.listdir(folder) if glob.has_magic(name) else os.stat(os.path.join(folder, name))
        except OSError as fault:
            if fault.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                raise


def _without_earlier(paths: list[str], named: set[Path], note: Note) -> Iterator[str]:
    """Leave out earlier states of a ledger that is given too, for instance because a shell expanded a glob."""
    for path in paths:
        final = final_of(Path(path).name)
        if final is not None and Path(path).with_name(final) in named and is_earlier_state(Path(path)):
            note(f"skipped {path}, an earlier state of the ledger next to it")
        else:
            yield path


def _at(argument: str, temporary: Path, note: Note, but: Path | None) -> Iterator[FoundLedger]:
    path = Path(argument)
    if is_folder(path):
        yield from in_folder(path, f"{path}/", note, but)
    elif path.name.endswith(ARCHIVE_ENDINGS):
        with TemporaryDirectory(dir=temporary) as folder:
            yield from in_archive(path, argument, Path(folder), note)
    else:
        yield FoundLedger(path, "" if path.parent == Path(".") else f"{path.parent}/", explicit=True)
