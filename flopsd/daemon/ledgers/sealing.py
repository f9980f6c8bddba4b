"""Seals a run's journal by the settings: for the daemon, `flopsd exec` and `flopsd seal`.

The libraries that sign are imported when they are needed, so that a metering daemon stays small.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flopsd.attestation.ledger_files import is_countersigned
from flopsd.attestation.signing.keys import ensure_key
from flopsd.core.companions import PEAKS, POLICY
from flopsd.daemon.ledger_places import local_ledger, run_node_segment, state_dir
from flopsd.daemon.ledgers.copying import copies_made, copy_sealed, keep_journal
from flopsd.errors import FlopsdError, JournalDamagedError, JournalReplacedError, LedgerError, StorageError
from flopsd.journal.head import Head, KnownJournal
from flopsd.journal.journal import Journal
from flopsd.journal.reading import read_live
from flopsd.journal.seal_note import write_note
from flopsd.journal.segments import closed_segments, ends_with_closed, settle_next
from flopsd.journal.state_dir import StateDir
from flopsd.report.terminal import shell_command
from flopsd.settings.evidence_kinds import EvidenceWanted
from flopsd.settings.schema import Settings
from flopsd.settings.words import REASONS, say_all
from flopsd.system.clock import Clock
from flopsd.system.file_presence import is_file
from flopsd.system.progress import ProgressLine, is_screen
from flopsd.system.streams import say

if TYPE_CHECKING:
    from flopsd.attestation.seal import Sealed

log = logging.getLogger("flopsd")


def seal(
    journal: Path, folder: StateDir, settings: Settings, clock: Clock, *, live: bool = False, is_alone: bool = False,
    evidence_from: Mapping[str, str] | None = None, head: Head | None = None, code_secrets: Sequence[bytes] = (),
    closed: bool = False, refused_pin: int | None = None,
) -> Sealed:  # fmt: skip
    """Seal `journal`; key and ledger lie in `folder` unless the settings name other places.

    `live`: the journal may be growing or torn, and its longest valid prefix is sealed. `is_alone`: the journal is a
    file by itself, which no daemon writes. Otherwise the sealers of the state folder exclude each other, and `live`
    makes a rolling seal, which replaces only a ledger that covers less. `evidence_from`: the environment to collect
    evidence from; None: collect none. `head`: what the journal must contain. `code_secrets`: the known secrets that its
    codes are made with. `closed`: a next segment continues the journal. `refused_pin`: a daemon's open file for a
    refused PIN that cannot be noted in `folder`.
    Raises LedgerError for an empty journal or one of another run than --run-id, and what `seal_journal` raises.
    """
    from flopsd.attestation.seal import seal_journal
    from flopsd.attestation.signing.refused_pin import RefusedPin
    from flopsd.attestation.storage.deliveries import Deliveries

    first = next(read_live(journal), None)
    if head is None and first is not None:  # a rotation meanwhile puts the next segment's journal there
        head = Head(1, first.head.hex())
    run, node, segment = run_node_segment(journal, settings, closed=closed)
    ledger, deliveries = local_ledger(settings, folder.path, run, node, segment), Deliveries(folder, clock)
    key, made = ensure_key(settings.key, folder.path)
    if made:
        log.warning(
            "no --key was given: made the Ed25519 key %s (mode 0600); anyone who can read it can sign in your name", key
        )
    evidence = None
    if evidence_from is not None:
        evidence = EvidenceWanted(
            settings.evidence, settings.timestamp_url, evidence_from, witness_url=settings.witness_url
        )
    elif settings.witness_url is not None and not is_alone:
        evidence = EvidenceWanted((), witness_url=settings.witness_url, witness_alone=True)
    is_rolling = live and not is_alone

    def is_final(ended: bool) -> bool:
        return is_rolling or ended or is_alone or is_countersigned(ledger) or _ask_note(deliveries.is_noted, ledger)

    sealed = seal_journal(
        journal,
        key,
        ledger,
        clock,
        folder.data_files(PEAKS, [] if settings.peaks is None else [settings.peaks]),
        evidence,
        folder.data_files(POLICY, settings.policies),
        live=live,
        rolling=is_rolling,
        lock=None if is_alone else folder.seal_lock,
        head=head,
        code_secrets=code_secrets,
        refused_pin=None if is_alone else RefusedPin(folder.refused_pin, refused_pin),
        is_final=is_final,
        any_key=closed and _ask_note(deliveries.is_noted, ledger),
        keep=None if is_alone else lambda: _ask_note(deliveries.is_undelivered, ledger),
    )
    if sealed.is_new and not is_alone:
        try:
            write_note(folder.newest_seal, sealed.seal)
        except OSError as fault:
            log.warning(
                "later ledgers will not list this seal: cannot write %s: %s", folder.newest_seal, fault.strerror
            )
    return replace(sealed, segment=segment)


def _ask_note(ask: Callable[[Path], bool], ledger: Path) -> bool:
    """Return what the note of deliveries says of a ledger; False if it cannot be read, which copying reports."""
    try:
        return ask(ledger)
    except (OSError, StorageError):
        return False


def seal_file(journal: Path, settings: Settings, clock: Clock) -> Sealed:
    """Seal a journal file by itself, on any machine: a copy of a live one, or what a dead machine left. Key and ledger
    lie in --state-dir if that is given, else next to the file. Raises what `seal` raises."""
    folder = Path(settings.state_dir) if settings.state_dir else journal.absolute().parent
    return seal(journal, StateDir(folder), settings, clock, live=True, is_alone=True)


def seal_ended(
    settings: Settings, environment: Mapping[str, str], clock: Clock, *, keep: bool = False,
    known: KnownJournal | None = None, code_secrets: Sequence[bytes] = (),
) -> Sealed | None:  # fmt: skip
    """Seal the journal of a daemon that no longer runs, including the last pending totals. None: it was killed when it
    had closed a segment and not begun the next, so that there are only closed ones.

    `keep`: copy a journal that cannot be sealed to where its ledger would go. `known`: what its daemon wrote; a journal
    that lacks it, or has a wrong code, is put aside, and a ledger that says so is sealed instead.
    Raises StateDirBusyError while a daemon runs, and what `seal` raises.
    """
    folder = StateDir(state_dir(settings, environment))
    if known is None and not any(map(is_file, (folder.journal, folder.next_journal, *closed_segments(folder)))):
        raise LedgerError(
            f"there is no journal in {folder.path}", hint="give --state-dir the folder that the daemon wrote to"
        )
    folder.acquire(
        "stop that one, which seals its run itself; --rolling seals the run so far",
        "copy the folder to a writable disk and give --state-dir the copy; `flopsd seal --journal` seals the journal "
        "alone, on any disk",
    )
    journal = Journal(folder)
    try:
        try:
            settle_next(folder, known)
            if ends_with_closed(folder):
                return None
            if (recovery := journal.recover("damaged.journal.jsonl", known)) is not None:
                log.warning(
                    "the journal was damaged at its end (%s): %d bytes are left out",
                    say_all(REASONS, recovery.reasons),
                    recovery.cut_bytes,
                )
            if known is not None:
                deque(journal.read(code_secrets), maxlen=0)
        except (JournalReplacedError, JournalDamagedError) as fault:
            from flopsd.daemon.ledgers.lost_journal import write_instead

            if known is None:
                raise
            write_instead(journal, known, settings, environment, clock, fault)
        try:
            return seal(
                folder.journal, folder, settings, clock,
                evidence_from=environment, head=journal.head, code_secrets=code_secrets,
            )  # fmt: skip
        except FlopsdError:
            if keep:
                log.error("%s", keep_journal(settings, folder, clock, None))
            raise
    finally:
        journal.close()
        folder.release()


def seal_own(
    settings: Settings, folder: StateDir, clock: Clock, stopped_ns: int, err: IO[str], environment: Mapping[str, str],
    head: Head, code_secrets: Sequence[bytes], refused_pin: int | None,
) -> tuple[bool, bool]:  # fmt: skip
    """Seal the run of this daemon at its end and copy the ledger, within --stop-seconds since `stopped_ns`. Only then
    write the figures to `err`, so that a blocked reader costs no copy. Return whether the run was sealed, and whether
    every copy was made. A failure is logged; the journal is kept."""
    from flopsd.report.ledger_text import sealed_text

    is_loud = log.isEnabledFor(logging.WARNING)  # not with -q
    with ProgressLine(err, clock, "flopsd: sealing", is_shown=is_loud and is_screen(err)):
        try:
            sealed = seal(
                folder.journal, folder, settings, clock,
                evidence_from=environment, head=head, code_secrets=code_secrets, refused_pin=refused_pin,
            )  # fmt: skip
        except FlopsdError as fault:
            kept = keep_journal(settings, folder, clock, stopped_ns)
            log.error("NOT SEALED: %s", "; ".join(filter(None, (str(fault), fault.hint, kept))))
            return False, False
        copies = copy_sealed(settings, sealed, clock, stopped_ns, folder)
    if is_loud:
        say(err, sealed_text(sealed, copies_made(copies)))
    for copy in copies:
        if copy.fault is not None:
            log.error(
                "NOT COPIED to %s: %s; the ledger is complete at %s; the next daemon in this state folder, or "
                "`%s`, delivers the same bytes",
                copy.location,
                copy.fault,
                sealed.ledger,
                shell_command(("flopsd", "copy", "--state-dir", str(folder.path))),
            )
    return True, all(copy.fault is None for copy in copies)
