"""Deliver sealed ledgers until every destination has them, with exactly the bytes that were sealed.

A note in the state folder lists each ledger and the destinations that still lack it. A ledger is noted before it is
copied, so that no copy is lost if the process ends in between: the next daemon start, or `flopsd copy`, goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from flopsd.attestation.ledger_files import (
    LedgerFiles,
    companions_beside,
    journal_beside,
    kept_aside,
    ledger_files_lock,
    names_in,
    public_key_beside,
)
from flopsd.attestation.storage.copies import CopyResult, compare_files, copy_files
from flopsd.core.dataclass import dataclass
from flopsd.errors import FileChangedError, FlopsdError, StorageError
from flopsd.journal.delivery_note import (
    COPIED_BYTES_PER_S,
    Delivery,
    Destination,
    NotedLedger,
    not_known,
    read_deliveries,
    write_deliveries,
)
from flopsd.journal.state_dir import StateDir
from flopsd.settings.data_files import companion_beside
from flopsd.settings.locations import S3Location, plain_location
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.file_presence import exists
from flopsd.system.known_files import known_file, one_extends_other

log = logging.getLogger("flopsd")
Location: TypeAlias = "Path | S3Location"
WHERE = {"journal": journal_beside, "publicKey": public_key_beside, "ledger": Path}
SLOW_SECONDS = 5.0  # a store that takes longer to fail is tried once a round, not once for each ledger


@dataclass(frozen=True, slots=True)
class Delivered:
    """One attempt to deliver a ledger, and its result."""

    ledger: Path
    copy: CopyResult


class Deliveries:
    """The ledgers sealed in one state folder, and their destinations. Several processes may use it at the same time."""

    def __init__(self, folder: StateDir, clock: Clock) -> None:
        self._folder, self._clock = folder, clock

    def note(self, ledger: Path, locations: Sequence[Location]) -> None:
        """Note durably that the sealed `ledger` has to go to those of `locations` that do not have it yet. Raises
        StorageError if the note cannot be written, OSError if the ledger cannot be read."""
        ledger = ledger.absolute()
        paths = {kind: where(ledger) for kind, where in WHERE.items()}
        digests = {kind: known_file(path).sha256 for kind, path in paths.items() if exists(path)}
        digests |= {name: file.sha256 for name, file in companions_beside(ledger).items()}
        wanted = {place.name: place for place in (Destination(_address(location)) for location in locations)}

        def change(noted: list[NotedLedger]) -> list[NotedLedger]:
            before = {one.name: one for entry in noted if entry.sha256 == digests for one in entry.destinations}
            done = {name: one for name, one in before.items() if one.state is Delivery.DELIVERED}
            places = before | wanted | done
            # An earlier ledger at the same path was put aside, or replaced by a ledger that continues its journal.
            others = [one if one.ledger != ledger else _put_aside(one) for one in noted if one.sha256 != digests]
            earlier = [_yielding_to(one, ledger, wanted) for one in others if one is not None]
            return [*earlier, NotedLedger(ledger, digests, tuple(places.values()))]

        self._change(change)

    def is_noted(self, ledger: Path) -> bool:
        """Whether these very bytes were sealed as a final ledger, which no other bytes may replace. Raises
        StorageError."""
        return self._entry(ledger) is not None

    def is_delivered(self, ledger: Path, seconds: float) -> bool:
        """Whether this very ledger, with its files, was delivered to each of its destinations, of which there is at
        least one, and is still there, as far as they may be read within `seconds`. Otherwise it is delivered again.
        Raises StorageError, also if a destination is the ledger's own path, and so holds no copy."""
        entry = self._entry(ledger)
        if entry is None or not entry.destinations or entry.undelivered:
            return False
        places = [plain_location(place.address) for place in entry.destinations]
        for there in places:
            if isinstance(there, Path) and exists(there) and there.samefile(ledger):
                raise StorageError(f"{there} is the ledger {ledger} itself, not a copy")
        try:
            files = _as_sealed(entry)
        except FileNotFoundError:
            return True  # it was compared before its removal began
        copies = compare_files(files, places, self._clock, seconds)
        self._mark(entry.sha256, entry.destinations, copies)
        if lost := [copy for copy in copies if copy.fault is not None]:
            raise StorageError(f"{lost[0].location} does not hold {ledger}, which was copied there: {lost[0].fault}")
        return True

    def undelivered(self) -> list[NotedLedger]:
        """The ledgers that a destination still lacks, the oldest first. Raises StorageError."""
        return [one for one in _read(self._folder.deliveries) if one.undelivered]

    def is_undelivered(self, ledger: Path) -> bool:
        """Whether a destination still lacks this very ledger, so that its bytes must be kept. Raises StorageError."""
        entry = self._entry(ledger)
        return entry is not None and bool(entry.undelivered)

    def deliver(self, seconds: float, *, only: Path | None = None, by_hand: bool = False) -> list[Delivered]:
        """Make the pending copies of ledger `only`, or of all ledgers, oldest first, within `seconds`. A failed copy
        stays pending. `by_hand`: retry refused copies too, and read the copies back. Raises StorageError if the note
        cannot be read, OSError."""
        deadline_ns = self._clock.boottime_ns() + round(seconds * NS_PER_S)
        slow, done = set[str](), list[Delivered]()
        only_sha256 = None if only is None else known_file(only).sha256
        for entry in self.undelivered():
            places = [one for one in entry.undelivered if by_hand or one.state is Delivery.PENDING]
            places = [one for one in places if _store(one) not in slow]
            left = (deadline_ns - self._clock.boottime_ns()) / NS_PER_S
            if not places or left <= 0 or only_sha256 not in (None, entry.sha256["ledger"]):
                continue
            began_ns = self._clock.boottime_ns()
            # A ledger gets half of the remaining time, or more if its size needs more.
            copies = self._deliver(entry, places, left if only else max(left / 2, _needs_seconds(entry)), by_hand)
            if self._clock.boottime_ns() - began_ns > SLOW_SECONDS * NS_PER_S:
                slow.update(_store(one) for one, copy in zip(places, copies, strict=True) if copy.fault is not None)
            try:
                self._mark(entry.sha256, places, copies)
            except StorageError as fault:
                log.warning("%s; the same files will be copied again", fault)
            done += [Delivered(entry.ledger, copy) for copy in copies]
        return done

    def mark_delivered(self, ledger: Path, locations: Sequence[Location]) -> None:
        """Note that `ledger` is at `locations`, no matter how it got there. Raises StorageError."""
        entry = self._entry(ledger)
        if entry is not None and locations:
            places = [Destination(_address(location)) for location in locations]
            self._mark(entry.sha256, places, [CopyResult(location, None) for location in locations])

    def give_up(self, names: Sequence[str]) -> list[NotedLedger]:
        """Remove undelivered destinations, given by address or name, from the note. Return the ledgers that had them.
        Raises StorageError."""
        had = list[NotedLedger]()

        def without(entry: NotedLedger) -> NotedLedger:
            gone = [one for one in entry.undelivered if one.name in names or one.address in names]
            had.extend([entry] if gone else [])
            return replace(entry, destinations=tuple(one for one in entry.destinations if one not in gone))

        self._change(lambda noted: [without(entry) for entry in noted])
        return had

    def _entry(self, ledger: Path) -> NotedLedger | None:
        noted = _read(self._folder.deliveries)
        sha256 = known_file(ledger).sha256 if noted and exists(ledger) else None
        return next((one for one in noted if one.sha256["ledger"] == sha256), None)

    def _deliver(
        self, entry: NotedLedger, places: Sequence[Destination], seconds: float, by_hand: bool
    ) -> list[CopyResult]:
        locations = [plain_location(one.address) for one in places]
        try:
            files = _as_sealed(_put_aside(entry) or entry)
        except OSError as fault:
            why = f"cannot read {fault.filename}: {fault.strerror}"
        except FlopsdError as fault:
            why = fault.with_hint
        else:
            return copy_files(files, locations, self._clock, seconds, check=by_hand)
        return [CopyResult(location, why) for location in locations]

    def _mark(self, sha256: object, places: Sequence[Destination], copies: Sequence[CopyResult]) -> None:
        new = {
            place.name: Destination(place.address, _state(copy), copy.fault or "")
            for place, copy in zip(places, copies, strict=True)
        }

        def marked(entry: NotedLedger) -> NotedLedger:
            there = {one.name: one for one in entry.destinations}
            return replace(entry, destinations=tuple((there | new).values())) if entry.sha256 == sha256 else entry

        self._change(lambda noted: [marked(entry) for entry in noted])

    def _change(self, change: Callable[[list[NotedLedger]], list[NotedLedger]]) -> None:
        path = self._folder.deliveries
        try:
            with ledger_files_lock(self._folder.seal_lock, self._clock):
                before = list(_read(path))
                after = [one for one in change(before) if one.undelivered or exists(one.ledger)]
                if after != before:
                    write_deliveries(path, after)
        except OSError as fault:
            raise StorageError(
                f"cannot record in {path} which copies were made: {fault.strerror}",
                hint="the ledger is sealed; free space, then repeat `flopsd seal`, which copies the same bytes",
            ) from fault


def _read(path: Path) -> tuple[NotedLedger, ...]:
    """The entries of the note. Raises StorageError, also for a malformed address."""
    noted = read_deliveries(path)
    try:
        for place in (place for entry in noted for place in entry.destinations):
            plain_location(place.address)
    except ValueError as fault:
        raise not_known(path) from fault
    return noted


def _address(location: Location) -> str:
    return location.address if isinstance(location, S3Location) else str(location.absolute())


def _store(place: Destination) -> str:
    """The bucket or folder of a destination: if it fails, it fails for all ledgers alike."""
    location = plain_location(place.address)
    return location.bucket if isinstance(location, S3Location) else str(location.parent)


def _needs_seconds(entry: NotedLedger) -> float:
    try:
        return journal_beside(entry.ledger).stat().st_size / COPIED_BYTES_PER_S
    except OSError:
        return 0.0  # put aside, or gone


def _state(copy: CopyResult) -> Delivery:
    if copy.fault is None:
        return Delivery.DELIVERED
    return Delivery.REFUSED if copy.refused else Delivery.PENDING


def _as_sealed(entry: NotedLedger) -> LedgerFiles:
    """The files of a ledger, with the digests that were sealed. Raises OSError, FileChangedError."""
    found = {
        kind: known_file(WHERE[kind](entry.ledger) if kind in WHERE else companion_beside(entry.ledger, kind))
        for kind in entry.sha256
    }
    for kind, file in found.items():
        if file.sha256 != entry.sha256[kind]:
            raise FileChangedError(file.path)
    companions = {kind: file for kind, file in found.items() if kind not in WHERE}
    return LedgerFiles(found["ledger"], found.get("journal"), found["publicKey"], companions)


def _put_aside(entry: NotedLedger) -> NotedLedger | None:
    """The entry with the new path of a ledger whose files were put aside for another ledger; None if they were not."""
    ledger = entry.ledger
    if exists(ledger) and known_file(ledger).sha256 == entry.sha256["ledger"]:
        return None
    kept = kept_aside(ledger, names_in(ledger.parent))
    found = (path for path in kept if known_file(path).sha256 == entry.sha256["ledger"])
    return next((replace(entry, ledger=path) for path in found), None)


def _yielding_to(entry: NotedLedger, ledger: Path, names: Collection[str]) -> NotedLedger:
    """An earlier entry after a later `ledger` goes to some of its destinations, where it must not overwrite it: there
    it is refused, or needs no copy if the later ledger contains it. Destinations that never overwrite stay."""
    mine = [one for one in entry.undelivered if one.name in names and _overwrites(one)]
    if not mine:
        return entry
    before, after = journal_beside(entry.ledger), journal_beside(ledger)
    contained = exists(before) and exists(after) and one_extends_other(before, known_file(after))
    why = f"a later ledger, {ledger}, goes there too; `flopsd copy LEDGER --to` copies this one to another place"
    places = [replace(one, state=Delivery.REFUSED, reason=why) if one in mine else one for one in entry.destinations]
    return replace(entry, destinations=tuple(one for one in places if not (contained and one.reason is why)))


def _overwrites(place: Destination) -> bool:
    location = plain_location(place.address)
    return not isinstance(location, S3Location) or location.overwrite
