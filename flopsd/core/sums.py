"""What can be added up over ledgers: figures, energy, times. Exact, in any order and any grouping. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flopsd.core.figures import figures_json
from flopsd.core.model import NO_FIGURES, PPM, Figures
from flopsd.core.rated import seconds
from flopsd.core.records import History

TIMES = ("deviceSeconds", "nodeSeconds", "energyUncountedSeconds")
COVERAGE_TIMES = (
    "observedSeconds",
    "gapSeconds",
    "recoveredSeconds",
    "spanSeconds",
    "jobSeconds",
    "unknownSeconds",
)
_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]*)\.([0-9]+)")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_MAX_DIGITS = 60
_BETWEEN_METHODS = "; "


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of some ledgers. Unknown stays unknown: as `Figures` add, and energy that nobody counted is None."""

    executed: Figures = NO_FIGURES
    by_evidence: Mapping[str, Figures] = field(default_factory=dict)
    methods: frozenset[str] = frozenset()
    energy_mj: int | None = None
    times_ns: Mapping[str, int] = field(default_factory=dict)
    gap_ns_by_reason: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Sums) -> Sums:
        by_evidence = dict(self.by_evidence)
        for name, figures in other.by_evidence.items():
            by_evidence[name] = by_evidence[name] + figures if name in by_evidence else figures
        energies = [mj for mj in (self.energy_mj, other.energy_mj) if mj is not None]
        return Sums(
            self.executed + other.executed,
            by_evidence,
            self.methods | other.methods,
            sum(energies) if energies else None,
            _added(self.times_ns, other.times_ns),
            _added(self.gap_ns_by_reason, other.gap_ns_by_reason),
        )

    def for_ledger(self, *, whole: bool = True) -> dict[str, Any]:
        """As a ledger says it. Of what is not whole no upper bound is known."""
        figures = self.executed if whole else Figures(self.executed.low_flop, self.executed.measured_flop, None)
        return {
            "totals": {
                "executed": {
                    **figures_json(figures),
                    "method": _BETWEEN_METHODS.join(sorted(self.methods)),
                    "byEvidence": {name: figures_json(self.by_evidence[name]) for name in sorted(self.by_evidence)},
                },
            },
            "energyJoules": None if self.energy_mj is None else f"{self.energy_mj // 1000}.{self.energy_mj % 1000:03d}",
            **{name: seconds(self.times_ns.get(name, 0)) for name in TIMES},
            "coverage": {
                **{name: seconds(self.times_ns.get(name, 0)) for name in COVERAGE_TIMES},
                "observedPpm": self._observed_ppm(),
                "gapSecondsByReason": {n: seconds(self.gap_ns_by_reason[n]) for n in sorted(self.gap_ns_by_reason)},
            },
        }

    def _observed_ppm(self) -> str | None:
        job_ns = self.times_ns.get("jobSeconds", 0)
        return str((job_ns - self.times_ns.get("unknownSeconds", 0)) * PPM // job_ns) if job_ns else None


def sums_told(ledger: Mapping[str, Any]) -> Sums:
    """The inverse of `for_ledger`. Raises KeyError, TypeError, ValueError, AttributeError on anything else."""
    executed, coverage = ledger["totals"]["executed"], ledger["coverage"]
    return Sums(
        _figures(executed),
        {str(name): _figures(figures) for name, figures in executed["byEvidence"].items()},
        frozenset(part for part in executed["method"].split(_BETWEEN_METHODS) if part),
        None if ledger["energyJoules"] is None else _scaled(ledger["energyJoules"], 3),
        {
            **{name: nanoseconds(ledger[name]) for name in TIMES},
            **{name: nanoseconds(coverage[name]) for name in COVERAGE_TIMES},
        },
        {str(name): nanoseconds(text) for name, text in coverage["gapSecondsByReason"].items()},
    )


def node_sums(predicate: Mapping[str, Any], history: History) -> Sums:
    """The sums of a node ledger whose journal is `history`."""
    tallies = [tally for incarnation in history.incarnations for tally in incarnation.tallies.values()]
    return sums_told(
        {
            **predicate,
            "nodeSeconds": predicate["wallSeconds"],
            "coverage": {
                **predicate["coverage"],
                "jobSeconds": seconds(sum(tally.job_ns for tally in tallies)),
                "unknownSeconds": seconds(sum(tally.unknown_ns for tally in tallies)),
            },
        }
    )


def whole_number(text: Any) -> int:
    """A count as ledgers write it. Raises TypeError or ValueError on anything else."""
    if len(text) > _MAX_DIGITS or not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a whole number")
    return int(text)


def nanoseconds(text: Any) -> int:
    """The inverse of `seconds`. Raises TypeError or ValueError on anything else."""
    return _scaled(text, 9)


def _scaled(text: Any, decimals: int) -> int:
    match = _DECIMAL.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if match is None or len(match[3]) != decimals:
        raise ValueError(f"{text[:80]!r} is not a number with {decimals} decimals")
    amount: int = int(match[2]) * 10**decimals + int(match[3])
    return -amount if match[1] else amount


def _figures(told: Mapping[str, Any]) -> Figures:
    low, measured, high = (None if told[k] is None else whole_number(told[k]) for k in ("low", "measured", "high"))
    if low is None:
        raise ValueError("low is never null")
    return Figures(low, measured, high)


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
