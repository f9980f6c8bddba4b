"""Sealing what nobody closed: the journal of a daemon that is running, or a journal file by itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from flopsd.clock import Clock
from flopsd.closing import NEW_KEY, state_dir
from flopsd.delivery import local_ledger
from flopsd.errors import LedgerError
from flopsd.journal import read_live
from flopsd.prefix import longest_prefix, read_durable
from flopsd.seal import Sealed, seal_journal
from flopsd.settings import Settings
from flopsd.signing.keys import ensure_key
from flopsd.state_dir import StateDir

log = logging.getLogger("flopsd")


def seal_rolling(settings: Settings, environment: Mapping[str, str], clock: Clock) -> Sealed:
    """Seal the checkpoints so far in a state folder that its daemon goes on writing to.

    Raises what seal_journal raises, and LedgerError where the ledger covers as much already.
    """
    folder = StateDir(state_dir(settings, environment))
    return _seal(folder.journal, folder.path, settings, clock, folder.seal_lock)


def seal_file(journal: Path, settings: Settings, clock: Clock) -> Sealed:
    """Seal a journal file by itself, on any machine: what was copied of a live one, or saved of a dead one.

    Key and ledger lie in --state-dir where that is given, else beside the file. Raises what seal_journal raises.
    """
    prefix = longest_prefix(read_durable(journal))
    if prefix.left_out_bytes:
        log.warning("%d bytes at the end of %s are left out: %s", prefix.left_out_bytes, journal, prefix.reason)
    folder = Path(settings.state_dir) if settings.state_dir else journal.absolute().parent
    return _seal(journal, folder, settings, clock, None)


def _seal(journal: Path, folder: Path, settings: Settings, clock: Clock, lock: Path | None) -> Sealed:
    first = next((line.record() for line in read_live(journal)), None)
    if first is None:
        raise LedgerError(f"{journal} holds no whole record: there is nothing to seal")
    if settings.run_id not in (None, first.get("run")):
        raise LedgerError(
            f"{journal} is of run {first.get('run')!r}, not of {settings.run_id!r}",
            hint="leave --run-id out to seal the run that is there",
        )
    ledger = local_ledger(settings, folder, str(first.get("run")), str(first.get("node")))
    key, made = ensure_key(settings.key, folder)
    if made:
        log.warning(NEW_KEY, key)
    rolling = lock is not None
    return seal_journal(
        journal, key, ledger, clock, settings.peaks, None, settings.policies, live=True, rolling=rolling, lock=lock
    )
