"""Recovery of the journal in the state folder, and the choice to continue its run or to begin another."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flopsd.core.ledger.history import History, read_history
from flopsd.core.peaks import PeakTable
from flopsd.errors import JournalDamagedError
from flopsd.journal.journal import Journal, Recovery
from flopsd.settings.platform import new_run_id
from flopsd.system.clock import Clock, file_stamp, rfc3339

log = logging.getLogger("flopsd")


@dataclass(frozen=True, slots=True)
class RecoveredRun:
    """The run that the state folder holds, and what had to be cut from its journal."""

    history: History
    recovery: Recovery | None

    def origins(self, boot_id: str) -> dict[str, str]:
        """By device, the origin of its cumulative counters, where the last daemon start was on this boot."""
        last = self.history.incarnations[-1:]
        return {
            uid: tally.totals.origin
            for incarnation in last
            if incarnation.boot_id == boot_id
            for uid, tally in incarnation.tallies.items()
            if tally.totals is not None
        }


def recover(journal: Journal, clock: Clock) -> RecoveredRun:
    """Recover the longest valid prefix of the journal; the damaged rest is kept beside it."""
    aside = f"damaged-{file_stamp(clock.wall_ns())}.journal.jsonl"
    recovery = journal.recover(aside)
    if recovery is not None:
        log.error(
            "the journal was damaged at its end (%s): %d bytes %s; the run goes on with the records before them",
            recovery.reason,
            recovery.cut_bytes,
            f"kept as {recovery.kept_as}" if recovery.kept_as else "were cut off",
        )
    try:
        return RecoveredRun(read_history(journal.read()), recovery)
    except JournalDamagedError as fault:
        size, head, kept = journal.size_bytes, journal.head_sha256, journal.put_aside(aside)
        log.error("the journal cannot be continued: %s; it is kept as %s, and a new one begins", fault, kept)
        return RecoveredRun(History(), Recovery(size, head, str(fault), kept))


def choose_run(
    journal: Journal, found: RecoveredRun, wanted: str | None, node: str, table: PeakTable, clock: Clock
) -> tuple[str, History]:
    """The id and history of the run to meter: the journal's, if it is the wanted one, or if none is wanted and it has
    not ended; else a new run. The journal of another run is renamed in the same folder, never overwritten.
    """
    history = found.history
    if history.incarnations:
        same = history.run == wanted if wanted else not history.ended
        if same and history.node == node and history.incarnations[-1].begin["peak_table_sha256"] == table.sha256:
            return history.run, history
        kept = journal.put_aside(f"{history.run}-until-{file_stamp(clock.wall_ns())}.journal.jsonl")
        log.warning(
            "the state folder held the journal of run %s; it is kept as %s; a new run begins", history.run, kept
        )
    return wanted or new_run_id(rfc3339(clock.wall_ns())), History()
