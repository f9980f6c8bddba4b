"""The end of a run: its journal sealed, its ledger copied, by the settings. Also of a run that ended long ago."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flopsd.attestation.seal import Sealed, seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.daemon.ledger_destinations import copy_destinations, copy_seconds, local_ledger
from flopsd.errors import FlopsdError, LedgerError
from flopsd.journal.journal import Journal, read_live
from flopsd.journal.sealed_prefix import longest_prefix, read_durable
from flopsd.journal.state_dir import StateDir
from flopsd.settings.evidence_kinds import EvidenceWanted
from flopsd.settings.platform import default_state_dir
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.streams import say

if TYPE_CHECKING:
    from flopsd.attestation.seal import Sealed
    from flopsd.attestation.storage.copies import CopyResult

log = logging.getLogger("flopsd")
NEW_KEY = "no --key was given: made the Ed25519 key %s (mode 0600); whoever reads it can sign in your name"


def state_dir(settings: Settings, environment: Mapping[str, str]) -> Path:
    return Path(settings.state_dir) if settings.state_dir else default_state_dir(environment)


def close(
    settings: Settings,
    folder: StateDir,
    run: str,
    node: str,
    clock: Clock,
    stopped_ns: int,
    err: IO[str],
    environment: Mapping[str, str],
) -> tuple[bool, bool]:
    """Seal at the end, copy within the time that stopping may take since `stopped_ns`, and only then tell: words that
    nobody takes must not cost a copy. Whether it was sealed, and whether a copy is at every place.

    A failure is told and loses nothing.
    """
    from flopsd.attestation.seal import seal_journal
    from flopsd.attestation.signing.keys import ensure_key
    from flopsd.report.ledger_text import sealed_text

    ledger = local_ledger(settings, folder.path, run, node)
    try:
        key, made = ensure_key(settings.key, folder.path)
        if made:
            log.warning(NEW_KEY, key)
        wanted, lock = EvidenceWanted(settings.evidence, settings.timestamp_url, environment), folder.seal_lock
        sealed = seal_journal(folder.journal, key, ledger, clock, settings.peaks, wanted, settings.policies, lock=lock)
    except FlopsdError as fault:
        kept = keep_journal(settings, folder, run, node, clock, (clock.boottime_ns() - stopped_ns) / NS_PER_S)
        log.error("NOT SEALED: %s; %s; %s", fault, fault.hint, kept)
        return False, False
    copies = copy_sealed(settings, sealed, clock, (clock.boottime_ns() - stopped_ns) / NS_PER_S)
    say(err, sealed_text(sealed) + copied_text(copies))
    for copy in copies:
        if copy.fault is not None:
            log.error("NOT COPIED to %s: %s; the ledger is whole at %s", copy.place, copy.fault, sealed.ledger)
    return True, all(copy.fault is None for copy in copies)


def keep_journal(settings: Settings, folder: StateDir, run: str, node: str, clock: Clock, used_seconds: float) -> str:
    """Copy a journal that cannot be sealed to the places of its ledger, since its machine may end with the run; where
    it lies, in words."""
    from flopsd.attestation.storage.copies import copy_journal

    ledger = local_ledger(settings, folder.path, run, node)
    here = [] if ledger.absolute().parent == folder.path.absolute() else [ledger]
    places = [*here, *copy_destinations(settings, run, node)]
    copies = copy_journal(folder.journal, places, clock, copy_seconds(settings, used_seconds)) if places else []
    lost = "".join(f"; it is NOT COPIED to the place of {copy.place}: {copy.fault}" for copy in copies if copy.fault)
    lies = [str(path) for path in (folder.journal, *(copy.place for copy in copies if copy.fault is None))]
    return (
        f"the journal is whole at {' and '.join(lies)}{lost}; `flopsd seal --state-dir {folder.path}`, or "
        f"`flopsd seal --journal` with a copy, can still seal it"
    )


def copied_text(copies: Iterable[CopyResult]) -> str:
    """Where copies lie now."""
    return "".join(f"  copied to  {copy.place}\n" for copy in copies if copy.fault is None)


def copy_sealed(
    settings: Settings, sealed: Sealed, clock: Clock, used_seconds: float, *, rolling: bool = False
) -> list[CopyResult]:
    """Copy a sealed ledger to where the settings say; `used_seconds` of the time for stopping are over."""
    places = copy_destinations(settings, sealed.run, sealed.node)
    if not places:
        return []
    from flopsd.attestation.storage.copies import copy_ledger

    return copy_ledger(sealed.ledger, places, clock, copy_seconds(settings, used_seconds), rolling=rolling)


def seal_state_dir(settings: Settings, environment: Mapping[str, str], clock: Clock, *, at_end: bool = False) -> Sealed:
    """Seal the journal of a daemon that is no longer running, the last pending totals included.

    `at_end`: the run ends now, and a journal that cannot be sealed is copied to its ledger's places.
    Raises StateDirBusyError while one runs, and what seal_journal raises.
    """
    from flopsd.attestation.seal import seal_journal
    from flopsd.attestation.signing.keys import ensure_key

    folder = StateDir(state_dir(settings, environment))
    if not folder.journal.is_file():
        raise LedgerError(
            f"there is no journal in {folder.path}", hint="give --state-dir the folder that the daemon wrote to"
        )
    folder.acquire()
    journal = Journal(folder)
    try:
        recovery = journal.recover("damaged.journal.jsonl")
        if recovery is not None:
            log.warning(
                "the journal was damaged at its end (%s): %d bytes left out", recovery.reason, recovery.cut_bytes
            )
        first = next(iter(journal.read()), None)
        if first is None:
            raise LedgerError(f"the journal in {folder.path} holds no whole record")
        if settings.run_id not in (None, first["run"]):
            raise LedgerError(
                f"the journal in {folder.path} is of run {first['run']!r}: nothing was metered of {settings.run_id!r}",
                hint="leave --run-id out to seal the run that is there",
            )
        run, node = str(first["run"]), str(first["node"])
        ledger = local_ledger(settings, folder.path, run, node)
        wanted, lock = EvidenceWanted(settings.evidence, settings.timestamp_url, environment), folder.seal_lock
        try:
            key, made = ensure_key(settings.key, folder.path)
            if made:
                log.warning(NEW_KEY, key)
            return seal_journal(
                folder.journal, key, ledger, clock, settings.peaks, wanted, settings.policies, lock=lock
            )
        except FlopsdError:
            if at_end:
                log.error("%s", keep_journal(settings, folder, run, node, clock, 0))
            raise
    finally:
        journal.close()
        folder.release()


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
