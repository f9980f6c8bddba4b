"""`flopsd copy`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.cli.common import OK, Verbs, add_repeatable, add_settings, be_nice, end_with, note, settings_of, waiting
from flopsd.errors import ConfigError, LedgerError, StorageError
from flopsd.report.terminal import counted, shown
from flopsd.settings.locations import named, parse_location
from flopsd.settings.schema import BY_KEY
from flopsd.system.clock import SystemClock
from flopsd.system.file_presence import exists, is_folder

if TYPE_CHECKING:
    from flopsd.attestation.storage.deliveries import Delivered, Deliveries

HAND_SECONDS, BACKGROUND_SECONDS = 24 * 3600.0, 600.0


def add(verbs: Verbs) -> None:
    copy = verbs.add_parser(
        "copy",
        help="copy a sealed ledger byte for byte, or deliver what is pending",
        usage="flopsd copy [options] [LEDGER]",
        description="Copies a sealed ledger, of a node or merged, with its files to other places, then compares the "
        "digests of the copies. Without --to it makes the copies that LEDGER, or each ledger of the state folder, "
        "still lacks. Nothing is sealed again. Exits with 1 if a copy failed.",
    )
    # Not named like the setting --ledger, where a run writes: a ledger to copy may be in a place that it refuses.
    copy.add_argument("sealed", nargs="?", metavar="LEDGER", help="a sealed ledger, with its files next to it")
    add_repeatable(copy, "--to", "DESTINATION", "where to copy LEDGER: a path or s3://BUCKET/KEY with its options")
    add_repeatable(
        copy, "--give-up", "DESTINATION", "stop delivering to this destination, which some ledger has not reached yet"
    )
    add_settings(copy, [BY_KEY["state_dir"]])
    copy.add_argument("--json", action="store_true", help="print the result as JSON")
    copy.add_argument("--background", action="store_true", help=argparse.SUPPRESS)  # set by the daemon
    copy.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)  # with --background: see `end_with`
    copy.set_defaults(run=_copy)


def _copy(arguments: argparse.Namespace) -> int:
    end_with(arguments.lifeline)
    if arguments.background:
        be_nice()
    from flopsd.attestation.storage.deliveries import Deliveries
    from flopsd.daemon.ledger_places import state_dir
    from flopsd.journal.state_dir import StateDir

    if arguments.to and arguments.sealed is None:
        raise ConfigError(["copy: --to needs the LEDGER to copy"])
    folder = state_dir(settings_of(arguments), os.environ)
    deliveries = Deliveries(StateDir(folder), SystemClock())
    if arguments.give_up:
        _give_up(arguments, deliveries)
    ledger = None if arguments.sealed is None else Path(arguments.sealed)
    if not arguments.to and not is_folder(folder):
        hint = "" if ledger is None else f"; or --to a destination to copy {ledger} there"
        raise LedgerError(
            f"there is no folder {folder}", hint=f"give --state-dir the folder that the daemon wrote to{hint}"
        )
    try:
        with waiting(arguments, "copying"):
            if ledger is not None and arguments.to:
                done = _copy_to(ledger, arguments.to, deliveries)
            else:
                seconds = BACKGROUND_SECONDS if arguments.background else HAND_SECONDS
                done = deliveries.deliver(seconds, only=ledger, by_hand=not arguments.background)
    except OSError as fault:
        raise LedgerError(f"cannot read {fault.filename}: {fault.strerror}") from fault
    pending = None if arguments.to else len(deliveries.undelivered())
    if arguments.json:
        print(json.dumps({"copies": [_facts(one) for one in done], "undeliveredLedgers": pending}))
    elif not arguments.quiet:
        made = [one for one in done if one.copy.fault is None]
        lines = [f"copied {one.ledger} to {one.copy.location}" for one in made]
        lines += [f"  {one.copy.unread}" for one in made if one.copy.unread]
        left = f"{counted(pending, 'ledger')} of {folder} still to be delivered" if pending else ""
        print(shown([*lines, *([left] if left else [] if done else [f"nothing is pending in {folder}"])]), end="")
    if failed := [one for one in done if one.copy.fault is not None]:
        texts = (f"NOT COPIED to {one.copy.location}: {one.copy.fault}; {one.ledger} is complete" for one in failed)
        again = "" if arguments.background or all(one.copy.refused for one in failed) else "`flopsd copy` tries again"
        raise StorageError(*texts, hint="repeat this command to try again" if again and arguments.to else again)
    return OK


def _copy_to(ledger: Path, addresses: list[str], deliveries: Deliveries) -> list[Delivered]:
    from flopsd.attestation.ledger_files import journal_beside, read_ledger_files
    from flopsd.attestation.signed_statement import read_ledger, statement_in
    from flopsd.attestation.storage.copies import copy_files
    from flopsd.attestation.storage.deliveries import Delivered
    from flopsd.core.envelope import parse_envelope

    predicate = statement_in(parse_envelope(read_ledger(ledger)))["predicate"]
    of_node = predicate.get("kind") == "node"
    files = read_ledger_files(ledger)
    if of_node and files.journal is None:
        raise LedgerError(
            f"the journal {journal_beside(ledger)} does not exist: a copy without it cannot be verified",
            hint="put the journal next to the ledger",
        )
    names = (predicate["run"]["id"], predicate["node"]["name"]) if of_node else None
    try:
        locations = [parse_location(text if names is None else named(text, *names)) for text in addresses]
    except ValueError as fault:
        raise ConfigError([f"--to: {fault}"]) from fault
    for place in locations:
        if isinstance(place, Path) and exists(place) and place.samefile(ledger):
            raise ConfigError([f"--to: {place} is the ledger itself"])
    copies = copy_files(files, locations, SystemClock(), HAND_SECONDS, check=True)
    try:
        deliveries.mark_delivered(ledger, [one.location for one in copies if one.fault is None])
    except StorageError as fault:
        note(f"WARNING: {fault}")
    return [Delivered(ledger, one) for one in copies]


def _give_up(arguments: argparse.Namespace, deliveries: Deliveries) -> None:
    had = deliveries.give_up(arguments.give_up)
    if not had:
        raise LedgerError(f"no ledger still has to reach {' or '.join(arguments.give_up)}")
    for one in had:
        note(f"{one.ledger} is no longer delivered to {', '.join(arguments.give_up)}")


def _facts(one: Delivered) -> dict[str, object]:
    copy = one.copy
    return {
        "ledger": str(one.ledger),
        "destination": str(copy.location),
        "copied": copy.fault is None,
        "reason": copy.fault,
        "refused": copy.refused,
        "notReadBack": copy.unread or None,
    }
