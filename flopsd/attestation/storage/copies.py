"""Copy a sealed ledger and its files to other locations, each in its own thread, within a time limit."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flopsd.attestation.ledger_files import (
    LEDGER_MODE,
    LedgerFiles,
    journal_beside,
    peaks_beside,
    public_key_beside,
    write_ledger_files,
)
from flopsd.attestation.storage import s3
from flopsd.errors import FlopsdError, StorageError
from flopsd.settings.locations import S3Location
from flopsd.system.atomic_files import replace_file
from flopsd.system.clock import NS_PER_S, Clock


@dataclass(slots=True)
class CopyResult:
    """The location of a copy, and why it failed; None if it succeeded."""

    location: Path | S3Location
    fault: str | None


def copy_ledger(
    ledger: Path, locations: Sequence[Path | S3Location], clock: Clock, seconds: float, *, rolling: bool = False
) -> list[CopyResult]:
    """Copy `ledger` and its files to `locations` within `seconds`; a failed copy does not raise.

    A rolling ledger has a separate name in S3, without a lock, and is not copied where rolling=off is set.
    """
    wanted = [p for p in locations if not (rolling and isinstance(p, S3Location) and not p.rolling)]
    if not wanted:
        return []
    try:
        files = _read(ledger)
    except OSError as fault:
        return [CopyResult(p, f"cannot read {ledger}: {fault.strerror}") for p in wanted]

    def put(there: Path | S3Location) -> Path | S3Location:
        if isinstance(there, Path):
            write_ledger_files(there.absolute(), files, clock, only_longer=rolling)
        else:
            s3.upload(_objects(there.for_rolling() if rolling else there, files), clock)
        return there

    return _put_everywhere(wanted, put, clock, seconds)


def copy_journal(
    journal: Path, locations: Sequence[Path | S3Location], clock: Clock, seconds: float
) -> list[CopyResult]:
    """Copy a journal that could not be sealed to where it would lie next to its ledger; a failed copy does not raise.

    An existing file is kept unless it is an earlier state of this journal. In S3 the copy has the name of a rolling
    journal, without a lock, so that a later seal can write another state. A result's `location` is that of the copy.
    """
    try:
        data = journal.read_bytes()
    except OSError as fault:
        return [CopyResult(p, f"cannot read {journal}: {fault.strerror}") for p in locations]

    def put(ledger: Path | S3Location) -> Path | S3Location:
        if isinstance(ledger, S3Location):
            rolling = ledger.for_rolling()
            there = rolling.beside(journal_beside(Path(rolling.key)).name)
            s3.upload({there: data}, clock)
            return there
        path = journal_beside(ledger.absolute())
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not data.startswith(path.read_bytes()):
            path = path.with_name(f"{ledger.stem}-unsealed-{hashlib.sha256(data).hexdigest()[:8]}.journal.jsonl")
        replace_file(path, data, LEDGER_MODE)
        return path

    return _put_everywhere(locations, put, clock, seconds)


def _put_everywhere(
    locations: Sequence[Path | S3Location],
    put: Callable[[Path | S3Location], Path | S3Location],
    clock: Clock,
    seconds: float,
) -> list[CopyResult]:
    """Run `put`, which returns the location of the copy, for each location."""
    copies = [CopyResult(p, f"not finished within {seconds:.0f} s") for p in locations]
    # Daemon threads: a store that hangs must not keep the process from exiting.
    threads = [threading.Thread(target=_try, args=(copy, put), daemon=True) for copy in copies]
    deadline_ns = clock.boottime_ns() + round(seconds * NS_PER_S)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, (deadline_ns - clock.boottime_ns()) / NS_PER_S))
    return [CopyResult(copy.location, copy.fault) for copy in copies]  # a snapshot: late threads change nothing in it


def _try(copy: CopyResult, put: Callable[[Path | S3Location], Path | S3Location]) -> None:
    try:
        copy.location = put(copy.location)
        copy.fault = None
    except FlopsdError as fault:
        copy.fault = f"{fault}; {fault.hint}" if fault.hint else str(fault)
    except OSError as fault:
        copy.fault = str(fault.strerror or fault)


def _objects(ledger: S3Location, files: LedgerFiles) -> dict[S3Location, bytes]:
    """The files of a ledger by object; the ledger last, so that its files exist when it appears."""
    here = Path(ledger.key)
    by_path = {journal_beside(here): files.journal, public_key_beside(here): files.public_key}
    if files.peaks is not None:
        by_path[peaks_beside(here)] = files.peaks
    return {ledger.beside(path.name): data for path, data in by_path.items()} | {ledger: files.ledger}


def _read(ledger: Path) -> LedgerFiles:
    peaks = peaks_beside(ledger)
    return LedgerFiles(
        ledger.read_bytes(),
        journal_beside(ledger).read_bytes(),
        public_key_beside(ledger).read_bytes(),
        peaks.read_bytes() if peaks.exists() else None,
    )


def refuse_failed(ledger: Path, copies: Sequence[CopyResult]) -> None:
    """Raises StorageError naming every failed copy and the reason."""
    failed = [f"NOT COPIED to {copy.location}: {copy.fault}" for copy in copies if copy.fault is not None]
    if failed:
        raise StorageError(*failed, hint=f"{ledger} itself is complete; `flopsd seal` copies it again")
