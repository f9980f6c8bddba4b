"""`flopsd seal`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flopsd.cli.common import OK, SEAL_KEYS, Verbs, add_settings, be_nice, end_with, note, settings_of, waiting
from flopsd.errors import FlopsdError, LedgerError, SigningKeyError, StorageError
from flopsd.journal.head import Head, KnownJournal
from flopsd.journal.segments import BETWEEN_SEGMENTS
from flopsd.settings.schema import SETTINGS, Settings
from flopsd.system.clock import SystemClock
from flopsd.system.streams import say


def add(verbs: Verbs) -> None:
    seal = verbs.add_parser(
        "seal",
        help="seal the journal of a run into a signed ledger",
        description="Seals the journal of a stopped or killed daemon, or any journal file, into a signed ledger.",
    )
    add_settings(seal, [setting for setting in SETTINGS if setting.key in SEAL_KEYS])
    which = seal.add_mutually_exclusive_group()
    which.add_argument(
        "--journal",
        metavar="FILE",
        help="seal this journal file, live or a copy, into a ledger next to it; an incomplete last record is left out",
    )
    which.add_argument(
        "--rolling",
        action="store_true",
        help="seal the run so far of a running daemon, as the daemon itself does periodically",
    )
    seal.add_argument("--closed-only", action="store_true", help=argparse.SUPPRESS)  # set by the daemon, with --rolling
    seal.add_argument("--refused-pin", type=int, help=argparse.SUPPRESS)  # with --rolling: an open file of the daemon
    seal.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)  # with --rolling: see `end_with`
    seal.add_argument("--at-end", action="store_true", help=argparse.SUPPRESS)  # set by `exec` if its daemon was killed
    seal.add_argument("--known-journal", type=KnownJournal.parse, help=argparse.SUPPRESS)  # what its daemon wrote
    seal.add_argument("--head", type=Head.parse, help=argparse.SUPPRESS)  # the same for a rolling seal
    seal.add_argument("--code-secret", type=int, help=argparse.SUPPRESS)  # a pipe with its daemon's secret
    seal.add_argument("--files-at-start", type=int, help=argparse.SUPPRESS)  # with --at-end
    seal.set_defaults(run=_seal)


def _seal(arguments: argparse.Namespace) -> int:
    end_with(arguments.lifeline)
    clock = SystemClock()
    stopped_ns = clock.boottime_ns() if arguments.at_end else None
    if arguments.rolling:
        be_nice()  # before importing the signing packages
    from flopsd.attestation.storage.copies import CopyResult, refuse_failed
    from flopsd.daemon.ledger_places import state_dir
    from flopsd.daemon.ledgers.closed_segments import ClosedSeals, seal_closed
    from flopsd.daemon.ledgers.copying import copies_made, copy_sealed
    from flopsd.daemon.ledgers.rolling_seal import NOT_SIGNED, SEALED_NOT_COPIED
    from flopsd.daemon.ledgers.sealing import seal as seal_journal
    from flopsd.daemon.ledgers.sealing import seal_ended, seal_file
    from flopsd.daemon.recovery.code_secrets import read_secret
    from flopsd.journal.state_dir import StateDir
    from flopsd.report.ledger_text import sealed_text

    if arguments.files_at_start is not None:
        from flopsd.cli.files_at_start import use_files_at_start

        use_files_at_start(arguments, logged=not arguments.rolling)  # rolling seals would repeat it
    settings = settings_of(arguments)
    state = StateDir(state_dir(settings, os.environ))
    sealed, copies, closed = None, list[CopyResult](), ClosedSeals()
    with waiting(arguments, "sealing") as line:
        if arguments.journal is not None:
            sealed = seal_file(Path(arguments.journal), settings, clock)
        elif arguments.rolling:
            try:
                closed = seal_closed(
                    state, settings, clock, os.environ, refused_pin=arguments.refused_pin, for_daemon=True
                )
                if not arguments.closed_only:
                    sealed = seal_journal(
                        state.journal, state, settings, clock,
                        live=True, head=arguments.head, refused_pin=arguments.refused_pin,
                    )  # fmt: skip
            except SigningKeyError as fault:
                note(f"{fault}; {fault.hint}")
                return NOT_SIGNED
        else:
            secret = read_secret(arguments.code_secret)
            sealed = seal_ended(
                settings,
                os.environ,
                clock,
                keep=arguments.at_end,
                known=arguments.known_journal,
                code_secrets=() if secret is None else (bytes(secret),),
            )

        line("copying the ledger", 0, 0)
        if sealed is not None:
            folder, by_hand = None if arguments.journal is not None else state, not arguments.at_end
            copies = copy_sealed(
                settings, sealed, clock, stopped_ns, folder, rolling=arguments.rolling, by_hand=by_hand
            )
        if arguments.journal is None and not arguments.rolling:
            closed = seal_closed(state, settings, clock, os.environ, stopped_ns=stopped_ns)
    if not arguments.quiet:
        for ledger in closed.sealed:
            say(sys.stdout, f"sealed a closed segment of the run: {ledger}\n")
        if sealed is not None:
            say(sys.stdout, sealed_text(sealed, copies_made(copies)))
            if not arguments.rolling and not arguments.at_end:
                _name_unused(settings, sealed.predicate["method"])
        elif not arguments.rolling:
            note(f"the daemon was killed after it closed a segment and before it began the next; {BETWEEN_SEGMENTS}")
    if closed.not_sealed:
        raise LedgerError("; ".join(closed.not_sealed))
    try:
        refuse_failed(state.segments if sealed is None else sealed.ledger, [*copies, *closed.not_copied])
    except StorageError as fault:
        if not arguments.rolling:
            raise
        say(sys.stderr, f"flopsd: {fault}\n")
        return SEALED_NOT_COPIED
    return OK


def _name_unused(settings: Settings, method: Mapping[str, Any]) -> None:
    """Name the policies and the peak table of the settings by which the run is not judged and rated: it chose its own
    when it began."""
    from flopsd.settings.data_files import has_digest, is_packaged, load_policies

    named = {policy["sha256"] for policy in method["policies"]}
    with suppress(FlopsdError):  # the run does not need them
        unused = [policy.id for policy in load_policies(settings.policies) if policy.sha256 not in named]
        if settings.policies and unused:
            note(f"not judged by {', '.join(unused)}: the policies are those that the run was started with")
    rated_by = method["peakTableSha256"]
    if settings.peaks is not None and is_packaged(rated_by) and not has_digest(Path(settings.peaks), rated_by):
        note(f"{settings.peaks} was not used: the run was metered with flopsd's own peak table")
