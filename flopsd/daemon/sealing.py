"""Seals a run's journal and copies the ledger, by the settings: for the daemon, `flopsd exec` and `flopsd seal`.

The libraries that sign and copy are imported when they are needed, so that a metering daemon stays small.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flopsd.errors import FlopsdError, JournalDamagedError, JournalReplacedError, LedgerError, StorageError
from flopsd.journal.head import Head, KnownJournal
from flopsd.journal.journal import Journal, read_live
from flopsd.journal.seal_note import write_note
from flopsd.journal.segments import settle_next
from flopsd.journal.state_dir import StateDir
from flopsd.settings.evidence_kinds import EvidenceWanted
from flopsd.settings.locations import S3Location, is_remote, named, of_segment, parse_location
from flopsd.settings.platform import default_state_dir
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.progress import ProgressLine, is_screen
from flopsd.system.streams import say

if TYPE_CHECKING:
    from flopsd.attestation.seal import Sealed
    from flopsd.attestation.storage.copies import CopyResult

log = logging.getLogger("flopsd")
RESERVE_SECONDS, LEAST_SECONDS = 2.0, 1.0


def state_dir(settings: Settings, environment: Mapping[str, str]) -> Path:
    return Path(settings.state_dir) if settings.state_dir else default_state_dir(environment)


def default_ledger(folder: Path, run: str) -> Path:
    return folder / named("{run}.ledger.json", run, "")  # the run's name may come from a foreign journal


def local_ledger(settings: Settings, folder: Path, run: str, node: str, segment: int | None = None) -> Path:
    """Where the ledger lies on this machine; in `folder` where --ledger is absent or remote. `segment`: of a rotated
    run."""
    if settings.ledger is None or is_remote(settings.ledger):
        return of_segment(default_ledger(folder, run), segment)
    return of_segment(Path(named(settings.ledger, run, node)), segment)


def copy_destinations(settings: Settings, run: str, node: str, segment: int | None = None) -> list[Path | S3Location]:
    """Where copies of the ledger go. `segment`: of a rotated run."""
    remote = [settings.ledger] if settings.ledger is not None and is_remote(settings.ledger) else []
    places = (parse_location(named(text, run, node)) for text in (*remote, *settings.ledger_copies))
    return [of_segment(place, segment) for place in places]


def copy_seconds(settings: Settings, used_seconds: float) -> float:
    """The time left for copying, of --stop-seconds, after `used_seconds`."""
    return max(LEAST_SECONDS, settings.stop_seconds - used_seconds - RESERVE_SECONDS)


def seal(
    journal: Path,
    folder: Path,
    settings: Settings,
    clock: Clock,
    *,
    live: bool = False,
    lock: Path | None = None,
    evidence_from: Mapping[str, str] | None = None,
    head: Head | None = None,
    code_secrets: Sequence[bytes] = (),
    closed: bool = False,
) -> Sealed:
    """Seal `journal`; key and ledger lie in `folder` unless the settings name other places.

    `live`: the journal may be growing or torn, and its longest valid prefix is sealed. `lock`: the file by which the
    sealers of one state folder exclude each other; with `live` this makes a rolling seal, which replaces only a ledger
    that covers less. `evidence_from`: the environment to collect evidence from; None: none is collected. `head`: what
    the journal must contain. `code_secrets`: what its codes follow from, as far as that is known. `closed`: it is a
    segment that another one continues.
    Raises LedgerError for an empty journal or one of another run than --run-id, and what `seal_journal` raises.
    """
    from flopsd.attestation.seal import seal_journal
    from flopsd.attestation.signing.keys import ensure_key
    from flopsd.attestation.storage.deliveries import Deliveries

    run, node, segment = names_of(journal, settings, closed=closed)
    ledger, deliveries = local_ledger(settings, folder, run, node, segment), Deliveries(StateDir(folder), clock)
    key, made = ensure_key(settings.key, folder)
    if made:
        log.warning(
            "no --key was given: made the Ed25519 key %s (mode 0600); anyone who can read it can sign in your name", key
        )
    evidence = None
    if evidence_from is not None:
        evidence = EvidenceWanted(
            settings.evidence, settings.timestamp_url, evidence_from, witness_url=settings.witness_url
        )
    elif settings.witness_url is not None and lock is not None:
        evidence = EvidenceWanted((), witness_url=settings.witness_url, witness_alone=True)
    is_rolling = live and lock is not None
    sealed = seal_journal(
        journal,
        key,
        ledger,
        clock,
        StateDir(folder).peaks_files(settings.peaks),
        evidence,
        settings.policies,
        live=live,
        rolling=is_rolling,
        lock=lock,
        head=head,
        code_secrets=code_secrets,
        refused_pin=None if lock is None else StateDir(folder).refused_pin,
        is_final=None if is_rolling else lambda ended: ended or lock is None or _says(deliveries.is_noted, ledger),
        keep=None if lock is None else lambda: _says(deliveries.is_undelivered, ledger),
    )
    if lock is not None and sealed.is_new:
        try:
            write_note(StateDir(folder).newest_seal, sealed.seal)
        except OSError as fault:
            log.warning("later ledgers will not list this seal: %s", fault.strerror)
    return replace(sealed, segment=segment)


def _says(ask: Callable[[Path], bool], ledger: Path) -> bool:
    """What the note of deliveries says of a ledger; false where it cannot be read, which copying reports."""
    try:
        return ask(ledger)
    except (OSError, StorageError):
        return False


def names_of(journal: Path, settings: Settings, *, closed: bool = False) -> tuple[str, str, int | None]:
    """Run, node and number of the segment, None where the run is not rotated. `closed`: another segment follows it.

    Raises LedgerError for an empty journal, or one of another run than --run-id.
    """
    first = next((line.record() for line in read_live(journal)), None)
    if first is None:
        raise LedgerError(f"{journal} holds no complete record: there is nothing to seal")
    if settings.run_id not in (None, first.get("run")):
        raise LedgerError(
            f"{journal} is of run {first.get('run')!r}, not of {settings.run_id!r}",
            hint="leave --run-id out to seal the run that is there",
        )
    before = first.get("continues", {}).get("segment") if isinstance(first.get("continues", {}), dict) else None
    is_first = 1 if closed or settings.rotate_every is not None else None
    return str(first.get("run")), str(first.get("node")), before + 1 if type(before) is int else is_first


def seal_rolling(settings: Settings, environment: Mapping[str, str], clock: Clock, head: Head | None) -> Sealed:
    """Seal the checkpoints so far of a running daemon. Raises what `seal` raises."""
    folder = StateDir(state_dir(settings, environment))
    return seal(folder.journal, folder.path, settings, clock, live=True, lock=folder.seal_lock, head=head)


def seal_file(journal: Path, settings: Settings, clock: Clock) -> Sealed:
    """Seal a journal file by itself, on any machine: a copy of a live one, or what a dead machine left.

    Key and ledger lie in --state-dir where that is given, else beside the file. Raises what `seal` raises.
    """
    folder = Path(settings.state_dir) if settings.state_dir else journal.absolute().parent
    return seal(journal, folder, settings, clock, live=True)


def seal_ended(
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    keep: bool = False,
    known: KnownJournal | None = None,
    code_secrets: Sequence[bytes] = (),
) -> Sealed:
    """Seal the journal of a daemon that no longer runs, the last pending totals included.

    `keep`: a journal that cannot be sealed is copied to where its ledger would go. `known`: what its daemon wrote; a
    journal without that, or with a wrong code, is put aside, and the ledger says so instead.
    Raises StateDirBusyError while a daemon runs, and what `seal` raises.
    """
    folder = StateDir(state_dir(settings, environment))
    if known is None and not folder.journal.is_file():
        raise LedgerError(
            f"there is no journal in {folder.path}", hint="give --state-dir the folder that the daemon wrote to"
        )
    folder.acquire()
    journal = Journal(folder)
    try:
        try:
            settle_next(folder, known)
            recovery = journal.recover("damaged.journal.jsonl", known)
            if known is not None:
                deque(journal.read(code_secrets), maxlen=0)
        except (JournalReplacedError, JournalDamagedError) as fault:
            from flopsd.daemon.lost_journal import write_instead

            if known is None:
                raise
            recovery = None
            write_instead(journal, known, settings, environment, clock, fault)
        if recovery is not None:
            log.warning(
                "the journal was damaged at its end (%s): %d bytes are left out", recovery.reason, recovery.cut_bytes
            )
        try:
            return seal(
                folder.journal,
                folder.path,
                settings,
                clock,
                lock=folder.seal_lock,
                evidence_from=environment,
                head=None if known is None else journal.head,
                code_secrets=code_secrets,
            )
        except FlopsdError:
            if keep:
                log.error("%s", keep_journal(settings, folder, clock, 0))
            raise
    finally:
        journal.close()
        folder.release()


def seal_own(
    settings: Settings,
    folder: StateDir,
    clock: Clock,
    stopped_ns: int,
    err: IO[str],
    environment: Mapping[str, str],
    head: Head,
    code_secrets: Sequence[bytes],
) -> tuple[bool, bool]:
    """Seal the run of this daemon at its end and copy the ledger, within --stop-seconds since `stopped_ns`. The figures
    go to `err` only then, so that a blocked reader costs no copy.

    Returns whether it was sealed, and whether every copy was made. A failure is logged; the journal is kept.
    """
    from flopsd.report.ledger_text import sealed_text

    is_loud = log.isEnabledFor(logging.WARNING)  # not with -q
    with ProgressLine(err, clock, "flopsd: sealing", is_shown=is_loud and is_screen(err)):
        try:
            sealed = seal(
                folder.journal,
                folder.path,
                settings,
                clock,
                lock=folder.seal_lock,
                evidence_from=environment,
                head=head,
                code_secrets=code_secrets,
            )
        except FlopsdError as fault:
            kept = keep_journal(settings, folder, clock, (clock.boottime_ns() - stopped_ns) / NS_PER_S)
            log.error("NOT SEALED: %s; %s; %s", fault, fault.hint, kept)
            return False, False
        copies = copy_sealed(settings, sealed, clock, (clock.boottime_ns() - stopped_ns) / NS_PER_S, folder)
    if is_loud:
        say(err, sealed_text(sealed, copies_made(copies)))
    for copy in copies:
        if copy.fault is not None:
            log.error(
                "NOT COPIED to %s: %s; the ledger is complete at %s; the next daemon in this state folder, or "
                "`flopsd copy --state-dir %s`, delivers the same bytes",
                copy.location,
                copy.fault,
                sealed.ledger,
                folder.path,
            )
    return True, all(copy.fault is None for copy in copies)


def keep_journal(settings: Settings, folder: StateDir, clock: Clock, used_seconds: float) -> str:
    """Copy a journal that cannot be sealed to where its ledger would go, since its machine may end with the run.

    Returns a text that says where it is now and how to seal it.
    """
    from flopsd.attestation.storage.copies import copy_journal

    names = names_of(folder.journal, settings)
    ledger = local_ledger(settings, folder.path, *names)
    here = [] if ledger.absolute().parent == folder.path.absolute() else [ledger]
    destinations = [*here, *copy_destinations(settings, *names)]
    copies = []
    own = _kept_table(folder)
    if destinations:
        copies = copy_journal(folder.journal, own, destinations, clock, copy_seconds(settings, used_seconds))
    lost = "".join(f"; it was NOT COPIED to {copy.location}: {copy.fault}" for copy in copies if copy.fault)
    kept = [str(path) for path in (folder.journal, *(copy.location for copy in copies if copy.fault is None))]
    return (
        f"the complete journal is kept at {' and '.join(kept)}{lost}; seal it with `flopsd seal --state-dir "
        f"{folder.path}`, or a copy of it with `flopsd seal --journal`{'' if own is None else ' and --peaks'}"
    )


def _kept_table(folder: StateDir) -> Path | None:
    """The peak table of the folder's journal; None: a packaged one, or none that is here."""
    try:
        first = next((line.record() for line in read_live(folder.journal)), {})
    except (OSError, FlopsdError):
        return None
    table = folder.peaks(str(first.get("peak_table_sha256")))
    return table if table.exists() else None


def copy_sealed(
    settings: Settings,
    sealed: Sealed,
    clock: Clock,
    used_seconds: float,
    folder: StateDir | None,
    *,
    rolling: bool = False,
    by_hand: bool = False,
) -> list[CopyResult]:
    """Copy a sealed ledger to where the settings say; `used_seconds` of --stop-seconds are over. A final ledger is
    noted in `folder` first, so that what fails now is delivered later."""
    destinations = copy_destinations(settings, sealed.run, sealed.node, sealed.segment)
    seconds = copy_seconds(settings, used_seconds)
    if not destinations and rolling:
        return []
    from flopsd.attestation.storage.copies import copy_ledger
    from flopsd.attestation.storage.deliveries import Deliveries

    if folder is not None and not rolling:
        deliveries = Deliveries(folder, clock)
        try:
            deliveries.note(sealed.ledger, destinations)
            return [one.copy for one in deliveries.deliver(seconds, only=sealed.ledger, by_hand=by_hand)]
        except (OSError, StorageError) as fault:
            if destinations:
                log.warning("%s; a copy that fails now is not repeated by itself", fault)
    return copy_ledger(sealed.ledger, destinations, clock, seconds, rolling=rolling)


def copies_made(copies: Iterable[CopyResult]) -> list[Path | S3Location]:
    """Where copies were made."""
    return [copy.location for copy in copies if copy.fault is None]
