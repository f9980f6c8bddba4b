"""What was counted of one device in one daemon start and phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from operator import attrgetter
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.model import ACCOUNTED_ELSEWHERE, UNBOUNDED, Evidence, GapReason, Pipe, Totals


@dataclass(frozen=True, slots=True)
class Tally:
    """Everything counted of one device in one daemon start and phase. Every count only grows."""

    begin_ns: int
    watermark_ns: int
    active_sm_cycles: Mapping[tuple[Evidence, Pipe], int] = field(default_factory=dict)
    counted_flop: int = 0
    busy_sm_cycles: int = 0
    sampled_busy_sm_cycles: int = 0  # the part of busy_sm_cycles from readings with a sampled clock
    clocked_sm_cycles: int = 0  # the same part by the sampled clock
    clocked_square_sum: int = 0
    observed_ns: Mapping[Evidence, int] = field(default_factory=dict)
    gap_ns: Mapping[GapReason, int] = field(default_factory=dict)
    recovered_ns: Mapping[Evidence, int] = field(default_factory=dict)  # gap time whose work became known later
    uncertainty_sm_cycles: Mapping[tuple[Evidence, Pipe], int] = field(default_factory=dict)
    square_sum: Mapping[tuple[Evidence, Pipe], int] = field(default_factory=dict)
    unread_ns: Mapping[Pipe, int] = field(default_factory=dict)  # observed time in which this pipe was not read
    energy_mj: int | None = None  # None: no energy was ever counted
    energy_ns: int = 0  # device time that energy_mj covers
    energy_at_ns: int = 0  # when the energy in `counters` was read, if any
    counters: Mapping[str, int] = field(default_factory=dict)
    totals: Totals | None = None  # at totals_ns; all time after that is a gap
    totals_ns: int = 0
    phases: Mapping[str, Tally] = field(default_factory=dict)  # declared shares of all this; see core/phases.py
    # How much time directly before the watermark is only silence, which a late reading can still cover. Not journalled:
    # after a daemon restart, the source reads nothing from before its start.
    silent_ns: int = field(default=0, compare=False)

    def changed(self, changes: Mapping[str, Any]) -> Tally:
        """As `dataclasses.replace`, in a third of the time: every reading makes a tally for each device."""
        values = list(_VALUES_OF_TALLY(self))
        for name, value in changes.items():
            values[_AT_IN_TALLY[name]] = value
        return Tally(*values)

    @property
    def span_ns(self) -> int:
        """Device time covered, observed or not."""
        return self.watermark_ns - self.begin_ns

    @property
    def total_observed_ns(self) -> int:
        return sum(self.observed_ns.values())

    @property
    def total_gap_ns(self) -> int:
        return sum(self.gap_ns.values())

    @property
    def total_recovered_ns(self) -> int:
        return sum(self.recovered_ns.values())

    def known_ns(self, evidence: Evidence) -> int:
        """Device time whose work is known by `evidence`, at once or recovered later."""
        return self.observed_ns.get(evidence, 0) + self.recovered_ns.get(evidence, 0)

    @property
    def unknown_ns(self) -> int:
        """Gap time that was not recovered later. A later tally can recover the open gap of an earlier one; the result
        is then zero, not negative."""
        return max(0, self.total_gap_ns - self.elsewhere_ns - self.total_recovered_ns)

    @property
    def is_bounded(self) -> bool:
        """Whether every gap has a known length, so that its work has an upper bound."""
        return self.gap_ns.keys().isdisjoint(UNBOUNDED)

    @property
    def job_ns(self) -> int:
        """Device time that belonged to this job. Coverage is the known share of it."""
        return self.span_ns - self.elsewhere_ns

    @property
    def elsewhere_ns(self) -> int:
        """Device time that is accounted for elsewhere: by another job, or under another device."""
        if self.gap_ns.keys().isdisjoint(ACCOUNTED_ELSEWHERE):  # nearly always so, and called often
            return 0
        return sum([ns for reason, ns in self.gap_ns.items() if reason in ACCOUNTED_ELSEWHERE])


_AT_IN_TALLY = {one.name: at for at, one in enumerate(fields(Tally))}
_VALUES_OF_TALLY = attrgetter(*_AT_IN_TALLY)
# The fields of a tally that grow and add up, except its span and energy_mj. Phase shares have these fields only.
TALLY_AMOUNTS = (
    "counted_flop", "busy_sm_cycles", "sampled_busy_sm_cycles", "clocked_sm_cycles", "clocked_square_sum", "energy_ns",
)  # fmt: skip
TALLY_ABSOLUTES = ("counters", "energy_at_ns", "totals", "totals_ns")  # the values from which counting continues
TALLY_MAPPINGS = (
    "active_sm_cycles", "observed_ns", "gap_ns", "recovered_ns", "uncertainty_sm_cycles", "square_sum", "unread_ns",
)  # fmt: skip
