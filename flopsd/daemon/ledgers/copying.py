"""Copies a ledger, or a journal that cannot be sealed, to the destinations in the settings."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.core.companions import PEAKS, POLICY, kind_of
from flopsd.daemon.ledger_places import copy_destinations, local_ledger, run_node_segment
from flopsd.errors import JournalError, StorageError
from flopsd.journal.delivery_note import COPIED_BYTES_PER_S
from flopsd.journal.state_dir import StateDir
from flopsd.report.terminal import shell_command
from flopsd.settings.locations import S3Location
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.known_files import known_file
from flopsd.system.regular_files import open_regular

if TYPE_CHECKING:
    from flopsd.attestation.seal import Sealed
    from flopsd.attestation.storage.copies import CopyResult

log = logging.getLogger("flopsd")
RESERVE_SECONDS, LEAST_SECONDS = 2.0, 1.0


def seconds_left(settings: Settings, clock: Clock, stopped_ns: int | None) -> float:
    """Return the seconds of --stop-seconds that are left, less RESERVE_SECONDS; negative once they are used up.
    `stopped_ns`: the time since boot when they began to run; None: they do not run yet."""
    used_seconds = 0 if stopped_ns is None else (clock.boottime_ns() - stopped_ns) / NS_PER_S
    return settings.stop_seconds - used_seconds - RESERVE_SECONDS


def keep_journal(settings: Settings, folder: StateDir, clock: Clock, stopped_ns: int | None) -> str:
    """Copy a journal that cannot be sealed to where its ledger would go, since the machine may be deleted after the
    run. Return a text that says where the journal is now and how to seal it. `stopped_ns`: see `seconds_left`."""
    from flopsd.attestation.storage.copies import copy_journal

    names = run_node_segment(folder.journal, settings)
    ledger = local_ledger(settings, folder.path, *names)
    here = [] if ledger.absolute().parent == folder.path.absolute() else [ledger]
    destinations = [*here, *copy_destinations(settings, *names)]
    copies = []
    own = _kept_companions(folder)
    if destinations:
        seconds = max(LEAST_SECONDS, seconds_left(settings, clock, stopped_ns))
        copies = copy_journal(folder.journal, own, destinations, clock, seconds)
    lost = "".join(f"; it was NOT COPIED to {copy.location}: {copy.fault}" for copy in copies if copy.fault)
    kept = [str(path) for path in (folder.journal, *(copy.location for copy in copies if copy.fault is None))]
    return (
        f"the journal is kept at {' and '.join(kept)}{lost}; seal it with "
        f"`{shell_command(('flopsd', 'seal', '--state-dir', str(folder.path)))}`, or a copy of it with "
        f"`flopsd seal --journal`{_with_options(own)}"
    )


def _kept_companions(folder: StateDir) -> dict[str, Path]:
    """Return, by name, the kept peak tables and policies that the folder's journal names, even if it is damaged."""
    try:
        kept = [path for kind in (PEAKS, POLICY) for path in folder.companions(kind)]
        if not kept:
            return {}
        with open_regular(folder.journal) as file, mmap(file.fileno(), 0, access=ACCESS_READ) as journal:
            return {path.name: path for path in kept if journal.find(known_file(path).sha256.encode()) >= 0}
    except (OSError, ValueError, JournalError):  # ValueError: it is empty
        return {}


def _with_options(companions: Iterable[str]) -> str:
    """Return the options of `flopsd seal` that take these files."""
    kinds = sorted({kind_of(name) for name in companions})
    return f" and {' and '.join(f'--{kind}' for kind in kinds)} for the files beside it" if kinds else ""


def copy_sealed(
    settings: Settings, sealed: Sealed, clock: Clock, stopped_ns: int | None, folder: StateDir | None, *,
    rolling: bool = False, by_hand: bool = False,
) -> list[CopyResult]:  # fmt: skip
    """Copy a sealed ledger to its destinations. `stopped_ns`: see `seconds_left`; None: nothing is being stopped, and
    the ledger's size adds to the time limit. A final ledger is noted in `folder` first, so that a copy that fails now
    is delivered later."""
    destinations = copy_destinations(settings, sealed.run, sealed.node, sealed.segment)
    seconds = max(LEAST_SECONDS, seconds_left(settings, clock, stopped_ns))
    if stopped_ns is None:
        seconds += sealed.seal.size_bytes / COPIED_BYTES_PER_S
    from flopsd.attestation.storage.copies import copy_ledger
    from flopsd.attestation.storage.deliveries import Deliveries

    if folder is not None and not rolling:
        deliveries = Deliveries(folder, clock)
        try:
            deliveries.note(sealed.ledger, destinations)
            return [one.copy for one in deliveries.deliver(seconds, only=sealed.ledger, by_hand=by_hand)]
        except (OSError, StorageError) as fault:
            if destinations:
                log.warning("%s; flopsd does not try again to make a copy that fails now", fault)
    return copy_ledger(sealed.ledger, destinations, clock, seconds, rolling=rolling)


def note_delivery(settings: Settings, sealed: Sealed, clock: Clock, folder: StateDir) -> bool | None:
    """Note the destinations of a sealed ledger for the daemon's delivery process; return whether it is at all of them
    already. None: it cannot be noted."""
    from flopsd.attestation.storage.deliveries import Deliveries

    deliveries = Deliveries(folder, clock)
    try:
        deliveries.note(sealed.ledger, copy_destinations(settings, sealed.run, sealed.node, sealed.segment))
        return not deliveries.is_undelivered(sealed.ledger)
    except (OSError, StorageError):
        return None


def copies_made(copies: Iterable[CopyResult]) -> list[Path | S3Location]:
    """Return the locations of the copies that were made."""
    return [copy.location for copy in copies if copy.fault is None]
