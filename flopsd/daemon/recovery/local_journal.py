"""The run to meter: the journal in the state folder is recovered and its run continued, or a new run begins."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.segments import SegmentFacts
from flopsd.core.ledger.start_notes import refused_line
from flopsd.core.notes import note
from flopsd.core.peaks import PeakTable
from flopsd.core.rounding import format_duration
from flopsd.core.values import is_timestamp, utc_ns
from flopsd.errors import JournalDamagedError, JournalError, JournalReplacedError
from flopsd.journal.head import KnownJournal
from flopsd.journal.history_reader import HistoryReader
from flopsd.journal.journal import Journal
from flopsd.journal.recovery import NOT_OURS, Recovery, journal_lost, with_added_reason
from flopsd.journal.sealed_prefix import durable_prefix
from flopsd.journal.segments import ClosedSegment, newest_closed, settle_next
from flopsd.journal.state_dir import StateDir
from flopsd.settings.platform import Context, new_run_id
from flopsd.settings.words import REASONS, say, say_all
from flopsd.system.clock import NS_PER_S, Clock, file_stamp, rfc3339

log = logging.getLogger("flopsd")
CLOCKS_APART_SECONDS = 3600  # of a scheduler's clock and a node's, at most


class RecoveredRun(NamedTuple):
    """The run that the state folder holds, and what had to be cut from its journal."""

    history: History
    recovery: Recovery | None = None
    journal_lost: bool = False  # another process replaced the journal, whose content is unknown
    closed: ClosedSegment | None = None  # the ended segment that `history` is of, if its successor has not begun

    def origins(self, boot_id: str) -> dict[str, str]:
        """Return the origin of each device's cumulative counters, if the last daemon start was on this boot."""
        last = self.history.incarnations[-1:]
        return {
            uid: tally.totals.origin
            for incarnation in last
            if incarnation.boot_id == boot_id
            for uid, tally in incarnation.tallies.items()
            if tally.totals is not None
        }


def on_own_boot(context: Context, history: History, now_ns: int) -> Context:
    """Return `context`, with a boot id of its own if the journal has later times of this boot: the clock since boot
    differs in another time namespace (of a container), and after a snapshot of the machine was restored. Then only the
    wall clock says how long the daemon was away, as after a reboot."""
    latest_ns = max((one.last_ns for one in history.incarnations if one.boot_id == context.boot_id), default=now_ns)
    if latest_ns <= now_ns:
        return context
    log.warning(
        "the clock since boot is %s behind the last record of the journal: the container has another time namespace, "
        "or the machine was restored from a snapshot; how much time passed is taken from the wall clock",
        format_duration(Fraction(latest_ns - now_ns, NS_PER_S)),
    )
    return replace(context, boot_id=f"{context.boot_id}+{os.urandom(4).hex()}")


def recover(
    journal: Journal, clock: Clock, known: KnownJournal | None, secrets: Iterable[bytes | bytearray] = ()
) -> RecoveredRun:
    """Recover the longest valid prefix of the journal; the damaged rest is kept next to it. `known`: what an earlier
    daemon start under the same launcher wrote. A journal that lacks it is put aside, and so is one with a wrong code in
    a daemon start that has one of `secrets`. Raises JournalError if that cannot be done now."""
    aside = f"damaged-{file_stamp(clock.wall_ns())}.journal.jsonl"
    was_pending = _has_content(journal.state.pending)  # if so, there was a journal too
    settle_next(journal.state, known)
    try:
        recovery = journal.recover(aside, known)
    except JournalReplacedError as fault:
        assert known is not None
        lost = journal_lost(journal.size_bytes, known.head, journal.put_aside(NOT_OURS))
        log.error("%s; the run goes on in a new journal and has no upper bound", fault)
        return RecoveredRun(History(), lost, journal_lost=True)
    if recovery is not None:
        log.error(
            "the journal was damaged at its end (%s): %d bytes %s; the run goes on with the records before them",
            say_all(REASONS, recovery.reasons),
            recovery.cut_bytes,
            f"kept as {recovery.kept_as}" if recovery.kept_as else "were cut off",
        )
    try:
        history = read_history(journal.read(secrets))
        closed = None
        if history.is_rotated:
            closed = ClosedSegment(SegmentFacts(history.segment, *journal.facts), is_moved=False)
        elif not history.incarnations and known is None:
            history, closed = _closed_before(journal.state) or (history, None)
        is_kept = recovery is not None and recovery.kept_as is not None
        is_gone = not (history.incarnations or is_kept) and (was_pending or journal.state.needs_journal)
        if is_gone:
            recovery = with_added_reason(recovery, note("journal_missing"))
            log.error(
                "%s; a new one begins, and the run has no upper bound; with another --state-dir it would have one",
                say(REASONS, recovery.reasons[-1]),
            )
        is_lost = is_gone or (is_kept and not history.incarnations)
        return RecoveredRun(history, recovery, journal_lost=is_lost, closed=closed)
    except JournalDamagedError as fault:
        size, head, kept = journal.size_bytes, journal.head_sha256, journal.put_aside(aside)
        log.error(
            "the journal cannot be continued: %s; it is kept as %s, and a new one begins; since the old one may be "
            "of this run, the run has no upper bound; with another --state-dir it would have one",
            fault,
            kept,
        )
        lost = Recovery(size, head, (refused_line("not_continued", fault),), kept)
        return RecoveredRun(History(), lost, journal_lost=True)


def _is_before(history: History, wall_s: int) -> bool:
    """Whether the last record of a run is certainly older than `wall_s` on another machine's wall clock, which may be
    CLOCKS_APART_SECONDS off."""
    return utc_ns(history.incarnations[-1].last_utc) < (wall_s - CLOCKS_APART_SECONDS) * NS_PER_S


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _closed_before(state: StateDir) -> tuple[History, ClosedSegment] | None:
    """Return the newest closed segment and its history: a kill in a rotation may have left no journal."""
    path = newest_closed(state)
    if path is None:
        return None
    reader = HistoryReader()
    try:
        facts = durable_prefix(path, reader.take).facts
        history = reader.history()
    except JournalError as fault:
        log.error("the closed segment %s cannot be continued: %s", path, fault)
        return None
    if not history.is_rotated or not all(is_timestamp(one.last_utc) for one in history.incarnations):
        return None
    return history, ClosedSegment(SegmentFacts(history.segment, *facts), is_moved=True)


def choose_run(
    journal: Journal, found: RecoveredRun, wanted: str | None, node: str, table: PeakTable, clock: Clock,
    job_began_s: int | None = None,
) -> tuple[str, RecoveredRun]:  # fmt: skip
    """Return the id of the run to meter, and `found` if it is the journal's run: the wanted one, or one that has not
    ended if none is wanted. Of a new run it has no history. The journal of another run is renamed in the same folder,
    never overwritten. `job_began_s`: see `Context`."""
    history = found.history
    new = wanted or new_run_id(rfc3339(clock.wall_ns())), found._replace(history=History(), closed=None)
    if history.incarnations:
        same = history.run == wanted if wanted else not history.ended or history.is_rotated
        if not same:
            why = "that run has ended" if history.ended else f"run {wanted} was asked for"
        elif history.node != node:
            why = f"it is of node {history.node}, this node is {node} (`flopsd merge` adds the two up)"
        elif job_began_s is not None and _is_before(history, job_began_s):
            why = "it is of an earlier job, whose number Slurm reused"
        elif history.incarnations[-1].begin["peak_table_sha256"] != table.sha256:
            why = "it was metered with another peak table"
        else:
            return history.run, found
        if found.closed is not None and found.closed.is_moved:
            log.info("the closed segments of run %s are kept in %s", history.run, journal.state.segments)
            return new
        journal.state.mark_open(is_open=False)
        kept = journal.put_aside(f"{history.run}-until-{file_stamp(clock.wall_ns())}.journal.jsonl")
        log.log(
            logging.INFO if history.ended and not same else logging.WARNING,
            "the journal of run %s in the state folder is not continued: %s. It is kept as %s; a new journal begins",
            history.run,
            why,
            kept,
        )
    return new
