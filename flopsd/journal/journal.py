"""The journal: an append-only, hash-chained file of JSON Lines, and the pending file next to it.

`journal.jsonl` gets a record at every checkpoint and is then synced to disk. `pending.jsonl` continues the same chain
with the totals after every reading, not synced, and is emptied at each checkpoint. A killed daemon loses at most one
sampling interval, a power cut at most one checkpoint interval. Both files can be copied while they are written.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.segments import JournalFacts
from flopsd.core.ledger.start_notes import refused_line
from flopsd.core.notes import Note, note
from flopsd.errors import JournalDamagedError, JournalError
from flopsd.journal.codes import CodeChecker, CodeKey
from flopsd.journal.framing import GENESIS, JournalLine, frame
from flopsd.journal.head import Head, KnownJournal, RequiredHead, replaced
from flopsd.journal.pending_file import MOST_AFTER_TOTALS, PendingFile
from flopsd.journal.reading import read_journal
from flopsd.journal.recovery import NOT_OURS, Recovery, cut_rest
from flopsd.journal.seal_note import noted_seal
from flopsd.journal.state_dir import StateDir
from flopsd.system.atomic_files import remove_unfinished, replacing, sync_path
from flopsd.system.file_presence import exists
from flopsd.system.regular_files import open_own, write_at
from flopsd.system.sha256 import sha256, sha256_for

log = logging.getLogger("flopsd")
_CLOSED = -1  # in place of a descriptor


class Journal:
    """Appends to one journal. The caller holds the lock of the StateDir, so there is one writer."""

    def __init__(self, state: StateDir) -> None:
        self.state, self._path = state, state.journal
        self._fd = _CLOSED
        self._pending = PendingFile(state.pending)
        self._inode = self.put_back = 0
        self._head: bytes
        self._owed: Mapping[str, Any] | None  # the newest pending record, if the disk was full at recovery
        # Gives every record from now on a code. A record from the pending file that is still owed gets none.
        self.codes: CodeKey | None = None
        self._hashing = sha256
        self._is_taken = False  # another daemon holds the folder
        self._reset()

    @property
    def head_sha256(self) -> str:
        return self._head.hex()

    def code_of_print(self, text: str) -> str | None:
        """Return the code for `text`, which is printed for the last record; None if records have no codes."""
        return None if self.codes is None else self.codes.of_print(text)

    @property
    def head(self) -> Head:
        return Head(self.records, self.head_sha256)

    def as_known_journal(self, run: str) -> KnownJournal:
        """Return what another process must find in the files to take them for this journal of `run`."""
        return KnownJournal(self.head, self._pending.newest_sha256, self._next_sha256, run)

    def recover(self, put_aside_as: str, known: KnownJournal | None = None) -> Recovery | None:
        """Open for appending after the longest valid prefix and the newest pending record.

        An incomplete last line is cut off. If complete lines are invalid, the file was altered: everything from there
        on is moved to the file `put_aside_as`, so that it is kept but not used. So is everything beyond the head of a
        `known` journal, since its writer is unknown. Raises JournalReplacedError if the known head is not in the
        journal, JournalError if the file cannot be opened.
        """
        recovery: Recovery | None = None
        cut: Note | None = None
        last = deque[tuple[bytes, JournalLine]](maxlen=MOST_AFTER_TOTALS)  # lines, and the head before each
        required = RequiredHead(None if known is None else known.head)
        try:
            for path in (self.state.journal, self.state.next_journal):
                remove_unfinished(path)
            self._open()
            self._hashing = sha256_for(os.fstat(self._fd).st_size)
            self._digest = self._hashing(b"")
            try:
                for line in read_journal(self._path, self._hashing):
                    if known is not None and not self._is_known(line, known, last):
                        cut = note("tail_not_known")
                        break
                    required.take(line)
                    last.append((self._head, line))
                    self._head, self.size_bytes, self.records = line.head, line.end, line.number
                    self._digest.update(line.framed())
            except JournalDamagedError as fault:
                cut = refused_line("line_invalid", fault)
            if cut is not None and required.is_passed:
                recovery = cut_rest(self._path, self._fd, self.size_bytes, cut, self.state.unused(put_aside_as))
            required.require(self._path)
            self._owed = self._pending.newest(self._head, last, known)
            if self._owed is None:
                self._pending.empty(self._head)
            else:
                with suppress(JournalError):  # the record stays in the pending file and is written before the next one
                    self._append_owed()
        except OSError as fault:
            raise JournalError(
                f"cannot open the journal {fault.filename or self._path}: {fault.strerror}",
                hint="the state folder must be writable, its files regular ones, and its disk not full",
            ) from fault
        return recovery

    def _is_known(self, line: JournalLine, known: KnownJournal, last: deque[tuple[bytes, JournalLine]]) -> bool:
        """Whether a line that is next in the file can be of the known journal. A daemon may be killed after it wrote a
        record and before its launcher knows: that record is the announced one, or has the known totals, which recovery
        writes."""
        if line.number <= known.head.records or line.head.hex() == known.next_sha256:
            return True
        owed = self._pending.newest(self._head, last.copy(), known)
        return owed is not None and frame(self._head, owed)[1] == line.head

    def read(self, secrets: Iterable[bytes | bytearray] = ()) -> Iterator[Mapping[str, Any]]:
        """Yield all records, including one that a full disk refused at recovery. Raises JournalDamagedError for a
        missing code, and for a wrong one in a daemon start that has one of `secrets`."""
        yield from CodeChecker(secrets).records(read_journal(self._path, self._hashing))
        if self._owed is not None:
            yield self._owed

    def newest_seal(self) -> EarlierSeal | None:
        """Return the newest seal that was noted next to the journal, if it is a seal of this journal."""
        return None if self._fd == _CLOSED else noted_seal(self.state.newest_seal, self._fd, self.size_bytes)

    @property
    def facts(self) -> JournalFacts:
        return JournalFacts(self._digest.hexdigest(), self.size_bytes, self.records, self.head_sha256)

    @property
    def is_next(self) -> bool:
        """Whether the file that is being written is the next segment's, and not the journal yet."""
        return self._path != self.state.journal

    def begin_next(self) -> None:
        """From now on write the journal of the next segment, which `take_over` makes the journal."""
        self._let_go()
        self._path = self.state.next_journal
        self._reset()

    def take_over(self, closed_as: str | None) -> None:
        """Make the next segment's journal the journal. Move the one that ended to the folder of closed segments under
        the name `closed_as`; None: it is there already. Everything is on disk before, and each step is atomic, so that
        a kill leaves either one or the other. After OSError it can be called again."""
        self._open_again()
        os.fsync(self._fd)
        if not self._has_taken_over():
            if closed_as is not None:
                self.state.move_to_segments(closed_as)
            try:
                os.replace(self.state.next_journal, self.state.journal)
            except OSError:
                if not self._has_taken_over():
                    raise
        self._path = self.state.journal
        sync_path(self.state.path)

    def _has_taken_over(self) -> bool:
        """Whether the open file is the journal. A file server may report as failed a rename that it made. Moving the
        journal again would then put this one in the place of the closed segment."""
        try:
            return os.path.samestat(os.stat(self.state.journal), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def put_aside(self, name: str) -> str:
        """Rename the file to `name` in the same folder, with a number if that exists, and start an empty one. Return
        the new name."""
        path = self.state.rename_aside(self._path, name)
        self._let_go()
        self._reset()
        self._open()
        self._pending.empty(self._head)
        return path.name

    def _reset(self) -> None:
        """Reset the state to that of an empty file."""
        self._head, self.size_bytes, self.records, self._owed = GENESIS, 0, 0, None
        self._digest = self._hashing(b"")  # over all that was written, since the chain does not cover the codes
        self._cut_first = self._is_reopened = False
        self._next_sha256: str | None = None  # the chain hash of a record that is being written

    def check_unchanged(self, *, whole: bool = False) -> None:
        """Make sure that the file is the one that was written. If another process put a file in its place, or appended
        to it, keep that file under another name, and put the journal back. `whole`: read all of it, since a change
        within may keep its size.

        Raises JournalReplacedError if what was written is lost, StateDirBusyError if another daemon holds the folder,
        OSError.
        """
        self._is_taken = True
        self.state.keep()
        self._is_taken = False
        try:
            here = os.stat(self._path)
        except FileNotFoundError:
            here = None
        is_same = here is not None and here.st_ino == self._inode and here.st_size == self.size_bytes
        if is_same and not (whole or self._is_reopened):
            return
        self._read_own()
        self._is_reopened = False
        if is_same:
            return
        kept = self.state.rename_aside(self._path, NOT_OURS)
        with replacing(self._path, 0o600) as copy:
            self._read_own(copy)
        self._let_go()
        self._open()
        self.put_back += 1
        log.error(
            "the journal %s was removed, replaced or changed by another process; it was put back%s",
            self._path,
            f", and what was found in its place is kept as {kept.name}" if exists(kept) else "",
        )

    def _read_own(self, copy: IO[bytes] | None = None) -> None:
        """Read all that was written from the open file, into `copy` if there is one. Raises JournalReplacedError if the
        file no longer has it."""
        digest, at = self._hashing(b""), 0
        while chunk := os.pread(self._fd, min(self.size_bytes - at, 1 << 20), at):
            digest.update(chunk)
            at += len(chunk)
            if copy is not None:
                copy.write(chunk)
        if digest.digest() != self._digest.digest():
            raise replaced(self._path, self.head)

    def append(self, record: Mapping[str, Any], announce: Callable[[], None] = lambda: None) -> None:
        """Write one record durably. `announce` is called before: `as_known_journal` then knows the record already.
        Raises JournalError, after which nothing of the record is left in the file."""
        self._append_owed()
        self._append(record, self.codes, announce)

    def _append_owed(self) -> None:
        if self._owed is not None:
            self._append(self._owed, None)
            self._owed = None
            self._pending.is_repeated = False  # until another record, the launcher knows the totals only there

    def _append(
        self, record: Mapping[str, Any], codes: CodeKey | None, announce: Callable[[], None] = lambda: None
    ) -> None:
        line, head = frame(self._head, record, None if codes is None else codes.code)
        try:
            self._announce(head, announce)
            self._open_again()
            if self._cut_first and os.fstat(self._fd).st_size > self.size_bytes:
                os.ftruncate(self._fd, self.size_bytes)
            self._cut_first = False
            self.check_unchanged()
            write_at(self._fd, line, self.size_bytes)
            if not self.is_next:  # the next segment's is synced when it takes over
                os.fsync(self._fd)
        except OSError as fault:
            self._undo_write()
            raise JournalError(
                f"cannot write the journal {self._path}: {fault.strerror}",
                hint="metering goes on in memory and the write is tried again; free space on that disk",
            ) from fault
        finally:
            self._next_sha256 = None
        self._head, self.size_bytes, self.records = head, self.size_bytes + len(line), self.records + 1
        self._digest.update(line)
        if codes is not None:
            codes.advance()
        self._pending.follow(self._head, record)

    def note(self, record: Mapping[str, Any], announce: Callable[[], None] = lambda: None) -> None:
        """Write the totals after a reading to the pending file, unsynced. `announce`: as in `append`. Raises
        JournalError."""
        if self._is_taken:  # the pending file is the other daemon's
            return
        try:
            self._pending.write(record, lambda head: self._announce(head, announce))
        finally:
            self._next_sha256 = None

    def _announce(self, head: bytes, announce: Callable[[], None]) -> None:
        self._next_sha256 = head.hex()
        announce()

    def close(self) -> None:
        self._let_go()
        self._pending.close()

    def _let_go(self) -> None:
        """Close the journal itself; `_open` opens it again."""
        if self._fd != _CLOSED:
            os.close(self._fd)
        self._fd = _CLOSED

    def _open_again(self) -> None:
        """Open the file again if a failed write closed it."""
        if self._fd == _CLOSED:
            self._open()
            self._is_reopened = True

    def _open(self) -> None:
        new = not exists(self._path)
        self._fd = open_own(self._path)
        if self.is_next and not self.size_bytes:
            os.ftruncate(self._fd, 0)  # an earlier start began it
        self._inode = os.fstat(self._fd).st_ino
        self._pending.open()
        if new:
            sync_path(self.state.path)

    def _undo_write(self) -> None:
        """Cut the file and close it: after a failed write or sync the page cache may hold anything."""
        try:
            os.ftruncate(self._fd, self.size_bytes)
        except OSError:
            self._cut_first = True  # the file system became read-only: cut the file once it can be written
        self._let_go()
