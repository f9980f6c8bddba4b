"""Seals and copies each closed segment of a rotated run once; what fails is tried again at the next call."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from flopsd.attestation.ledger_files import journal_and_key_beside
from flopsd.attestation.storage.copies import CopyResult
from flopsd.attestation.storage.deliveries import Deliveries
from flopsd.core.dataclass import dataclass
from flopsd.daemon.ledger_places import local_ledger, run_node_segment
from flopsd.daemon.ledgers.copying import copy_sealed, note_delivery, seconds_left
from flopsd.daemon.ledgers.sealing import seal
from flopsd.errors import FlopsdError, JournalError, SigningKeyError
from flopsd.journal.segments import closed_segments, first_record, heads_in_chain
from flopsd.journal.state_dir import StateDir
from flopsd.report.terminal import shell_command
from flopsd.settings.locations import of_segment
from flopsd.settings.schema import Settings
from flopsd.system.clock import Clock

log = logging.getLogger("flopsd")


@dataclass(slots=True)
class ClosedSeals:
    """The outcome of sealing closed segments: the ledgers sealed now, what failed, and what the daemon will deliver."""

    sealed: list[Path] = field(default_factory=list)
    not_sealed: list[str] = field(default_factory=list)
    not_copied: list[CopyResult] = field(default_factory=list)
    to_deliver: list[Path] = field(default_factory=list)

    @property
    def all_done(self) -> bool:
        return not self.not_sealed and not self.not_copied and not self.to_deliver


def seal_closed(
    folder: StateDir, settings: Settings, clock: Clock, environment: Mapping[str, str], *,
    stopped_ns: int | None = None, refused_pin: int | None = None, for_daemon: bool = False,
) -> ClosedSeals:  # fmt: skip
    """Seal and copy the closed segments in `folder`. A finished one is removed from the folder of closed segments: its
    journal lies next to its ledger. `stopped_ns`: when --stop-seconds began to run. `refused_pin`: see `seal`.
    `for_daemon`: note the copies for the daemon's delivery process. Raises SigningKeyError."""

    heads, run, done, in_order = dict(heads_in_chain(folder)), _run_of(folder), ClosedSeals(), True
    for path in closed_segments(folder):
        if stopped_ns is not None and seconds_left(settings, clock, stopped_ns) <= 0:
            break
        try:
            sealed = seal(
                path, folder, settings, clock,
                evidence_from=environment, head=heads.get(path.name), closed=True, refused_pin=refused_pin,
            )  # fmt: skip
        except SigningKeyError:
            raise  # the others would be signed with the same key
        except FlopsdError as fault:
            done.not_sealed.append(f"{path}: {fault.with_hint}")
            continue
        done.sealed += [sealed.ledger] if sealed.is_new else []
        is_there = note_delivery(settings, sealed, clock, folder) if for_daemon else None
        if is_there is None:
            copies = copy_sealed(settings, sealed, clock, stopped_ns, folder)
            done.not_copied += [copy for copy in copies if copy.fault is not None]
        elif not is_there:
            done.to_deliver.append(sealed.ledger)
        # Each journal names the one before it, so segments are removed in order. The newest stays until a next segment
        # continues it, or until another run has the folder.
        if (path.name in heads or run not in (None, sealed.run)) and done.all_done and in_order:
            in_order = _is_removed(path)
    if settings.keep_segments is not None:
        _remove_delivered(folder, settings, clock, stopped_ns)
    return done


def _is_removed(path: Path) -> bool:
    """Remove a finished segment; return False, and log why, if it stays."""
    try:
        path.unlink(missing_ok=True)  # another process that seals may have done it
    except OSError as fault:
        log.warning(
            "%s is sealed and copied, but cannot be removed: %s; check its disk; the next seal tries again",
            path,
            fault.strerror,
        )
        return False
    return True


def _run_of(folder: StateDir) -> object:
    """Return the run whose journal is being written; None: not known, or there is none."""
    try:
        return (first_record(folder.journal) or {}).get("run")
    except JournalError:
        return None


def _remove_delivered(folder: StateDir, settings: Settings, clock: Clock, stopped_ns: int | None) -> None:
    """Remove the files of all closed segments except the newest, if their ledgers are at every destination, which is
    read back. A segment without any destination stays, and so does one whose ledger a destination lacks."""
    try:
        run, node, current = run_node_segment(folder.journal, settings)
        waiting = {int(path.name.partition("-")[0]) for path in closed_segments(folder)}
        deliveries, of_run = Deliveries(folder, clock), local_ledger(settings, folder.path, run, node)
        numbers = range(1, (current or 1) - (settings.keep_segments or 0))
        there = set(os.listdir(of_run.parent)) if numbers else set[str]()
        for number in numbers:
            ledger = of_segment(of_run, number)
            if number not in waiting and ledger.name in there:
                left = seconds_left(settings, clock, stopped_ns)
                if left <= 0 or not deliveries.is_delivered(ledger, left):
                    continue
                # The ledger goes last: it shows that the others must go.
                for path in (*journal_and_key_beside(ledger), ledger):
                    path.unlink(missing_ok=True)
                log.warning("segment %d is at every destination: %s and its journal are removed", number, ledger)
    except (OSError, FlopsdError) as fault:
        log.warning("closed segments that were copied stay on the disk: %s", fault)


def seal_left(
    settings: Settings, folder: StateDir, clock: Clock, stopped_ns: int, environment: Mapping[str, str],
    refused_pin: int | None,
) -> bool:  # fmt: skip
    """Seal and copy the remaining closed segments at the end of the run, while there is time; return whether none is
    left. Raises JournalError if that cannot be determined."""
    try:
        done = seal_closed(folder, settings, clock, environment, stopped_ns=stopped_ns, refused_pin=refused_pin)
    except SigningKeyError as fault:
        done = ClosedSeals(not_sealed=[fault.with_hint])
    not_copied = (f"NOT COPIED to {copy.location}: {copy.fault}" for copy in done.not_copied)
    for text in (*done.not_sealed, *not_copied):
        log.error("a closed segment of the run: %s", text)
    if left := closed_segments(folder):
        log.error(
            "%d closed segments of the run still have to be sealed, copied and removed: run `%s`",
            len(left),
            shell_command(("flopsd", "seal", "--state-dir", str(folder.path))),
        )
    return not left
