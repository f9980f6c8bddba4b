"""Checkpoint lines that left the host, held against the journal: what the log service keeps cannot be edited here.

A line that lies on the chain says that the journal up to its record existed when the log service took it. One that
does not says that this is not the journal that was written then.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from flopsd.attestation.log_export import Anchor, Passed, find_anchors
from flopsd.core.ledger.history import History, extend
from flopsd.core.ledger.run_view import view_of
from flopsd.core.ledger.statement import JournalFacts
from flopsd.core.model import Figures
from flopsd.core.peaks import PeakTable
from flopsd.errors import NotVerifiedError
from flopsd.journal.journal import read_journal
from flopsd.system.clock import rfc3339

ANOTHER_JOURNAL = (
    "another journal of this run and node was begun, or this one was altered: ask for the ledger of the other one; "
    "a job that is started again continues its journal only where its --state-dir outlives it"
)


@dataclass(frozen=True, slots=True)
class AnchorComparison:
    """Checkpoint lines found in logs, all of them on the journal's chain."""

    lines: int
    first: Anchor
    last: Anchor
    anchors: int  # distinct checkpoints
    behind: int  # records sealed behind the last one
    passed: Passed
    lag_ms: tuple[int, int] | None  # from the journal's time of a record to its ingestion: least and most

    def for_json(self) -> dict[str, Any]:
        return {
            "lines": self.lines,
            "anchors": self.anchors,
            "first": _anchor_json(self.first),
            "last": _anchor_json(self.last),
            "recordsBehind": self.behind,
            "unreadableLines": self.passed.unreadable,
            "linesOfOthers": self.passed.others,
            "ingestionLagSeconds": None if self.lag_ms is None else [_seconds(ms) for ms in self.lag_ms],
        }


@dataclass(slots=True)
class _Chain:
    """Head and end of every record of a journal, in 40 bytes each."""

    heads: bytearray = field(default_factory=bytearray)
    ends: array[int] = field(default_factory=lambda: array("Q"))

    def head(self, records: int) -> str:
        return self.heads[32 * (records - 1) : 32 * records].hex()


def compare_anchors(
    files: Sequence[Path], journal: Path, facts: JournalFacts, history: History, table: PeakTable
) -> AnchorComparison:
    """Hold the checkpoint lines of the journal's run and node in `files` against the verified `journal`.

    Raises NotVerifiedError where one is not on its chain, says other figures, or where there is none.
    """
    chain = _Chain()
    for line in read_journal(journal):
        chain.heads += line.head
        chain.ends.append(line.end)
    passed, lines, found = Passed(), 0, dict[int, Anchor]()
    for file in files:
        for anchor in find_anchors(file, history.run, history.node, passed):
            lines += 1
            _hold(anchor, chain)
            earlier = found.setdefault(anchor.records, anchor)
            if not earlier.says_the_same(anchor):
                raise NotVerifiedError(
                    f"{anchor.where} and {earlier.where} say different things of record {anchor.records}"
                )
            if (anchor.ingested_ms or _NEVER) < (earlier.ingested_ms or _NEVER):
                found[anchor.records] = anchor  # repeated: when it was first taken counts
    if not found:
        raise NotVerifiedError(
            f"no checkpoint line of run {history.run!r} on node {history.node!r} is in {_names(files)}{_seen(passed)}",
            hint="give the log that the daemon's output went to, from the run's beginning; without --anchors nothing "
            "is said of when the journal existed",
        )
    lag_ms = _hold_figures(journal, facts, table, found)
    first, last = found[min(found)], found[max(found)]
    return AnchorComparison(lines, first, last, len(found), max(0, facts.records - last.records), passed, lag_ms)


_NEVER = 1 << 62


def _hold(anchor: Anchor, chain: _Chain) -> None:
    have = len(chain.ends)
    if anchor.records > have:
        raise NotVerifiedError(
            f"{anchor.where} is of record {anchor.records}, the journal has {have}: it was cut, or replaced by an "
            "older one, or the run went on after it was sealed",
            hint="ask for the run's last ledger",
        )
    if anchor.records < 1 or chain.head(anchor.records) != anchor.head_sha256:
        told = chain.head(anchor.records) if anchor.records else "none"
        raise NotVerifiedError(
            f"{anchor.where} is not on the journal's chain: after record {anchor.records} its head was "
            f"{anchor.head_sha256}, the journal's is {told}",
            hint=ANOTHER_JOURNAL,
        )
    if chain.ends[anchor.records - 1] != anchor.size_bytes:
        raise NotVerifiedError(
            f"{anchor.where} was altered: record {anchor.records} ends at byte {chain.ends[anchor.records - 1]}, "
            f"it says {anchor.size_bytes}"
        )


def _hold_figures(
    journal: Path, facts: JournalFacts, table: PeakTable, anchors: Mapping[int, Anchor]
) -> tuple[int, int] | None:
    """Recompute what each line told, from the journal up to its record. How late lines were taken: least and most."""
    history, head, lags = History(), "", list[int]()
    for line in read_journal(journal):
        if line.number > facts.records:
            break  # behind the sealed part, of which nothing is said
        record = line.record()
        extend(history, record)
        head = line.head.hex()
        if (anchor := anchors.get(line.number)) is None:
            continue
        incarnation, figures = len(history.incarnations), view_of(history, table).figures
        if (anchor.incarnation, anchor.figures) != (incarnation, figures):
            raise NotVerifiedError(
                f"{anchor.where} told {_text(anchor.figures)} in incarnation {anchor.incarnation}, the journal up to "
                f"record {anchor.records} says {_text(figures)} in incarnation {incarnation}"
            )
        if anchor.ingested_ms is not None and (told_ms := _unix_ms(history.incarnations[-1].last_utc)) is not None:
            lags.append(anchor.ingested_ms - told_ms)
    if head != facts.head_sha256:
        raise NotVerifiedError(f"{journal} was changed while it was verified")
    return (min(lags), max(lags)) if lags else None


def _text(figures: Figures) -> str:
    named = (("low", figures.low_flop), ("measured", figures.measured_flop), ("high", figures.high_flop))
    return ", ".join(f"{name} {'unknown' if flop is None else flop}" for name, flop in named)


def _unix_ms(utc: str) -> int | None:
    """Milliseconds of a time that `rfc3339` wrote, None of any other text."""
    try:
        moment = datetime.strptime(utc, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        return None
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)


def ingested_at(anchor: Anchor) -> str | None:
    """When the log service took a line, by its own clock."""
    return None if anchor.ingested_ms is None else rfc3339(anchor.ingested_ms * 1_000_000)


def _anchor_json(anchor: Anchor) -> dict[str, Any]:
    return {
        "where": anchor.where,
        "records": anchor.records,
        "headSha256": anchor.head_sha256,
        "ingestedAt": ingested_at(anchor),
        "lineTime": anchor.line_time,
    }


def _seconds(ms: int) -> str:
    return f"{'-' if ms < 0 else ''}{abs(ms) // 1000}.{abs(ms) % 1000:03d}"


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")


def _seen(passed: Passed) -> str:
    if passed.unreadable:
        return f"; {passed.unreadable} of its lines there are torn or garbled"
    return f"; {passed.others} of others, such as {passed.other!r}" if passed.others else ""
