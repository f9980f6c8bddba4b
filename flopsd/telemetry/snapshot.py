"""The immutable picture that the writer publishes after every reading; all views read nothing else.

FLOP are computed by whoever looks: publishing costs the metering loop one reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from flopsd.core.figures import Rating, Row, by_phase, rows, sum_figures, total, total_of
from flopsd.core.model import ESTIMATING, Device, DeviceUid, Evidence, Figures, GapReason, Gauges, Tally
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.bases import NO_DECLARATIONS, Bases, Declarations, meaning
from flopsd.core.policy.evaluate import Case, Finding, Policy, findings
from flopsd.system.clock import NS_PER_S

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class SourceState:
    """One source as the writer last heard of it. `reason` says why it is not up."""

    up: bool = False
    reason: str = "starting"
    read_seconds: float | None = None
    last_reading_wall_ns: int | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    replay: bool = False
    absent: bool = False  # nothing of its kind is on this machine: not a fault, and not shown as one


@dataclass(frozen=True, slots=True)
class JournalState:
    """What only the moment of looking tells: the host's wall clock, and how the rolling seals stand."""

    wall_ns: int
    seal_every_ns: int | None = None  # None: there are no rolling seals
    last_seal_wall_ns: int | None = None  # sealed and copied, by this daemon
    seal_failures: int = 0


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One device: its tally in this incarnation, the finished ones of earlier incarnations, its gauges."""

    device: Device
    source: str
    part_id: str | None
    rating: Rating
    tally: Tally
    before: Tally  # the tally one reading ago, for the rate
    earlier: tuple[tuple[Tally, Rating], ...] = ()
    gauges: Gauges | None = None

    def all_tallies(self) -> list[tuple[Tally, Rating]]:
        return [*self.earlier, (self.tally, self.rating)]

    def rows(self, table: PeakTable) -> list[Row]:
        return [row for tally, rating in self.all_tallies() for row in rows(tally, rating, table)]

    def figures(self, table: PeakTable, rows: Iterable[Row] | None = None) -> Figures:
        """The device's figures; `rows` saves computing them again."""
        figures = sum_figures(row.figures for row in (self.rows(table) if rows is None else rows))
        if figures.measured_flop is None and any(e in ESTIMATING for e in self.observed_ns_by_evidence()):
            return replace(figures, measured_flop=0)  # every pipe was read and was idle
        return figures

    def observed_ns(self) -> int:
        return sum(tally.total_observed_ns for tally, _ in self.all_tallies())

    def unknown_ns(self) -> int:
        return sum(tally.unknown_ns for tally, _ in self.all_tallies())

    def recovered_ns(self) -> int:
        return sum(tally.recovered_ns for tally, _ in self.all_tallies())

    def job_ns(self) -> int:
        return sum(tally.job_ns for tally, _ in self.all_tallies())

    def gap_ns(self) -> dict[GapReason, int]:
        return _sum(tally.gap_ns for tally, _ in self.all_tallies())

    def observed_ns_by_evidence(self) -> dict[Evidence, int]:
        return _sum(tally.observed_ns for tally, _ in self.all_tallies())

    def energy_mj(self) -> int | None:
        known = [tally.energy_mj for tally, _ in self.all_tallies() if tally.energy_mj is not None]
        return sum(known) if known else None

    def rate_flop_per_s(self, table: PeakTable) -> int | None:
        """Measured FLOP/s over the last reading; None where it measured nothing."""
        passed_ns = self.tally.watermark_ns - self.before.watermark_ns
        if passed_ns <= 0 or self.tally.gap_ns != self.before.gap_ns:
            return None
        now, before = total(self.tally, self.rating, table), total(self.before, self.rating, table)
        if now.measured_flop is None:
            return None
        return (now.measured_flop - (before.measured_flop or 0)) * NS_PER_S // passed_ns


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that can be shown, at one moment."""

    run: str
    node: str
    platform: str
    incarnation: int
    table: PeakTable
    devices: tuple[DeviceState, ...]
    sources: Mapping[str, SourceState]
    journal_records: int
    journal_last_append_wall_ns: int | None
    journal_fault: str
    earlier: tuple[tuple[Tally, Rating], ...] = ()  # of devices that only earlier incarnations saw
    told: Declarations = NO_DECLARATIONS
    policies: tuple[Policy, ...] = ()
    is_whole: bool = True  # false: the job has other nodes too
    keeping: JournalState | None = None

    @property
    def ready(self) -> bool:
        """Whether at least one device has been read."""
        return any(device.observed_ns() for device in self.devices)

    @property
    def replay(self) -> bool:
        return any(source.replay for source in self.sources.values())

    def figures(self) -> Figures:
        """The run's figures. Without any device nobody knows a ceiling."""
        if not self.devices and not self.earlier:
            return Figures(0, None, None)
        gone = [total(tally, rating, self.table) for tally, rating in self.earlier]
        return sum_figures([*gone, *(device.figures(self.table) for device in self.devices)])

    def rated(self) -> list[tuple[DeviceUid | None, Tally, list[Row]]]:
        """Every tally with its rows; no device for those that only earlier incarnations saw."""
        parts: list[tuple[DeviceUid | None, Tally, Rating]] = [(None, *part) for part in self.earlier]
        parts += [(state.device.uid, *part) for state in self.devices for part in state.all_tallies()]
        return [(uid, tally, rows(tally, rating, self.table)) for uid, tally, rating in parts]

    def meaning(self, rated: Iterable[tuple[DeviceUid | None, Tally, list[Row]]] | None = None) -> Bases:
        """The bases of the run so far; `rated` saves computing the rows again."""
        found = [(tally, its) for _, tally, its in (self.rated() if rated is None else rated)]
        executed = sum_figures(total_of(its, tally) for tally, its in found) if found else Figures(0, None, None)
        return meaning((by_phase(tally, its) for tally, its in found), executed, self.told)

    def findings(self, found: Bases) -> tuple[Finding, ...]:
        """The run so far against every policy's thresholds."""
        counted, told = found.guidelines, self.told
        case = Case(counted.updates, counted.cumulative, told.method, told.base, self.is_whole)
        return tuple(finding for policy in self.policies for finding in findings(policy, case))

    def rate_flop_per_s(self) -> int | None:
        rates = [rate for device in self.devices if (rate := device.rate_flop_per_s(self.table)) is not None]
        return sum(rates) if rates else None

    def coverage_ppm(self) -> int | None:
        job_ns = sum(device.job_ns() for device in self.devices) + sum(t.job_ns for t, _ in self.earlier)
        unknown_ns = sum(device.unknown_ns() for device in self.devices) + sum(t.unknown_ns for t, _ in self.earlier)
        return (job_ns - unknown_ns) * 1_000_000 // job_ns if job_ns else None


def _sum(totals: Iterable[Mapping[K, int]]) -> dict[K, int]:
    found: dict[K, int] = {}
    for mapping in totals:
        for key, value in mapping.items():
            found[key] = found.get(key, 0) + value
    return found
