"""The history of a journal whose lines are given one by one, by whoever reads them for another purpose too."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import extend
from flopsd.errors import JournalDamagedError
from flopsd.journal.codes import CodeChecker
from flopsd.journal.framing import JournalLine


class HistoryReader:
    """Takes lines until the first fault in what they say, which `history` raises: whether they are of the right journal
    at all is known only after the last one, and is the more important thing to say."""

    def __init__(
        self, secrets: Iterable[bytes | bytearray] = (), check_seal: Callable[[EarlierSeal], object] | None = None
    ) -> None:
        """`check_seal` is given each seal that the journal lists, and may raise JournalDamagedError."""
        self._history, self._codes, self._check_seal = History(), CodeChecker(secrets), check_seal
        self._fault: JournalDamagedError | None = None

    def take(self, line: JournalLine) -> None:
        """The next line."""
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
        """Of all lines. Raises JournalDamagedError, as `read_history` and for wrong codes."""
        if self._fault is not None:
            raise self._fault
        return self._history
