"""Checkpoint lines that another process printed. Where the daemon's secret is disclosed, their codes give them away.

If the log shows that the daemon was printing, a foreign line refutes nothing: the job, or another writer to the log,
added it. If the daemon's own lines are missing, it refutes the journal as any line off the chain does: a sender who
rewrites the whole journal with his own secret makes every line of the true daemon foreign.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from flopsd.attestation.log_export import Anchor
from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.history import History
from flopsd.core.ledger.statement import secrets_in
from flopsd.errors import NotVerifiedError
from flopsd.journal.codes import by_sha256, code, first_key, next_key, print_key

# A daemon's line may be about a record after the end of the ledger, but not many weeks of checkpoints after it.
FURTHER_LINES, FURTHER_LINES_IN_ALL = 100_000, 1_000_000
LATE_MS = 600_000


class _PrintKeys:
    """The keys of the lines that one daemon start printed, 32 bytes each, computed as far as they are needed."""

    def __init__(self, secret: bytes, start: int, lines: int) -> None:
        self._next, self._keys, self.lines = first_key(secret, start), bytearray(), lines

    @property
    def further(self) -> int:
        return max(0, len(self._keys) // 32 - self.lines)

    def at(self, index: int) -> bytes:
        while len(self._keys) <= 32 * index:
            self._keys += print_key(self._next)
            self._next = next_key(self._next)
        return bytes(self._keys[32 * index : 32 * index + 32])


class LineJudge:
    """Decides which lines the daemon printed: all those of a daemon start whose secret is not disclosed."""

    def __init__(self, history: History, secrets: Sequence[bytes], begins: Sequence[int], records: int) -> None:
        """`begins`: the lines of the journal that begin a daemon start; `records`: how many lines it has."""
        known, ends = secrets_in(history, by_sha256(secrets)), [*begins[1:], records + 1]
        self._starts: dict[int, _PrintKeys] = {}
        for incarnation, begin, end in zip(history.incarnations, begins, ends, strict=False):
            if (secret := known.get(incarnation.code_secret_sha256 or "")) is not None:
                self._starts[incarnation.number] = _PrintKeys(secret, incarnation.number, end - begin)

    def is_foreign(self, anchor: Anchor) -> bool:
        """Whether another process printed the line. Raises NotVerifiedError for more work than a daemon can cause."""
        keys = self._starts.get(anchor.incarnation)
        if keys is None:
            return False
        if anchor.code is None or anchor.code_index >= keys.lines + FURTHER_LINES:
            return True
        right = code(keys.at(anchor.code_index), anchor.text.encode("utf-8"))
        if sum(start.further for start in self._starts.values()) > FURTHER_LINES_IN_ALL:
            raise NotVerifiedError(f"{anchor.where}: too many lines are about records that the journal lacks")
        return not hmac.compare_digest(right.hex(), anchor.code)


@dataclass(slots=True)
class _OfStart:
    """Foreign lines of one daemon start, and which of the daemon's own lines the log holds."""

    first: Anchor
    last_ms: int | None  # the latest ingestion
    printed: bool = False
    missing: tuple[int, int | None] | None = None  # the first checkpoint without a line, and when it was written


class ForeignLines:
    """The foreign lines of a log."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Anchor | None = None
        self._starts: dict[int, _OfStart] = {}

    def add(self, anchor: Anchor) -> None:
        self.count, self.first = self.count + 1, self.first or anchor
        of = self._starts.setdefault(anchor.incarnation, _OfStart(anchor, anchor.ingested_ms))
        if anchor.ingested_ms is not None:
            of.last_ms = max(anchor.ingested_ms, of.last_ms or 0)

    def checkpoint(
        self, start: int, number: int, written_ms: int | None, received_ms: int | None, *, is_printed: bool
    ) -> None:
        """Take a checkpoint with a code: record `number`, whether the log has the daemon's line of it, and when that
        line was received. Raises NotVerifiedError."""
        if (of := self._starts.get(start)) is None:
            return
        if not is_printed:
            of.missing = of.missing or (number, written_ms)
            return
        of.printed = True
        if of.missing is not None:
            _refuse(of.first, f"the log has no line of record {of.missing[0]}")
        if (lag_ms := _lag_ms(received_ms, written_ms)) is not None and abs(lag_ms) > LATE_MS:
            _refuse(of.first, f"record {number} and the receipt of its line are {abs(lag_ms) // 60_000} minutes apart")

    def refuse_unexplained(self) -> None:
        """Raises NotVerifiedError unless the daemon kept printing for as long as foreign lines were received."""
        for start, of in self._starts.items():
            if not of.printed:
                _refuse(of.first, f"the log has no line of daemon start {start}")
            if of.missing is not None and (lag_ms := _lag_ms(of.last_ms, of.missing[1])) and lag_ms > LATE_MS:
                _refuse(of.first, f"the log has no line of record {of.missing[0]}, but has lines received later")


def _lag_ms(received_ms: int | None, written_ms: int | None) -> int | None:
    return None if received_ms is None or written_ms is None else received_ms - written_ms


def _refuse(foreign: Anchor, why: str) -> None:
    how = "has no code" if foreign.code is None else "has a code that is not the daemon's"
    raise NotVerifiedError(
        f"{foreign.where} {how}, and the log does not show that the daemon of this journal printed lines: {why}",
        hint="another process printed that line, or this journal replaced that daemon's: give the whole log, from the "
        "start of the run",
    )
