"""What a state folder holds from before, and whose run is metered now."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flopsd.core.ledger.history import History, read_history
from flopsd.core.peaks import PeakTable
from flopsd.errors import JournalDamagedError
from flopsd.journal.journal import Journal, Recovery
from flopsd.settings.platform import new_run_id
from flopsd.system.clock import Clock, rfc3339

log = logging.getLogger("flopsd")


@dataclass(frozen=True, slots=True)
class RecoveredRun:
    """What the state folder held."""

    history: History
    recovery: Recovery | None

    def origins(self, boot_id: str) -> dict[str, str]:
        """By device, what its running counters were when they were last journalled on this boot."""
        last = self.history.incarnations[-1:]
        return {
            uid: tally.totals.origin
            for incarnation in last
            if incarnation.boot_id == boot_id
            for uid, tally in incarnation.tallies.items()
            if tally.totals is not None
        }


def recover(journal: Journal, clock: Clock) -> RecoveredRun:
    """The longest valid prefix of the journal that is there; what is not valid is kept beside it."""
    aside = f"damaged-{_stamp(clock)}.journal.jsonl"
    recovery = journal.recover(aside)
    if recovery is not None:
        log.error(
            "the journal was damaged at its end (%s): %d bytes %s",
            recovery.reason,
            recovery.cut_bytes,
            f"kept as {recovery.kept_as}" if recovery.kept_as else "were cut off",
        )
    try:
        return RecoveredRun(read_history(journal.read()), recovery)
    except JournalDamagedError as fault:
        log.error("the journal cannot be continued and is put aside: %s", fault)
        size, head = journal.size_bytes, journal.head_sha256
        return RecoveredRun(History(), Recovery(size, head, str(fault), journal.put_aside(aside)))


def choose_run(
    journal: Journal, found: RecoveredRun, wanted: str | None, node: str, table: PeakTable, clock: Clock
) -> tuple[str, History]:
    """Whose run it is: the journal's is continued when it is the wanted one, or none is wanted and it has not ended.

    A journal of another run is renamed in the same folder, never overwritten.
    """
    history = found.history
    if history.incarnations:
        same = history.run == wanted if wanted else not history.ended
        if same and history.node == node and history.incarnations[-1].begin["peaks_sha256"] == table.sha256:
            return history.run, history
        kept = f"{history.run}-until-{_stamp(clock)}.journal.jsonl"
        kept = journal.put_aside(kept)
        log.warning("the state folder held the journal of run %s; it is kept as %s", history.run, kept)
    return wanted or new_run_id(rfc3339(clock.wall_ns())), History()


def _stamp(clock: Clock) -> str:
    return rfc3339(clock.wall_ns()).replace(":", "").replace("-", "").replace(".", "")
