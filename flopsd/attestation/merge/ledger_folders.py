"""Find ledgers in folders: which files are ledgers, and how large the files of a ledger may be."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from flopsd.attestation.ledger_files import journal_beside
from flopsd.core.companions import MAX_COMPANION_BYTES, has_companion_name
from flopsd.core.dataclass import dataclass
from flopsd.core.envelope import MAX_ENVELOPE_BYTES
from flopsd.errors import LedgerError
from flopsd.journal.segments import ENDING as JOURNAL_ENDING
from flopsd.system.file_presence import is_file
from flopsd.system.regular_files import open_regular

LEDGER_ENDING, OWN_ENDING = ".json", ".ledger.json"
# A rolling ledger, or one kept under another name.
_REPLACED = re.compile(r"(.+?)(?:\.rolling|-until-[0-9]{8}T[0-9]{12}Z(?:-[0-9]+)?)\.json")
MAX_JOURNAL_BYTES = 2 * 1024**3
ARCHIVE_ENDINGS = (".tar.gz", ".tgz")
_CHUNK = 1 << 20
_MARK = b'"payloadType"'

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FoundLedger:
    """A file that is, or claims to be, a ledger. `folder`: the user's name of its folder. `explicit`: the user named
    the file itself. A file that was not named is skipped if it is a signed statement of another kind."""

    path: Path
    folder: str
    explicit: bool

    @property
    def label(self) -> str:
        return f"{self.folder}{self.path.name}"

    def for_user(self, message: str) -> str:
        """A message with the user's name of the folder instead of a temporary one."""
        return message.replace(f"{self.path.parent}/", self.folder)

    @property
    def has_journal(self) -> bool:
        return is_file(journal_beside(self.path))


def most_bytes(name: str) -> int | None:
    """The size limit in bytes of a ledger's file with this name; None if no ledger has such a file."""
    if name.startswith("."):
        return None
    for ending, most in ((JOURNAL_ENDING, MAX_JOURNAL_BYTES), (LEDGER_ENDING, MAX_ENVELOPE_BYTES)):
        if name.endswith(ending):
            return most
    return MAX_COMPANION_BYTES if has_companion_name(name) else None


def is_same(path: Path, resolved: Path) -> bool:
    """Whether a path leads to the same file as the resolved one. False for a circular link."""
    try:
        return os.path.samefile(path, resolved)
    except OSError:
        return False


def final_of(name: str) -> str | None:
    """The name of the ledger that replaced the ledger of this name: a rolling ledger, or one kept under another name
    (`…-until-TIME.json`). None for any other name."""
    found = _REPLACED.fullmatch(name)
    return None if found is None else found[1] + LEDGER_ENDING


def is_earlier_state(ledger: Path) -> bool:
    """Whether the ledger that replaced this one lies next to it, and its journal continues this one's."""
    final = final_of(ledger.name)
    if final is None or not is_file(ledger.with_name(final)):
        return False
    try:
        return begins_with(journal_beside(ledger.with_name(final)), journal_beside(ledger))
    except OSError:
        return False


def begins_with(later: Path, earlier: Path) -> bool:
    """Whether a journal begins with the whole of an earlier one. Raises OSError."""
    with open_regular(later) as one, open_regular(earlier) as other:
        while chunk := other.read(_CHUNK):
            if one.read(len(chunk)) != chunk:
                return False
    return True


def note_skipped(earlier: int, archives: int, shown: str, note: Note) -> None:
    """Report how many earlier states of ledgers, and archives, were skipped."""
    if earlier:
        note(f"{shown}: ledgers skipped as earlier states of those next to them: {earlier}")
    if archives:
        note(f"{shown}: {archives} archives were not opened; give those that contain ledgers by name")


def in_folder(folder: Path, shown: str, note: Note, but: Path | None = None) -> Iterator[FoundLedger]:
    """The ledgers in a folder and its subfolders, in order, except `but`. Links to folders are not followed. Raises
    LedgerError for a journal without a ledger: its node would silently be left out."""
    archives = earlier = 0
    for below_name, folders, names in _walk(folder):
        folders.sort()
        below = Path(below_name)
        label = shown if below == folder else f"{shown}{below.relative_to(folder)}/"
        here = set(names)
        for name in sorted(here):
            if name.endswith(JOURNAL_ENDING) and name.removesuffix(JOURNAL_ENDING) + LEDGER_ENDING not in here:
                raise lone_journal(f"{label}{name}")
        for name in sorted(names):
            archives += name.endswith(ARCHIVE_ENDINGS)
            path = below / name
            if not name.endswith(LEDGER_ENDING) or name.startswith(".") or (but and is_same(path, but)):
                continue
            if is_earlier_state(path):
                earlier += 1
                continue
            if f"{path.stem}{JOURNAL_ENDING}" in here or looks_like_a_ledger(path):
                yield FoundLedger(path, label, explicit=False)
    note_skipped(earlier, archives, shown, note)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    try:
        yield from os.walk(folder, onerror=_unreadable)
    except RecursionError as fault:  # Python before 3.12; later versions report a path that is too long
        raise LedgerError(f"{folder} has folders that are nested too deep", hint="give the ledgers by name") from fault


def lone_journal(journal: str) -> LedgerError:
    return LedgerError(
        f"the journal {journal} has no ledger next to it",
        hint="seal it (`flopsd seal --journal`), or move it away if it belongs to another job",
    )


def is_other_json(name: str, data: bytes) -> bool:
    """Whether a file with this content is a .json file but no ledger, by the criteria of `looks_like_a_ledger`."""
    return name.endswith(LEDGER_ENDING) and not name.endswith(OWN_ENDING) and _MARK not in data


def looks_like_a_ledger(path: Path) -> bool:
    """Whether a file has a ledger's name or contains the key of a signed envelope; a damaged ledger still does."""
    if path.name.endswith(OWN_ENDING):
        return True
    tail = b""
    try:
        with open_regular(path) as file:
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
