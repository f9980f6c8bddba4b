"""An earlier attempt's journal, taken from where its ledgers were copied: a Spot stop takes machine and disk away.

The journal that was saved is continued as one run, so that a ledger of the last attempt speaks of all of them and the
time that no saved record tells of becomes a gap. One that cannot be continued stays a ledger of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flopsd.attestation.ledger_files import journal_beside, peaks_beside, public_key_beside
from flopsd.core.envelope import parse_envelope
from flopsd.core.ledger.history import History, read_history
from flopsd.core.ledger.journal_codec import Record
from flopsd.errors import FlopsdError, JournalDamagedError
from flopsd.journal.framing import GENESIS, JournalLine, read_lines
from flopsd.journal.journal import Recovery, also
from flopsd.journal.state_dir import StateDir
from flopsd.system.atomic_files import replace_file

log = logging.getLogger("flopsd")


@dataclass(frozen=True, slots=True)
class Saved:
    """A journal that was found beside a ledger: its good lines, and what they tell."""

    ledger: Path
    data: bytes
    history: History
    head: bytes

    @property
    def last(self) -> tuple[str, int]:
        return self.history.incarnations[-1].last_utc, len(self.data)


def restore(
    folder: StateDir, places: Sequence[Path], ledger: Path, run: str, node: str, peaks_sha256: str
) -> Recovery | None:
    """Where `folder` has no journal, put the newest one of this run and node there that lies beside a ledger at
    `places`; what the journal says of it. Others that this one does not continue are laid beside `ledger`.

    A folder that cannot be read costs its account and never the run.
    """
    if folder.journal.exists() and folder.journal.stat().st_size:
        return None  # this machine knows at least as much
    found = [saved for place in places for saved in _saved(place) if _is_of(saved, run, node)]
    if not found:
        return None
    newest = max(found, key=lambda saved: saved.last)
    fits = newest.history.incarnations[-1].begin["peaks_sha256"] == peaks_sha256
    for saved in found:
        if not (fits and newest.data.startswith(saved.data)):
            _keep_beside(saved, ledger)
    if not fits:
        log.warning("%s was metered with another peak table: a ledger of its own stays of it", newest.ledger)
        return None
    replace_file(folder.journal, newest.data)
    folder.journal.chmod(0o600)
    told = f"restored from {newest.ledger.name}: {newest.history.records} records, {_seal_of(newest)}"
    log.info("%s; this run continues it", told)
    return also(None, told)


def _saved(place: Path) -> Iterator[Saved]:
    """What lies at `place`, and what was put aside there when another run or key came."""
    for ledger in sorted({place, *place.parent.glob(f"{place.stem}-until-*{place.suffix}")}):
        try:
            yield _read(ledger)
        except FileNotFoundError:
            pass
        except (OSError, FlopsdError) as fault:
            log.error("NOT RESTORED: %s: %s", journal_beside(ledger), fault)


def _read(ledger: Path) -> Saved:
    """Raises OSError, JournalDamagedError."""
    data = journal_beside(ledger).read_bytes()
    last = JournalLine(b"", 0, GENESIS, 0)

    def good() -> Iterator[Record]:
        nonlocal last
        try:
            for last in read_lines(io.BytesIO(data)):
                yield last.record()
        except JournalDamagedError as fault:
            log.warning("of %s only the first %d records are whole: %s", journal_beside(ledger), last.number, fault)

    history = read_history(good())
    if not history.incarnations:
        raise JournalDamagedError("it holds no whole record")
    return Saved(ledger, data[: last.end], history, last.head)


def _is_of(saved: Saved, run: str, node: str) -> bool:
    return (saved.history.run, saved.history.node) == (run, node)


def _seal_of(saved: Saved) -> str:
    """Whether the ledger beside it seals it. Only digests are compared: which keys are to be trusted is for whoever
    verifies, and the libraries for that are not for a process that meters."""
    try:
        told: Any = json.loads(parse_envelope(saved.ledger.read_bytes()).payload)["predicate"]["method"]["journal"]
        size = int(told["bytes"])
        if size <= len(saved.data) and hashlib.sha256(saved.data[:size]).hexdigest() == told["sha256"]:
            return "whose seal fits" if size == len(saved.data) else f"of which {told['records']} are sealed"
    except (OSError, ValueError, KeyError, TypeError, FlopsdError):
        pass
    return "NOT SEALED: no ledger beside them fits"


def _keep_beside(saved: Saved, ledger: Path) -> None:
    """Another attempt's ledger, whole, for `merge` to find beside the one of this attempt."""
    kept = ledger.with_name(f"{ledger.stem}-attempt-{saved.head.hex()[:8]}{ledger.suffix}")
    try:
        for where in (journal_beside, public_key_beside, peaks_beside, Path):
            source = where(saved.ledger)
            if source.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                replace_file(where(kept), source.read_bytes())
    except OSError as fault:
        log.error("%s could not be laid beside %s: %s", saved.ledger, ledger, fault.strerror)
