"""Compare the journal with checkpoint lines that left the host: lines in a log service cannot be edited on the host.

A line on the journal's chain proves that the journal up to that record existed when the log service received the line.
A line off the chain proves that this is not the journal of that time, unless a process other than the daemon printed
it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from flopsd.attestation.foreign_lines import ForeignLines, LineJudge
from flopsd.attestation.log_export import Anchor, SkippedLines, find_anchors
from flopsd.core.dataclass import dataclass
from flopsd.core.figures import Figures
from flopsd.core.ledger.growing_run import GrowingRun
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import extend
from flopsd.core.ledger.segments import JournalFacts
from flopsd.core.peaks import PeakTable
from flopsd.core.values import utc_ns
from flopsd.errors import NotVerifiedError
from flopsd.journal.framing import JournalLine
from flopsd.journal.reading import read_journal
from flopsd.system.sha256 import sha256

ANOTHER_JOURNAL = (
    "a second journal of this run and node exists, or this one was altered: ask for the ledger of the other one; "
    "a restarted job continues its journal only if its --state-dir survives the restart"
)
_NEVER, _SAID_BYTES = 1 << 62, 16


@dataclass(frozen=True, slots=True)
class AnchorComparison:
    """Checkpoint lines found in logs, all of them on the journal's chain."""

    lines: int
    first: Anchor
    last: Anchor
    anchors: int  # distinct checkpoints
    behind: int  # records sealed after the last checkpoint line
    skipped: SkippedLines
    lag_ms: tuple[int, int] | None  # minimum and maximum time from a record to the ingestion of its line
    foreign: ForeignLines  # printed by a process other than the daemon

    def for_json(self) -> dict[str, Any]:
        return {
            "lines": self.lines,
            "anchors": self.anchors,
            "first": self.first.for_json(),
            "last": self.last.for_json(),
            "recordsBehind": self.behind,
            "unreadableLines": self.skipped.unreadable,
            "linesOfOthers": self.skipped.others,
            "others": list(self.skipped.names),
            "foreignLines": self.foreign.count,
            "firstForeign": None if self.foreign.first is None else self.foreign.first.for_json(),
            "ingestionLagSeconds": None if self.lag_ms is None else [f"{ms / 1000:.3f}" for ms in self.lag_ms],
        }


@dataclass(slots=True)
class _Chain:
    """The head and end of every record of a journal, in 40 bytes each, and the records that begin a daemon start."""

    heads: bytearray = field(default_factory=bytearray)
    ends: array[int] = field(default_factory=lambda: array("Q"))
    begins: list[int] = field(default_factory=list)

    def add(self, line: JournalLine) -> None:
        self.heads += line.head
        self.ends.append(line.end)
        if b'"kind":"begin"' in line.body and line.record().get("kind") == "begin":
            self.begins.append(line.number)

    def head(self, records: int) -> str:
        return self.heads[32 * (records - 1) : 32 * records].hex()


class _Found:
    """The daemon's lines in logs, in 24 bytes a record: a digest of the line, and when the line was first received. The
    lines of a run of months do not fit into memory."""

    def __init__(self, records: int) -> None:
        self._said, self._ingested_ms = bytearray(_SAID_BYTES * (records + 1)), array("q", bytes(8 * (records + 1)))
        self.lines = self.anchors = 0
        self.first: Anchor | None = None
        self.last: Anchor | None = None

    def add(self, anchor: Anchor) -> bool:
        """Add a line about a record of the journal; return False if an earlier line of that record contradicts it."""
        at, said = anchor.records, _said(anchor.incarnation, anchor.figures)
        is_new, ingested_ms = not self.has(at), anchor.ingested_ms or _NEVER
        if not is_new and self._said_of(at) != said:
            return False
        is_earliest = is_new or ingested_ms < self._ingested_ms[at]
        if is_new:
            self.anchors += 1
            self._said[_SAID_BYTES * at : _SAID_BYTES * (at + 1)] = said
        if is_earliest:
            self._ingested_ms[at] = ingested_ms
            self.first = anchor if self.first is None or at <= self.first.records else self.first
            self.last = anchor if self.last is None or at >= self.last.records else self.last
        return True

    def has(self, records: int) -> bool:
        return self._ingested_ms[records] != 0

    def says(self, records: int, incarnation: int, figures: Figures) -> bool:
        """Whether the line of the record states this daemon start and these figures."""
        return self._said_of(records) == _said(incarnation, figures)

    def ingested_ms(self, records: int) -> int | None:
        found = self._ingested_ms[records]
        return found if 0 < found < _NEVER else None

    def _said_of(self, records: int) -> bytes:
        return bytes(self._said[_SAID_BYTES * records : _SAID_BYTES * (records + 1)])


def _said(incarnation: int, figures: Figures) -> bytes:
    text = f"{incarnation} {figures.low_flop} {figures.measured_flop} {figures.high_flop}"
    return sha256(text.encode("ascii")).digest()[:_SAID_BYTES]


def compare_anchors(
    files: Sequence[Path], journal: Path, facts: JournalFacts, history: History, table: PeakTable,
    secrets: Sequence[bytes],
) -> AnchorComparison:  # fmt: skip
    """Compare the checkpoint lines of the journal's run and node in `files` with the verified `journal`. Where the
    secret of a daemon start is among `secrets`, lines that another process printed are first set apart. Raises
    NotVerifiedError if a line is not on the journal's chain or has other figures, or if there is none."""
    chain = _Chain()
    for line in read_journal(journal):
        chain.add(line)
    judge, foreign = LineJudge(history, secrets, chain.begins, len(chain.ends)), ForeignLines()
    skipped, found = SkippedLines(), _Found(len(chain.ends))

    def lines(skipped: SkippedLines) -> Iterator[Anchor]:
        return (
            one for file in files for one in find_anchors(file, history.run, history.node, skipped, history.segment)
        )

    def line_of(records: int) -> Anchor:
        """The daemon's first line of a record, for a message; read again, since no line is kept."""
        return next(one for one in lines(SkippedLines()) if one.records == records and not judge.is_foreign(one))

    for anchor in lines(skipped):
        found.lines += 1
        if judge.is_foreign(anchor):
            foreign.add(anchor)
            continue
        _check(anchor, chain)
        if not found.add(anchor):
            earlier = line_of(anchor.records)
            raise NotVerifiedError(
                f"{anchor.where} and {earlier.where} contradict each other about record {anchor.records}"
            )
    if found.first is None and foreign.count:
        foreign.refuse_unexplained()
    if found.first is None or found.last is None:
        raise NotVerifiedError(
            f"{_names(files)}: no checkpoint line of run {history.run!r} on node {history.node!r}{_seen(skipped)}",
            hint="give the log with the daemon's output from the start of the run; without --anchors "
            "`verify` cannot tell when the journal existed",
        )
    lag_ms = _check_figures(journal, facts, table, found, foreign, line_of)
    behind = max(0, facts.records - found.last.records)
    return AnchorComparison(found.lines, found.first, found.last, found.anchors, behind, skipped, lag_ms, foreign)


def _check(anchor: Anchor, chain: _Chain) -> None:
    have = len(chain.ends)
    if anchor.records > have:
        raise NotVerifiedError(
            f"{anchor.where} is about record {anchor.records}, the journal has {have} records: it was truncated or "
            "replaced by an older one, or the run continued after the seal",
            hint="ask for the last ledger of the run",
        )
    if anchor.records < 1 or chain.head(anchor.records) != anchor.head_sha256:
        head = chain.head(anchor.records) if anchor.records else "none"
        raise NotVerifiedError(
            f"{anchor.where} is not on the journal's chain: its hash of record {anchor.records} is "
            f"{anchor.head_sha256}, the journal's is {head}",
            hint=ANOTHER_JOURNAL,
        )
    if chain.ends[anchor.records - 1] != anchor.size_bytes:
        raise NotVerifiedError(
            f"{anchor.where} was altered: record {anchor.records} ends at byte {chain.ends[anchor.records - 1]}, "
            f"not {anchor.size_bytes}"
        )


def _check_figures(
    journal: Path, facts: JournalFacts, table: PeakTable, found: _Found, foreign: ForeignLines,
    line_of: Callable[[int], Anchor],
) -> tuple[int, int] | None:  # fmt: skip
    """Recompute the figures of each line from the journal up to its record, and refuse `foreign` lines if the daemon's
    own lines are missing. Return the minimum and maximum milliseconds from a record to the ingestion of its line."""
    history, run, head, least, most = History(), GrowingRun(table), "", _NEVER, -_NEVER
    for line in read_journal(journal):
        if line.number > facts.records:
            break  # not sealed
        record = line.record()
        extend(history, record)
        head, is_printed, ingested_ms = line.head.hex(), found.has(line.number), found.ingested_ms(line.number)
        if line.code and record["kind"] == "checkpoint":
            written_ms = _unix_ms(record["utc"])
            foreign.checkpoint(record["incarnation"], line.number, written_ms, ingested_ms, is_printed=is_printed)
        if not is_printed:
            continue
        incarnation, figures = len(history.incarnations), run.figures(history)
        if not found.says(line.number, incarnation, figures):
            anchor = line_of(line.number)
            raise NotVerifiedError(
                f"{anchor.where} has {_text(anchor.figures)} in daemon start {anchor.incarnation}, the journal up to "
                f"record {anchor.records} gives {_text(figures)} in daemon start {incarnation}"
            )
        if ingested_ms is not None and (written_ms := _unix_ms(history.incarnations[-1].last_utc)) is not None:
            least, most = min(least, ingested_ms - written_ms), max(most, ingested_ms - written_ms)
    if head != facts.head_sha256:
        raise NotVerifiedError(f"{journal} was changed during verification")
    foreign.refuse_unexplained()
    return None if least > most else (least, most)


def _text(figures: Figures) -> str:
    named = (("low", figures.low_flop), ("measured", figures.measured_flop), ("high", figures.high_flop))
    return ", ".join(f"{name} {'unknown' if flop is None else flop}" for name, flop in named)


def _unix_ms(utc: str) -> int | None:
    """Unix milliseconds of a time in a record; None if it is not a time."""
    try:
        return utc_ns(utc) // 1_000_000
    except ValueError:
        return None


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")


def _seen(skipped: SkippedLines) -> str:
    if skipped.unreadable:
        return f"; {skipped.unreadable} of its lines are damaged"
    names = "; ".join(skipped.names)
    return f"; {skipped.others} of other runs, nodes or segments, such as {names!r}" if names else ""
