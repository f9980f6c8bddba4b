"""The disk of the state folder: the free space, the space that journals take, and how long the disk will last."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from flopsd.attestation.ledger_files import journal_beside
from flopsd.daemon.ledger_places import local_ledger
from flopsd.errors import JournalError
from flopsd.journal.segments import closed_segments
from flopsd.journal.state_dir import StateDir
from flopsd.report.terminal import counted
from flopsd.settings.parsers import parse_rotation
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.telemetry.snapshot import DiskState

log = logging.getLogger("flopsd")
LOOK_SECONDS = 15
ENOUGH_BYTES, ENOUGH_DAYS, MOST_DAYS = 100_000_000, 7, 1000
# Of a checkpoint. With all running counters it takes 610 bytes, 330 for each device and 400 for a process on it with
# the callback; the rest is for gaps, seals and what processes declare.
RECORD_BYTES, DEVICE_BYTES = 800, 790
MB = 1_000_000


class StateDisk:
    """Looks at the disk every LOOK_SECONDS, in the thread that writes the journal there."""

    def __init__(self, settings: Settings, folder: StateDir, clock: Clock) -> None:
        self._settings, self._folder, self._clock = settings, folder, clock
        self._next_ns, self._is_said = clock.boottime_ns(), False
        self.state = DiskState()  # safe to read from any thread

    def each_tick(self, devices: int) -> None:
        """Look at the disk, if that is due. Once the number of devices is known, log what they need."""
        now_ns = self._clock.boottime_ns()
        is_to_be_said = devices > 0 and not self._is_said
        if now_ns < self._next_ns and not is_to_be_said:
            return
        self._next_ns = now_ns + LOOK_SECONDS * NS_PER_S
        self.state = disk_state(self._folder, is_rotated=self._settings.rotate_every is not None)
        if is_to_be_said:
            self._is_said = True
            need = need_of(self._settings, self._folder, devices, self.state)
            log.log(logging.INFO if need.is_met else logging.WARNING, "disk of %s: %s", self._folder.path, need.text)


def disk_state(folder: StateDir, *, is_rotated: bool) -> DiskState:
    """Return the state of the disk now, with None for what cannot be found out."""
    free = journals = waiting = None
    try:
        disk = os.statvfs(folder.path)
        free = disk.f_bavail * disk.f_frsize
    except OSError:
        pass
    try:
        closed = closed_segments(folder)
        journals = folder.journal.stat().st_size + sum(path.stat().st_size for path in closed)
        waiting = len(closed) if closed or is_rotated else None
    except (OSError, JournalError):
        pass  # such as a segment that was sealed just now and is gone: the next look succeeds
    return DiskState(journals, free, waiting)


class DiskNeed(NamedTuple):
    """The space that a run needs, in words, and whether there is enough: for a week, or with rotation for ever."""

    text: str
    is_met: bool


def need_of(settings: Settings, folder: StateDir, devices: int, now: DiskState) -> DiskNeed:
    """Return what a run with so many devices needs of the disk of its state folder. `now`: the disk's state."""
    if now.free_bytes is None:
        return DiskNeed("the free space is not known", is_met=False)
    free, copies = now.free_bytes, _copies(settings, folder)
    if not devices:
        return DiskNeed(f"{free // MB} MB free", is_met=free >= ENOUGH_BYTES)
    day = round((RECORD_BYTES + DEVICE_BYTES * devices) * 86400 / settings.checkpoint_seconds)
    what = f"{free // MB} MB free; {counted(devices, 'device')} may write {_mb(day)} of journal a day"
    if settings.rotate_every is None:
        left = free - _to_be_copied(settings, folder, now.journal_bytes or 0, copies)
        days = left // (day * copies)
        with_copies = "" if copies == 1 else f", {copies} times that with the copies next to the ledger"
        text = f"{what}{with_copies}: full {_in_about(days)}"
        if days < ENOUGH_DAYS:
            text += "; --rotate-every and --keep-segments bound it"
        return DiskNeed(text, is_met=days >= ENOUGH_DAYS and free >= ENOUGH_BYTES)
    age_seconds, size = parse_rotation(settings.rotate_every)
    segment = size or day * (age_seconds or 0) // 86400
    kept = settings.keep_segments
    if kept is None:
        days = (free - copies * segment) // day
        text = f"{what}, and without --keep-segments none of it is removed: full {_in_about(days)}"
        return DiskNeed(text, is_met=days >= ENOUGH_DAYS and free >= ENOUGH_BYTES)
    bound = segment * (copies + (kept if copies > 1 else 0))
    text = f"{what}, at most {_mb(bound)} at a time as long as every destination accepts its segments"
    return DiskNeed(text, is_met=free + (now.journal_bytes or 0) >= bound and free >= ENOUGH_BYTES)


def _copies(settings: Settings, folder: StateDir) -> int:
    """Return how often a journal lies on this disk: itself, next to its ledger, once more while that is replaced."""
    if not settings.seal or _device(_ledger(settings, folder).parent) != _device(folder.path):
        return 1
    return 2 if settings.seal_every_seconds is None else 3


def _to_be_copied(settings: Settings, folder: StateDir, journal_bytes: int, copies: int) -> int:
    """Return how many bytes the copies of the present journal will still take."""
    try:
        there = journal_beside(_ledger(settings, folder)).stat().st_size
    except OSError:
        there = 0
    return max(0, (copies - 1) * journal_bytes - there)


def _ledger(settings: Settings, folder: StateDir) -> Path:
    return local_ledger(settings, folder.path, settings.run_id or "run", "node").absolute()


def _device(path: Path) -> int | None:
    """Return the device number of the file system that `path` is on, or will be."""
    for place in (path, *path.parents):
        try:
            return place.stat().st_dev
        except OSError:
            continue
    return None


def _in_about(days: int) -> str:
    return f"in about {max(0, days)} days" if days < MOST_DAYS else f"in more than {MOST_DAYS} days"


def _mb(size: int) -> str:
    return f"{-(-size // MB)} MB"
