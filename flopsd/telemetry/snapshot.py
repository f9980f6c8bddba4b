"""The immutable state that the writer publishes after every reading: all that metrics, status and page read.

FLOP are computed on first use, in the reader's thread: publishing costs the metering loop one reference.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import field, replace
from typing import NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.rated_tally import RatedTally
from flopsd.core.ledger.run_view import DeviceView, RunView
from flopsd.core.model import ChildCost, Gauges
from flopsd.core.peaks import PeakTable
from flopsd.core.tally import Tally
from flopsd.core.values import NS_PER_S
from flopsd.telemetry.last_gap import GapKind, LastGap, open_gap


@dataclass(frozen=True, slots=True)
class SourceState:
    """One source at its last message. `reason`: why it is not up."""

    up: bool = False
    reason: str = "starting"
    read_seconds: float | None = None
    last_reading_wall_ns: int | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    replay: bool = False
    absent: bool = False  # no such hardware on this machine: not a fault, and not shown as one
    child: ChildCost | None = None  # of a program that it started, as at its last sweep


class KeyState(NamedTuple):
    """Whether the signing key can sign, as last tried; None: not tried yet. `reason`: a KeyFault, `problem` in words
    with what to do about it; both empty unless it cannot."""

    usable: bool | None = None
    reason: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DiskState:
    """The disk of the state folder, as last looked at. None: not known."""

    journal_bytes: int | None = None  # closed segments that wait included
    free_bytes: int | None = None
    waiting_segments: int | None = None  # closed, and not sealed and at every destination yet; None without rotation


@dataclass(frozen=True, slots=True)
class JournalState:
    """What only the moment of the request has: the host's wall clock, and the state of key, rolling seals and disk."""

    wall_ns: int
    seal_every_ns: int | None = None  # None: there are no rolling seals
    last_seal_wall_ns: int | None = None  # sealed, by this daemon
    seal_failures: int = 0
    copies: bool = False  # whether rolling seals are copied anywhere
    last_copy_wall_ns: int | None = None  # copied to every destination, by this daemon
    copy_failures: int = 0
    undelivered_ledgers: int | None = None  # sealed ones in the state folder that a destination still lacks
    key: KeyState = field(default_factory=KeyState)
    disk: DiskState = field(default_factory=DiskState)
    seal_fault: str = ""  # why the last rolling seal or its copies failed; empty: they did not


@dataclass(frozen=True)
class DeviceState(DeviceView):
    """A device as the daemon sees it now; the last of its tallies is that of this daemon start."""

    before: RatedTally  # the last tally one reading ago, for the rate
    gauges: Gauges | None = None
    gap: LastGap | None = None  # the newest one of this daemon start

    @property
    def tally(self) -> Tally:
        return self.now.tally

    def counted(self, tally: Tally, gauges: Gauges | None, gap: LastGap | None) -> DeviceState:
        """The state after one more reading. `gap`: the newest gap now."""
        before = self.now  # built, not replaced: this is done for each device at each reading
        now = RatedTally(before.start, before.entry, tally, before.rating, before.phase)
        return DeviceState((*self.rated[:-1], now), before, gauges, gap)

    def described(self, now: RatedTally) -> DeviceState:
        """The same totals of a device that is described or rated in another way now."""
        before = replace(now, tally=self.before.tally)
        return replace(self, rated=(*self.rated[:-1], now), before=before)

    @property
    def is_up(self) -> bool | None:
        """Whether the last reading was not a gap; None before the first, at the end, and while it is accounted for
        elsewhere."""
        gap = open_gap(self.gap, self.rated[-1].tally.watermark_ns)
        if gap is None:
            return True
        return None if gap.kind in (GapKind.STARTING, GapKind.ELSEWHERE) else False

    @property
    def rate_flop_per_s(self) -> int | None:
        """Measured FLOP/s over the last reading; None where it measured nothing."""
        now, before = self.tally, self.before.tally
        passed_ns = now.watermark_ns - before.watermark_ns
        if passed_ns <= 0 or now.gap_ns != before.gap_ns:
            return None
        measured = self.now.figures.measured_flop
        if measured is None:
            return None
        return (measured - (self.before.figures.measured_flop or 0)) * NS_PER_S // passed_ns


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The run, and what only the running daemon knows, at one moment."""

    view: RunView
    platform: str
    table: PeakTable
    devices: tuple[DeviceState, ...]  # those that this daemon start meters; `view` has all
    sources: Mapping[str, SourceState]
    journal_records: int
    journal_last_append_wall_ns: int | None
    journal_fault: str
    journal_state: JournalState | None = field(default=None, compare=False)  # not of the writer, but of the request
    wall_offset_ns: int | None = None  # what to add to boot time for wall-clock time
    rates: array[float] = field(default_factory=lambda: array("d"))  # points of a RateHistory
    journal_put_back: int = 0
    ended: bool = False  # by a signal or with its job, and not by a fault
    replayed: bool = False  # an earlier daemon start of the run read a recording

    @property
    def ready(self) -> bool:
        """Whether a device has been read, and not all have a gap now."""
        return any(device.tally.total_observed_ns for device in self.devices) and self.blind < len(self.devices)

    @property
    def blind(self) -> int:
        """How many devices have a gap now: lost ones, and those that the peak table does not have."""
        return sum(device.is_up is False for device in self.devices)

    @property
    def replay(self) -> bool:
        return self.replayed or any(source.replay for source in self.sources.values())

    @property
    def rate_flop_per_s(self) -> int | None:
        rates = [rate for device in self.devices if (rate := device.rate_flop_per_s) is not None]
        return sum(rates) if rates else None
