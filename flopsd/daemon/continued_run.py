"""The run that a daemon start continues: that of the journal here, that of an earlier attempt's, or a new one."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import flopsd
from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.isolation import Continues, Isolation
from flopsd.core.peaks import PeakTable
from flopsd.daemon.ledger_places import copy_destinations, local_ledger
from flopsd.daemon.recovery.code_secrets import CodeSecrets
from flopsd.daemon.recovery.local_journal import RecoveredRun, choose_run, on_own_boot, recover
from flopsd.daemon.recovery.restored_attempt import is_sealed_whole, restore
from flopsd.daemon.writing.writer import Writer
from flopsd.journal.head import KNOWN_BYTES, NOT_ANY, KnownJournal
from flopsd.journal.journal import Journal
from flopsd.journal.recovery import Recovery
from flopsd.journal.state_dir import StateDir
from flopsd.settings.platform import Context
from flopsd.settings.schema import CONTAINER, Settings
from flopsd.system.clock import Clock
from flopsd.system.users import only_own_user_writes

log = logging.getLogger("flopsd")


@dataclass(slots=True)
class ContinuedRun:
    """The run to meter."""

    context: Context  # its boot id is not always the machine's: see `on_own_boot`
    run: str
    recovered: RecoveredRun  # its history is empty for a new run
    origins: dict[str, str]  # of each device's cumulative counters, as last read on this boot
    continues: Continues
    files_private: bool
    # Whether an earlier daemon start under this launcher is in `history`, or in a journal that was lost.
    is_launchers: bool

    def begin(self, writer: Writer, job_began_ns: int | None = None) -> None:
        """`job_began_ns`: when the launcher started the job. It is not used if an earlier daemon start under this
        launcher is in the journal, since that start accounts for the time."""
        writer.begin(self.run, self.recovered, job_began_ns=None if self.is_launchers else job_began_ns)

    def isolation(self, settings: Settings, job_user: int | None) -> Isolation:
        return Isolation(
            os.geteuid(),
            job_user,
            settings.job_user == CONTAINER,
            self.files_private,
            settings.checkpoint_output,
            self.continues.value,
        )


def continue_run(
    settings: Settings, context: Context, table: PeakTable, journal: Journal, clock: Clock, secrets: CodeSecrets,
    known: KnownJournal | None,
) -> ContinuedRun:  # fmt: skip
    """Recover, restore or begin the run. `known`: what an earlier daemon start under the same launcher wrote."""
    folder = journal.state
    files_private = only_own_user_writes(folder.path, folder.journal, folder.pending, Path(flopsd.__file__).parent)
    restored = None if known is not None else _restore(settings, folder, context, table)
    found = recover(journal, clock, known, secrets.not_used)
    if known is not None and found.history.incarnations:  # a host renamed since then is still this job's
        context = replace(context, node=found.history.node)
    wanted = settings.run_id or context.job_name
    # A run that is not named after its job may span several jobs; and a journal that is known is of this job.
    began_s = context.job_began_s if known is None and wanted == context.job_name else None
    run, chosen = choose_run(journal, found, wanted, context.node, table, clock, began_s)
    context = on_own_boot(context, chosen.history, clock.boottime_ns())
    if chosen is found and restored is not None:
        chosen = chosen._replace(recovery=chosen.recovery or restored)
        if chosen.closed is not None and is_sealed_whole(restored):
            # It has its ledger; this machine's key would make a second one.
            chosen = chosen._replace(closed=chosen.closed._replace(is_moved=True))
    continues = Continues.LAUNCHER if known else Continues.FILE_OWNER if files_private else Continues.NOTHING
    return ContinuedRun(
        context,
        run,
        chosen,
        found.origins(context.boot_id),
        Continues.NOTHING if restored else continues,
        files_private,
        known is not None and (found.journal_lost or bool(chosen.history.incarnations)),
    )


def known_journal(file: int | None) -> KnownJournal | None:
    """Return what an earlier daemon start under this launcher wrote; None: nothing, or there is no launcher."""
    text = "" if file is None else os.pread(file, KNOWN_BYTES, 0).decode("utf-8", "replace").rstrip("\n ")
    try:
        return KnownJournal.parse(text) if text else None
    except ValueError as fault:
        log.error("the launcher's record of the journal was changed: %s", fault)
        return NOT_ANY


def report_to_launcher(file: int, known: KnownJournal) -> None:
    """Write to the launcher's file what the journal must contain, whoever seals it."""
    os.pwrite(file, f"{known}\n".encode().ljust(KNOWN_BYTES), 0)


def _restore(settings: Settings, folder: StateDir, context: Context, table: PeakTable) -> Recovery | None:
    """Restore the journal that an earlier attempt of this run left in a folder that outlives machines, if one did."""
    run = settings.run_id or context.job_name
    if run is None:
        return None
    earlier = [place for place in copy_destinations(settings, run, context.node) if isinstance(place, Path)]
    ledger = local_ledger(settings, folder.path, run, context.node)
    return restore(folder, earlier, ledger, run, context.node, table.sha256) if earlier else None
