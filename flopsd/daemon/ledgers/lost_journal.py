"""A new journal for a run whose own journal another process replaced, when no daemon is left to continue the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from flopsd.core.ledger.history import History
from flopsd.core.ledger.isolation import Isolation
from flopsd.daemon.recovery.local_journal import RecoveredRun
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.errors import JournalError
from flopsd.journal.head import KnownJournal
from flopsd.journal.journal import Journal
from flopsd.journal.recovery import NOT_OURS, journal_lost
from flopsd.settings.data_files import load_peaks, load_policies
from flopsd.settings.load import declared_of
from flopsd.settings.platform import find_context
from flopsd.settings.schema import Settings
from flopsd.system.clock import Clock

log = logging.getLogger("flopsd")


def write_instead(
    journal: Journal, known: KnownJournal, settings: Settings, environment: Mapping[str, str], clock: Clock,
    fault: JournalError,
) -> None:  # fmt: skip
    """Put the file aside and write a journal that states this and has no device: its ledger has no upper bound. Raises
    FlopsdError."""
    lost = journal_lost(journal.size_bytes, known.head, journal.put_aside(NOT_OURS))
    log.error("%s; it is kept as %s; the ledger of the run has no upper bound", fault, lost.kept_as)
    declared, isolation = declared_of(settings), Isolation(os.geteuid(), checkpoint_output=settings.checkpoint_output)
    of_settings = WriterSettings.of(settings, (), declared, load_policies(settings.policies), isolation)
    table, context = load_peaks(settings.peaks), find_context(environment)
    writer = Writer(journal, table, of_settings, context, clock, lambda _: None)
    writer.begin(known.run or settings.run_id or "", RecoveredRun(History(), lost, journal_lost=True))
    writer.close("journal_replaced")
