"""Carries a sealed ledger and the files beside it to other places, each in a thread of its own, within a time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flopsd.attestation.ledger_files import (
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
    """One place and what became of it: `fault` is why nothing is there, None that it is."""

    place: Path | S3Location
    fault: str | None


def copy_ledger(
    ledger: Path, places: Sequence[Path | S3Location], clock: Clock, seconds: float, *, rolling: bool = False
) -> list[CopyResult]:
    """Copy what lies at `ledger` to `places` within `seconds`; never raises for one of them.

    A rolling ledger has a name of its own in S3, without a lock, and none where rolling=off was asked for.
    """
    wanted = [p for p in places if not (rolling and isinstance(p, S3Location) and not p.rolling)]
    if not wanted:
        return []
    try:
        exhibits = _read(ledger)
    except OSError as fault:
        return [CopyResult(p, f"cannot read {ledger}: {fault.strerror}") for p in wanted]

    def put(there: Path | S3Location) -> Path | S3Location:
        if isinstance(there, Path):
            write_ledger_files(there.absolute(), exhibits, clock, only_longer=rolling)
        else:
            s3.upload(_objects(there.for_rolling() if rolling else there, exhibits), clock)
        return there

    return _put_everywhere(wanted, put, clock, seconds)


def copy_journal(journal: Path, places: Sequence[Path | S3Location], clock: Clock, seconds: float) -> list[CopyResult]:
    """Copy a journal that nobody could seal to where it would lie beside its ledger at `places`; never raises for one.

    What lies there is kept, unless it is an earlier state of this very journal. In S3 it has the name of a rolling one,
    without a lock, so that a seal to come is free to lay another state there. A copy's `place` is where it lies.
    """
    try:
        data = journal.read_bytes()
    except OSError as fault:
        return [CopyResult(p, f"cannot read {journal}: {fault.strerror}") for p in places]

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
        replace_file(path, data)
        return path

    return _put_everywhere(places, put, clock, seconds)


def _put_everywhere(
    places: Sequence[Path | S3Location],
    put: Callable[[Path | S3Location], Path | S3Location],
    clock: Clock,
    seconds: float,
) -> list[CopyResult]:
    """`put` gives where the copy lies."""
    copies = [CopyResult(p, f"not done within {seconds:.0f} s") for p in places]
    threads = [
        # Not joined at exit: a store that hangs must not hold up a job that has to end.
        threading.Thread(target=_try, args=(copy, put), daemon=True)
        for copy in copies
    ]
    deadline_ns = clock.boottime_ns() + round(seconds * NS_PER_S)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, (deadline_ns - clock.boottime_ns()) / NS_PER_S))
    return [CopyResult(copy.place, copy.fault) for copy in copies]  # as it stands now, whatever a late thread does


def _try(copy: CopyResult, put: Callable[[Path | S3Location], Path | S3Location]) -> None:
    try:
        copy.place = put(copy.place)
        copy.fault = None
    except FlopsdError as fault:
        copy.fault = f"{fault}; {fault.hint}" if fault.hint else str(fault)
    except OSError as fault:
        copy.fault = str(fault.strerror or fault)


def _objects(ledger: S3Location, exhibits: LedgerFiles) -> dict[S3Location, bytes]:
    """The files of a ledger by their objects; itself last, so that what it needs is there when it appears."""
    here = Path(ledger.key)
    files = {journal_beside(here): exhibits.journal, public_key_beside(here): exhibits.public_key}
    if exhibits.peaks is not None:
        files[peaks_beside(here)] = exhibits.peaks
    return {ledger.beside(path.name): data for path, data in files.items()} | {ledger: exhibits.ledger}


def _read(ledger: Path) -> LedgerFiles:
    peaks = peaks_beside(ledger)
    return LedgerFiles(
        ledger.read_bytes(),
        journal_beside(ledger).read_bytes(),
        public_key_beside(ledger).read_bytes(),
        peaks.read_bytes() if peaks.exists() else None,
    )


def refuse_failed(ledger: Path, copies: Sequence[CopyResult]) -> None:
    """Raises StorageError naming every place that has no copy, and why."""
    failed = [f"NOT COPIED to {copy.place}: {copy.fault}" for copy in copies if copy.fault is not None]
    if failed:
        raise StorageError("\n".join(failed), hint=f"the ledger is whole at {ledger}; `flopsd seal` copies it again")
