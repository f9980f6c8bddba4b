"""Restores the journal of an earlier attempt from where its ledgers were copied: a Spot stop takes the disk away.

The saved journal is continued as one run, so that the ledger of the last attempt covers all attempts, and time without
a saved record becomes a gap. A journal that cannot be continued keeps its own ledger.
"""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flopsd.attestation.ledger_files import (
    LEDGER_MODE,
    companions_beside,
    journal_beside,
    kept_aside,
    names_in,
    paths_of,
)
from flopsd.core.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.start_notes import refuse_recovered
from flopsd.core.ledger.tally_records import Record
from flopsd.core.notes import Note, note
from flopsd.core.untrusted import parse_json
from flopsd.core.values import whole_number
from flopsd.errors import FlopsdError, JournalDamagedError, JournalError
from flopsd.journal.framing import GENESIS, JournalLine, read_lines
from flopsd.journal.reading import read_live
from flopsd.journal.recovery import Recovery, with_added_reason
from flopsd.journal.seal_note import MAX_NOTE_BYTES
from flopsd.journal.segments import first_record, newest_closed
from flopsd.journal.state_dir import StateDir
from flopsd.settings.words import REASONS, say
from flopsd.system.atomic_files import replace_file
from flopsd.system.known_files import KnownFile, known_file, put_file
from flopsd.system.regular_files import open_regular, read_at_most
from flopsd.system.sha256 import fastest

log = logging.getLogger("flopsd")


class Saved(NamedTuple):
    """A journal found next to a ledger: its valid lines, which are not kept in memory, and the history in them."""

    ledger: Path
    journal: KnownFile
    history: History
    head: bytes

    @property
    def last(self) -> tuple[str, int]:
        return self.history.incarnations[-1].last_utc, self.journal.size_bytes

    def begins_with(self, size_bytes: int, sha256: str) -> bool:
        """Whether `sha256` is the digest of the first `size_bytes` of the journal. Raises OSError."""
        mine = self.journal
        if not 0 <= size_bytes < mine.size_bytes:
            return (size_bytes, sha256) == (mine.size_bytes, mine.sha256)
        return known_file(mine.path, size_bytes).sha256 == sha256


def restore(
    folder: StateDir, ledgers: Sequence[Path], ledger: Path, run: str, node: str, peak_table_sha256: str
) -> Recovery | None:
    """If `folder` has neither a journal nor a closed segment of this run, put the newest saved journal of this run and
    node there. Saved journals lie next to `ledgers`, the paths of earlier copies; those that the newest does not
    continue are copied to where `ledger` lies. For a rotated run only the last segment is put there: it names the rest.

    Return what the new journal records of this. A folder that cannot be read is logged and never stops the run.
    Raises JournalError if it cannot be determined whether there is a journal.
    """
    if folder.has_journal():
        return _restored_before(folder)  # it has at least as much as any copy
    closed = newest_closed(folder)  # a kill in a rotation may leave nothing else
    if closed is not None and (first_record(closed) or {}).get("run") == run:
        return None
    everything = (saved for path in ledgers for saved in _saved(path, run))
    found = [saved for saved in everything if (saved.history.run, saved.history.node) == (run, node)]
    if not found:
        return None
    newest = max(found, key=lambda saved: saved.last)
    fits = newest.history.incarnations[-1].begin["peak_table_sha256"] == peak_table_sha256
    try:
        for saved in found:
            is_before = newest.history.continues is not None and saved.history.segment < newest.history.segment
            if not (fits and (is_before or newest.begins_with(saved.journal.size_bytes, saved.journal.sha256))):
                _keep_beside(saved, ledger)
        if fits:
            for name, file in companions_beside(newest.ledger).items():
                put_file(folder.path / name, file, 0o600)
            reason = _restored(newest)
            _note_restored(folder, newest, reason)
            put_file(folder.journal, newest.journal, 0o600)
    except (OSError, FlopsdError) as fault:
        _log_not_restored(newest.ledger, fault)
        return None
    if not fits:
        log.warning(
            "the earlier attempt in %s was metered with another peak table: this run does not continue it; merge both "
            "ledgers with `flopsd merge`",
            newest.ledger,
        )
        return None
    log.info("%s; this run continues it", say(REASONS, reason))
    return with_added_reason(None, reason)


def _note_restored(folder: StateDir, saved: Saved, reason: Note) -> None:
    """Raises OSError."""
    note_of = {"head": saved.head.hex(), "code": reason.code, "parameters": dict(reason.parameters)}
    replace_file(folder.restored, json.dumps(note_of).encode("ascii"), 0o600)


def _restored_before(folder: StateDir) -> Recovery | None:
    """Return what a new daemon start records of a journal that another restored before it was killed without recording
    anything. Any process of this user can write such a note: one that no journal may hold is ignored, since with it the
    run could neither go on nor ever be sealed."""
    try:
        noted = parse_json(read_at_most(folder.restored, MAX_NOTE_BYTES), str(folder.restored))
        reason, head = note(noted["code"], **noted["parameters"]), bytes.fromhex(noted["head"])
        found = with_added_reason(None, reason)
        refuse_recovered(found.for_journal())
    except (OSError, FlopsdError, ValueError, LookupError, TypeError):
        return None
    if reason.code not in ("restored", "restored_unsealed"):
        return None
    last = deque(read_live(folder.journal), maxlen=1)
    return found if last and last[0].head == head else None


def is_sealed_whole(restored: Recovery) -> bool:
    """Whether the ledger of a restored journal seals all of it."""
    said = dict(restored.reasons[0].parameters)
    return said.get("sealed") == said["records"]


def _saved(path: Path, run: str) -> Iterator[Saved]:
    """Yield the journals of the ledger at `path`, of the last segment of `run` there, and of ledgers that were put
    aside for another run or key."""
    numbered = re.compile(f"{re.escape(path.stem)}-([0-9]{{4,9}}){re.escape(path.suffix)}")
    try:
        names = names_in(path.parent)
    except OSError as fault:
        _log_not_restored(path, fault)
        return
    segments = [(int(match[1]), path.with_name(name)) for name in names if (match := numbered.fullmatch(name))]
    # The ledger of another run may have the name of a segment.
    last = next((one for _, one in sorted(segments, reverse=True) if _may_be_of(one, run)), None)
    places = [path, *([] if last is None else [last])]
    for ledger in sorted({*places, *(one for place in places for one in kept_aside(place, names))}):
        try:
            yield _read(ledger)
        except FileNotFoundError:
            pass
        except (OSError, FlopsdError) as fault:
            _log_not_restored(ledger, fault)


def _may_be_of(ledger: Path, run: str) -> bool:
    """Whether the journal of a segment is of `run`, or cannot be read: `_saved` logs that fault."""
    try:
        return (first_record(journal_beside(ledger)) or {"run": run}).get("run") == run
    except (OSError, JournalError):
        return True


def _log_not_restored(ledger: Path, fault: Exception) -> None:
    text = "NOT RESTORED: %s: %s; the run goes on without this earlier attempt, whose compute is not in this ledger"
    log.error(text, journal_beside(ledger), fault)


def _read(ledger: Path) -> Saved:
    """Raises OSError, JournalDamagedError."""
    path, digest, last = journal_beside(ledger), fastest()(b""), JournalLine(b"", 0, GENESIS, 0)

    def good() -> Iterator[Record]:
        nonlocal last
        try:
            with open_regular(path) as file:
                for line in read_lines(file):
                    record = line.record()
                    digest.update(line.framed())
                    last = line
                    yield record
        except JournalDamagedError as fault:
            log.warning("%s: only the first %d records are valid: %s", path, last.number, fault)

    history = read_history(good())
    if not history.incarnations:
        raise JournalDamagedError("it holds no complete record")
    return Saved(ledger, KnownFile(path, last.end, digest.hexdigest()), history, last.head)


def _restored(saved: Saved) -> Note:
    """Return the note of the ledger and how much of the journal it seals. Only digests are compared: the verifier
    decides which keys to trust, and a metering process does not load the libraries for signatures."""
    name = saved.ledger.name.encode(errors="replace").decode()  # a file name need not be UTF-8
    records = str(saved.history.records)
    try:
        envelope = parse_envelope(read_at_most(saved.ledger, MAX_ENVELOPE_BYTES))
        sealed: Any = json.loads(envelope.payload)["predicate"]["method"]["journal"]
        size = int(sealed["bytes"])
        if saved.begins_with(size, sealed["sha256"]):
            return note("restored", ledger=name, records=records, sealed=str(whole_number(sealed["records"])))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, FlopsdError):
        pass
    return note("restored_unsealed", ledger=name, records=records)


def _keep_beside(saved: Saved, ledger: Path) -> None:
    """Copy another attempt's ledger, with its files, next to this attempt's, where `flopsd merge` finds it."""
    kept = ledger.with_name(f"{ledger.stem}-attempt-{saved.head.hex()[:8]}{ledger.suffix}")
    try:
        for path, there in paths_of(saved.ledger, kept).items():
            kept.parent.mkdir(parents=True, exist_ok=True)
            put_file(there, known_file(path), LEDGER_MODE)
    except (OSError, FlopsdError) as fault:
        log.error(
            "the ledger %s of an earlier attempt could not be copied to %s: %s; it stays where it is",
            saved.ledger,
            ledger,
            fault.strerror if isinstance(fault, OSError) else fault,
        )
