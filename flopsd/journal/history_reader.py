"""The history of a journal whose lines are given one by one, by code that reads them for another purpose, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import extend
from flopsd.errors import JournalDamagedError
from flopsd.journal.codes import CodeChecker
from flopsd.journal.framing import JournalLine


class HistoryReader:
    """Takes lines until the first fault in their content, which only `history` raises: whether the lines are of the
    right journal at all is known after the last line, and is the more important thing to report."""

    def __init__(
        self, secrets: Iterable[bytes | bytearray] = (), check_seal: Callable[[EarlierSeal], object] | None = None
    ) -> None:
        """`check_seal` gets each seal that the journal lists, and may raise JournalDamagedError."""
        self._history, self._codes, self._check_seal = History(), CodeChecker(secrets), check_seal
        self._fault: JournalDamagedError | None = None

    def take(self, line: JournalLine) -> None:
        """Take in the next line."""
        if self._fault is not None:
            return
        try:
            record = line.record()
            self._codes.check(line, record)
            extend(self._history, record)
            if self._check_seal is not None and record["kind"] == "sealed" and (seal := self._history.seals.newest):
                self._check_seal(seal)
        except JournalDamagedError as fault:
            self._fault = fault

    def history(self) -> History:
        """Return the history of all lines. Raises JournalDamagedError, as `read_history` does and for wrong codes."""
        if self._fault is not None:
            raise self._fault
        return self._history
