"""The immutable state that the writer publishes after every reading; metrics, status and page read nothing else.

FLOP are computed on first use, in the thread of the reader: publishing costs the metering loop one reference.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import field, replace
from typing import NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.rated_tally import RatedTally
from flopsd.core.ledger.run_view import DeviceView, RunView
from flopsd.core.model import ESTIMATING, ChildCost, Gauges
from flopsd.core.peaks import PeakTable
from flopsd.core.tally import Tally
from flopsd.core.values import NS_PER_S
from flopsd.telemetry.last_gap import GapKind, LastGap, open_gap


@dataclass(frozen=True, slots=True)
class SourceState:
    """One source as of its last message. `reason`: why it is not up."""

    up: bool = False
    reason: str = "starting"
    read_seconds: float | None = None
    last_reading_ns: int | None = None  # since boot
    errors: Mapping[str, int] = field(default_factory=dict)
    replay: bool = False
    absent: bool = False  # this machine has no such hardware: not a fault, and not shown
    child: ChildCost | None = None  # the cost of a program that the source started, as of its last sweep


class KeyState(NamedTuple):
    """Whether the signing key could sign when last tried; None: not tried yet. `reason`: a KeyFault; `problem`: the
    fault and its remedy in words; both empty unless signing failed."""

    usable: bool | None = None
    reason: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DiskState:
    """The disk of the state folder as of the last check. None: not known."""

    journal_bytes: int | None = None  # with the waiting closed segments
    free_bytes: int | None = None
    waiting_segments: int | None = None  # closed segments not sealed or not everywhere yet; None without rotation


@dataclass(frozen=True, slots=True)
class JournalState:
    """The state that is read at each request: the host's wall clock, the signing key, rolling seals and the disk."""

    wall_ns: int
    seal_every_ns: int | None = None  # None: there are no rolling seals
    last_seal_ns: int | None = None  # of this daemon, since boot
    seal_failures: int = 0
    copies: bool = False  # whether rolling seals are copied anywhere
    last_copy_ns: int | None = None  # of this daemon, to every destination, since boot
    copy_failures: int = 0
    undelivered_ledgers: int | None = None  # sealed ledgers in the state folder that a destination still lacks
    key: KeyState = field(default_factory=KeyState)
    disk: DiskState = field(default_factory=DiskState)
    seal_fault: str = ""  # why the last rolling seal or its copies failed; empty: no failure


@dataclass(frozen=True)
class DeviceState(DeviceView):
    """The current state of a device; the last of its tallies is that of this daemon start."""

    before: RatedTally  # the last tally one reading ago, for the rate
    gauges: Gauges | None = None
    gap: LastGap | None = None  # the newest gap of this daemon start

    @property
    def tally(self) -> Tally:
        return self.now.tally

    def counted(self, tally: Tally, gauges: Gauges | None, gap: LastGap | None) -> DeviceState:
        """The state after one more reading. `gap`: the newest gap now."""
        before = self.now  # constructed below, not `replace`d, for speed: this runs for each device and reading
        now = RatedTally(before.start, before.entry, tally, before.rating, before.phase)
        return DeviceState((*self.rated[:-1], now), before, gauges, gap)

    def described(self, now: RatedTally) -> DeviceState:
        """The same totals after the device's description or rating has changed."""
        before = replace(now, tally=self.before.tally)
        return replace(self, rated=(*self.rated[:-1], now), before=before)

    @property
    def is_up(self) -> bool | None:
        """Whether the last reading was not a gap; None before the first reading, at the end, and while the device is
        accounted for elsewhere."""
        gap = open_gap(self.gap, self.rated[-1].tally.watermark_ns)
        if gap is None:
            return True
        return None if gap.kind in (GapKind.STARTING, GapKind.ELSEWHERE) else False

    @property
    def rate_flop_per_s(self) -> int | None:
        """Measured FLOP/s over the last reading; None if it measured nothing."""
        now, before = self.tally, self.before.tally
        passed_ns = now.watermark_ns - before.watermark_ns
        if passed_ns <= 0 or now.gap_ns != before.gap_ns:
            return None
        measured = self.now.figures.measured_flop
        if measured is None:
            return None
        flop = measured - (self.before.figures.measured_flop or 0)
        known = [sum(tally.known_ns(evidence) for evidence in ESTIMATING) for tally in (before, now)]
        return flop * NS_PER_S // passed_ns if flop or known[1] > known[0] else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The run at one moment, with the state that only a running daemon has."""

    view: RunView
    platform: str
    table: PeakTable
    devices: tuple[DeviceState, ...]  # those that this daemon start meters; `view` has all of the run
    sources: Mapping[str, SourceState]
    journal_records: int
    journal_last_append_ns: int | None  # since boot
    journal_fault: str
    journal_put_back: int
    wall_offset_ns: int = field(compare=False)  # wall-clock time minus boot time; at a request as of then
    rates: array[float]  # points of a RateHistory
    ended: bool  # ended by a signal or with the job, not by a fault
    replayed: bool  # an earlier daemon start of the run read a recording
    stops_ns: tuple[int, ...]  # see History.stops_ns
    stops_by_wall_clock: bool | None  # see History.stops_by_wall_clock
    journal_state: JournalState | None = field(default=None, compare=False)  # set at the request, not by the writer

    def wall_ns(self, ns: int | None) -> int | None:
        """Return the wall-clock time of `ns` since boot, by the clock as it is set now; None of None."""
        return None if ns is None else ns + self.wall_offset_ns

    @property
    def ready(self) -> bool:
        """Whether a device has been read, and not all devices have a gap now."""
        return any(device.tally.total_observed_ns for device in self.devices) and self.blind < len(self.devices)

    @property
    def blind(self) -> int:
        """How many devices have a gap now: lost devices, and those not in the peak table."""
        return sum(device.is_up is False for device in self.devices)

    @property
    def replay(self) -> bool:
        return self.replayed or any(source.replay for source in self.sources.values())

    @property
    def rate_flop_per_s(self) -> int | None:
        rates = [rate for device in self.devices if (rate := device.rate_flop_per_s) is not None]
        return sum(rates) if rates else None
