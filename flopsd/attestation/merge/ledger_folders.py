"""Ledgers in folders: which files are ledgers, and how big the parts of one may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flopsd.core.envelope import MAX_ENVELOPE_BYTES
from flopsd.errors import LedgerError

JOURNAL_ENDING, PEAKS_ENDING, LEDGER_ENDING, OWN_ENDING = ".journal.jsonl", ".peaks.yaml", ".json", ".ledger.json"
ROLLING_ENDING = ".rolling.json"
MAX_JOURNAL_BYTES = 2 * 1024**3
MAX_PEAKS_BYTES = 16 * 1024**2
ARCHIVE_ENDINGS = (".tar.gz", ".tgz")
_CHUNK = 1 << 20
_MARK = b'"payloadType"'

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FoundLedger:
    """A file that is, or says that it is, a ledger: where it lies, and what the user calls that folder.

    `asked` is one that was named itself; of others, signed statements of another kind are passed over.
    """

    path: Path
    place: str
    asked: bool

    @property
    def label(self) -> str:
        return f"{self.place}{self.path.name}"

    def told(self, message: str) -> str:
        """A message with the user's name of the folder, where the file lies in a temporary one."""
        return message.replace(f"{self.path.parent}/", self.place)

    @property
    def has_journal(self) -> bool:
        return self.path.with_name(self.path.stem + JOURNAL_ENDING).is_file()


def most_bytes(name: str) -> int | None:
    """How big a file of this name may be as part of a ledger; None if it is no part of any."""
    for ending, most in (
        (JOURNAL_ENDING, MAX_JOURNAL_BYTES),
        (PEAKS_ENDING, MAX_PEAKS_BYTES),
        (LEDGER_ENDING, MAX_ENVELOPE_BYTES),
    ):
        if name.endswith(ending) and not name.startswith("."):
            return most
    return None


def is_at(path: Path, place: Path) -> bool:
    """Whether a path leads to a resolved place. One that leads in a circle leads nowhere."""
    return os.path.realpath(path) == str(place)


def final_of(name: str) -> str | None:
    """The name of the ledger that its run ends with, for the name of a rolling one as stores have it."""
    return name.removesuffix(ROLLING_ENDING) + LEDGER_ENDING if name.endswith(ROLLING_ENDING) else None


def is_earlier_state(ledger: Path) -> bool:
    """Whether a rolling ledger lies beside the one that its run ended with, whose journal goes on from its own."""
    final = final_of(ledger.name)
    if final is None or not ledger.with_name(final).is_file():
        return False
    later = ledger.with_name(final.removesuffix(LEDGER_ENDING) + JOURNAL_ENDING)
    try:
        return begins_with(later, ledger.with_name(ledger.stem + JOURNAL_ENDING))
    except OSError:
        return False


def begins_with(later: Path, earlier: Path) -> bool:
    """Whether a journal begins with all of an earlier one. Raises OSError."""
    with later.open("rb") as one, earlier.open("rb") as other:
        while chunk := other.read(_CHUNK):
            if one.read(len(chunk)) != chunk:
                return False
    return True


def log_passed_over(rolling: int, shown: str, note: Note) -> None:
    """Say how many rolling ledgers were left out."""
    if rolling:
        note(f"{shown} holds {rolling} rolling ledgers whose runs went on to the ledger beside them; passed over")


def in_folder(folder: Path, shown: str, note: Note, but: Path | None = None) -> Iterator[FoundLedger]:
    """The ledgers in a folder and its folders, in order, without `but`. Links to folders are not followed.

    Raises LedgerError for a journal whose ledger is not beside it: a node that would be left out unseen.
    """
    archives = rolling = 0
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        folders.sort()
        below = Path(place)
        label = shown if below == folder else f"{shown}{below.relative_to(folder)}/"
        refuse_lone_journals(names, label)
        here = set(names)
        for name in sorted(names):
            archives += name.endswith(ARCHIVE_ENDINGS)
            path = below / name
            if not name.endswith(LEDGER_ENDING) or name.startswith(".") or (but and is_at(path, but)):
                continue
            if is_earlier_state(path):
                rolling += 1
                continue
            if f"{path.stem}{JOURNAL_ENDING}" in here or says_it_is_a_ledger(path):
                yield FoundLedger(path, label, asked=False)
    log_passed_over(rolling, shown, note)
    if archives:
        note(f"{shown} holds {archives} archives, which were not opened; name those that hold ledgers")


def refuse_lone_journals(names: list[str], shown: str) -> None:
    """Raises LedgerError for a journal that was laid beside a ledger which is gone."""
    here = set(names)
    for name in sorted(names):
        if name.endswith(JOURNAL_ENDING) and name.removesuffix(JOURNAL_ENDING) + LEDGER_ENDING not in here:
            raise LedgerError(
                f"the journal {shown}{name} has no ledger beside it",
                hint="seal it (`flopsd seal`), or take it away if it is of another job",
            )


def says_it_is_a_ledger(path: Path) -> bool:
    """Whether a file has a ledger's name or a signed envelope's words in it; a damaged one still says so."""
    if path.name.endswith(OWN_ENDING):
        return True
    tail = b""
    try:
        with path.open("rb") as file:
            for _ in range(MAX_ENVELOPE_BYTES // _CHUNK + 1):
                chunk = file.read(_CHUNK)
                if _MARK in tail + chunk:
                    return True
                if not chunk:
                    return False
                tail = chunk[-len(_MARK) :]
    except OSError as fault:
        raise LedgerError(f"cannot read {path}: {fault.strerror}") from fault
    return False


def _unreadable(fault: OSError) -> None:
    raise LedgerError(f"cannot read the folder {fault.filename}: {fault.strerror}") from fault
