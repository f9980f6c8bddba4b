"""The tasks for a run's journal alongside the metering: check its key, seal, rotate and deliver it, watch its disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from flopsd.daemon.ledger_places import copy_destinations
from flopsd.daemon.ledgers.key_check import start_key_check
from flopsd.daemon.ledgers.late_deliveries import LateDeliveries
from flopsd.daemon.ledgers.rolling_seal import RollingSeals
from flopsd.daemon.ledgers.rotation import Rotation
from flopsd.daemon.ledgers.state_disk import StateDisk
from flopsd.daemon.writing.writer import Writer
from flopsd.journal.segments import closed_segments
from flopsd.journal.state_dir import StateDir
from flopsd.settings.schema import Settings
from flopsd.system.clock import Clock
from flopsd.system.nameless_file import nameless_file
from flopsd.telemetry.snapshot import JournalState, KeyState, Snapshot


class Commands(NamedTuple):
    """flopsd command lines that the daemon runs as child processes; an empty one is not run."""

    check_key: Sequence[str]
    seal: Sequence[str]  # a rolling seal
    push: Sequence[str]  # pages of metrics come on its stdin
    copy: Sequence[str]  # delivers the ledgers that destinations still lack
    files: Sequence[int] = ()  # open file descriptors that the rolling seal inherits


class Custody:
    """Runs these tasks in the daemon's thread; `with_journal_state` is safe from any thread."""

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], folder: StateDir, clock: Clock,
        head: Callable[[], object], commands: Commands, *, resumed: bool,
    ) -> None:  # fmt: skip
        """`head` returns what the journal contains now. `resumed`: an earlier daemon start wrote to it, too."""
        self._settings, self._clock = settings, clock
        # Notes a PIN that the key's token refused if the state folder cannot be written; every signing process gets it.
        self.refused_pin = nameless_file("flopsd-refused-pin")
        # Closes with this process, however that ends: a seal or copy must not go on beside those of the next one.
        guard, self._lifeline = os.pipe()
        self._files, self._with_lifeline = (self.refused_pin, guard), ("--lifeline", str(guard))
        self._rotation: Rotation | None = None
        self.key = start_key_check(
            settings, self._with_refused_pin(commands.check_key), environment, clock, self._files
        )
        self._rolling = self._seals(commands, head, resumed=resumed)
        if self._rolling is not None and closed_segments(folder):
            self._rolling.closed()
        self._late = (
            LateDeliveries(
                [*commands.copy, *self._with_lifeline], folder.deliveries, clock, self._all_delivered, files=self._files
            )
            if commands.copy
            else None
        )
        self._disk = StateDisk(settings, folder, clock)

    def _all_delivered(self) -> None:
        if self._rolling is not None and self._disk.state.waiting_segments:
            self._rolling.closed()  # the next seal then removes them from the folder

    def _with_refused_pin(self, command: Sequence[str]) -> Sequence[str]:
        return [*command, "--refused-pin", str(self.refused_pin)] if command else command

    def _seals(self, commands: Commands, head: Callable[[], object], *, resumed: bool) -> RollingSeals | None:
        settings, every = self._settings, self._settings.seal_every_seconds
        if not settings.seal or not commands.seal or (every is None and settings.rotate_every is None):
            return None
        # A checkpoint waits for a reading, which may come up to an interval after it is due.
        between = min(settings.checkpoint_seconds, every or 3600) + settings.interval_seconds
        copies = bool(copy_destinations(settings, "run", "node"))
        overdue = every is not None and resumed
        return RollingSeals(
            [*self._with_refused_pin(commands.seal), *self._with_lifeline], every, between, self._clock,
            overdue=overdue, head=head, copies=copies, key=self.key, files=(*self._files, *commands.files),
        )  # fmt: skip

    def checkpointed(self) -> None:
        """Note that a checkpoint is durable."""
        if self._rolling is not None:
            self._rolling.checkpointed()

    def rotate(self, writer: Writer) -> None:
        """Rotate the journal of `writer` from now on, if --rotate-every is set."""
        if self._settings.rotate_every is not None:
            self._rotation = Rotation(self._settings.rotate_every, writer, self._rolling, self._clock)

    def each_tick(self, writer: Writer, *, stop_is_near: bool) -> None:
        if self.key is not None:
            self.key.each_tick()
        if self._rolling is not None and not (self.key is not None and self.key.is_in_the_way):
            if stop_is_near and self._rolling.hurry():
                writer.checkpoint(whole=True)
            if self._rolling.is_due:
                writer.prepare_seal()
            self._rolling.each_tick()
        self._disk.each_tick(len(writer.snapshot.devices))
        if stop_is_near:
            return
        if self._late is not None:
            self._late.each_tick()
        if self._rotation is not None:
            self._rotation.each_tick()

    def stop(self) -> None:
        """Kill every child; the caller seals and copies next, and what is not noted as delivered is delivered again."""
        for one in (self.key, self._rolling, self._late):
            if one is not None:
                one.child.stop()

    def with_journal_state(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with the wall clock and the state of key, seals, copies and disk as of now."""
        wall_ns = self._clock.wall_ns()
        state = replace(
            JournalState(0) if self._rolling is None else self._rolling.state,
            wall_ns=wall_ns,
            undelivered_ledgers=None if self._late is None else self._late.undelivered,
            key=KeyState() if self.key is None else self.key.state,
            disk=self._disk.state,
        )
        return replace(snapshot, journal_state=state, wall_offset_ns=wall_ns - self._clock.boottime_ns())
