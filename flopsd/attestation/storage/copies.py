"""Copy a sealed ledger and its files to other locations, each in its own thread, within a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flopsd.attestation.ledger_files import (
    LEDGER_MODE,
    LedgerFiles,
    journal_beside,
    read_ledger_files,
    write_ledger_files,
)
from flopsd.attestation.storage import s3
from flopsd.core.dataclass import dataclass
from flopsd.errors import FileChangedError, FlopsdError, OtherFileThereError, StorageError
from flopsd.settings.data_files import companion_beside
from flopsd.settings.locations import S3Location
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.file_presence import exists
from flopsd.system.known_files import known_file, one_extends_other, put_file, sha256_of


@dataclass(slots=True)
class CopyResult:
    """The location of a copy, and why it failed; None if it succeeded. `refused`: another file is there, so another
    attempt cannot succeed. `unread`: why a requested check could not read the copy back."""

    location: Path | S3Location
    fault: str | None
    refused: bool = False
    unread: str = ""


def copy_ledger(
    ledger: Path, locations: Sequence[Path | S3Location], clock: Clock, seconds: float, *, rolling: bool = False
) -> list[CopyResult]:
    """Copy `ledger` and its files to `locations` within `seconds`; a failed copy does not raise. In S3 a rolling ledger
    has a separate name and no lock; it is not copied to a location with rolling=off."""
    wanted = [p for p in locations if not (rolling and isinstance(p, S3Location) and not p.rolling)]
    if not wanted:
        return []
    try:
        files = read_ledger_files(ledger)
    except OSError as fault:
        return [CopyResult(p, f"cannot read {ledger}: {fault.strerror}") for p in wanted]
    return copy_files(files, wanted, clock, seconds, rolling=rolling)


def copy_files(
    files: LedgerFiles, locations: Sequence[Path | S3Location], clock: Clock, seconds: float, *, rolling: bool = False,
    check: bool = False,
) -> list[CopyResult]:  # fmt: skip
    """Copy the files of a ledger, exactly the bytes whose digests `files` holds; a failed copy does not raise.
    `check`: read the copies' digests back."""

    def put(copy: CopyResult) -> None:
        there = copy.location
        if isinstance(there, S3Location):
            place = there.for_rolling() if rolling else there
            s3.upload(place, s3.objects(place, files), clock)
        else:
            write_ledger_files(there.absolute(), files, clock, only_longer=rolling)
        if check:
            copy.unread = _compared(there, files)

    return _put_everywhere(locations, put, clock, seconds)


def compare_files(
    files: LedgerFiles, locations: Sequence[Path | S3Location], clock: Clock, seconds: float
) -> list[CopyResult]:
    """Read back whether `locations` hold the files of a ledger, and copy nothing. Does not raise."""

    def look(copy: CopyResult) -> None:
        copy.unread = _compared(copy.location, files)

    return _put_everywhere(locations, look, clock, seconds)


def _compared(place: Path | S3Location, files: LedgerFiles) -> str:
    """Why the copy at `place` could not be compared, or an empty text. Raises FlopsdError, OSError if it differs."""
    if isinstance(place, S3Location):
        return s3.compare(s3.objects(place, files))
    for path, content in files.beside(place).items():
        if known_file(path).sha256 != sha256_of(content):
            raise FileChangedError(path)
    return ""


def copy_journal(
    journal: Path, companions: Mapping[str, Path], locations: Sequence[Path | S3Location], clock: Clock, seconds: float
) -> list[CopyResult]:
    """Copy a journal that could not be sealed, and its companions by name, to their places next to the ledger's; a
    failed copy does not raise.

    An existing file is kept unless it is an earlier state of this journal. In S3 the copy has the name of a rolling
    journal and no lock, so that a later seal can write another state. A result's `location` is that of the copy.
    """
    try:
        data = known_file(journal)
        found = {name: known_file(path) for name, path in companions.items()}
    except OSError as fault:
        return [CopyResult(p, f"cannot read {fault.filename}: {fault.strerror}") for p in locations]

    def put(copy: CopyResult) -> None:
        ledger = copy.location
        if isinstance(ledger, S3Location):
            rolling = ledger.for_rolling()
            copy.location = rolling.beside(journal_beside(Path(rolling.key)).name)
            here = Path(rolling.key)
            there = {rolling.beside(companion_beside(here, name).name): file for name, file in found.items()}
            s3.upload(rolling, {**there, copy.location: data}, clock)
            return
        ledger = ledger.absolute()
        path = journal_beside(ledger)
        path.parent.mkdir(parents=True, exist_ok=True)
        if exists(path) and not (path.stat().st_size <= data.size_bytes and one_extends_other(path, data)):
            ledger = ledger.with_name(f"{ledger.stem}-unsealed-{data.sha256[:8]}{ledger.suffix}")
            path = journal_beside(ledger)
        for name, file in found.items():
            put_file(companion_beside(ledger, name), file, LEDGER_MODE)
        put_file(path, data, LEDGER_MODE)
        copy.location = path

    return _put_everywhere(locations, put, clock, seconds)


def _put_everywhere(
    locations: Sequence[Path | S3Location], put: Callable[[CopyResult], None], clock: Clock, seconds: float
) -> list[CopyResult]:
    """Run `put` for each location; it may change the location to that of the copy."""
    copies = [CopyResult(p, f"not finished within {seconds:.0f} s") for p in locations]
    # Daemon threads: a store that hangs must not keep the process from exiting.
    threads = []
    deadline_ns = clock.boottime_ns() + round(seconds * NS_PER_S)
    for copy in copies:
        thread = threading.Thread(target=_try, args=(copy, put), daemon=True)
        try:
            thread.start()
        except RuntimeError as fault:  # no more threads
            copy.fault = str(fault)
        else:
            threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, (deadline_ns - clock.boottime_ns()) / NS_PER_S))
    return [replace(copy) for copy in copies]  # a snapshot, which late threads do not change


def _try(copy: CopyResult, put: Callable[[CopyResult], None]) -> None:
    try:
        put(copy)
        copy.fault = None
    except FlopsdError as fault:
        copy.fault, copy.refused = fault.with_hint, isinstance(fault, OtherFileThereError)
    except OSError as fault:
        copy.fault = str(fault.strerror or fault)


def refuse_failed(ledger: Path, copies: Sequence[CopyResult]) -> None:
    """Raises StorageError naming every failed copy and the reason."""
    failed = [f"NOT COPIED to {copy.location}: {copy.fault}" for copy in copies if copy.fault is not None]
    if failed:
        raise StorageError(*failed, hint=f"{ledger} itself is complete; `flopsd seal` copies the same bytes again")
