"""The architecture basis as sums that ledgers can add, and ratios of two bases of one run. Pure.

Each basis is an interval, so a ratio is one too. A disagreement has a name for look-ups and alerts; it never changes a
figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Phase
from flopsd.core.figures import NO_FIGURES, Figures, figures_from
from flopsd.core.model import PPM, UNDECLARED_PHASE
from flopsd.core.notes import Note, note
from flopsd.core.policy.guidelines import MARGIN_PPM
from flopsd.core.values import ceil_div, sum_if_all_known, text_or_none, whole_number

if TYPE_CHECKING:
    from flopsd.core.architecture import Bounds

SHAPE, WEIGHTS = "shape", "weights"  # how the FLOP of a declared model were counted
MORE_EXECUTED = "MORE_EXECUTED_THAN_THE_MODEL_NEEDS"
LESS_EXECUTED = "LESS_EXECUTED_THAN_THE_MODEL_NEEDS"
NOT_COMPARABLE = "NOT_COMPARABLE"
FRAMEWORK_DIFFERS = "FRAMEWORK_COUNT_DIFFERS"
MORE_MEASURED = "MORE_MEASURED_THAN_THE_OPERATORS_COUNT"
LESS_MEASURED = "LESS_MEASURED_THAN_THE_OPERATORS_COUNT"
NO_PROCESS = note("no_process")
MOST_REASONS = 4
NO_WORK = note("no_work")


class OpenBounds(NamedTuple):
    """Bounds of FLOP. `computed` and `high` are None where work that belongs to them was not counted."""

    low: int
    computed: int | None
    high: int | None

    @classmethod
    def of(cls, bounds: Bounds, *, is_open: bool = False) -> OpenBounds:
        return cls(bounds.low, None, None) if is_open else cls(bounds.low, bounds.computed, bounds.high)

    def __add__(self, other: OpenBounds) -> OpenBounds:  # type: ignore[override]  # no list of three numbers
        computed, high = map(sum_if_all_known, ((self.computed, other.computed), (self.high, other.high)))
        return OpenBounds(self.low + other.low, computed, high)

    def for_ledger(self) -> dict[str, str | None]:
        return {"low": str(self.low), "computed": text_or_none(self.computed), "high": text_or_none(self.high)}


@dataclass(frozen=True, slots=True)
class ArchitectureFigures:
    """The architecture basis as sums: FLOP that training required, and FLOP that all declared phases executed."""

    required: OpenBounds
    executed: OpenBounds
    tokens: int
    methods: frozenset[str] = frozenset([SHAPE])

    def __add__(self, other: ArchitectureFigures) -> ArchitectureFigures:
        tokens = self.tokens + other.tokens
        return ArchitectureFigures(
            self.required + other.required, self.executed + other.executed, tokens, self.methods | other.methods
        )

    @property
    def most_flop(self) -> int:
        """The largest of its figures."""
        return max(end or 0 for end in (*self.required, *self.executed))

    def for_ledger(self) -> dict[str, Any]:
        return {
            **self.required.for_ledger(),
            "executed": self.executed.for_ledger(),
            "method": sorted(self.methods),
            "tokens": str(self.tokens),
            "marginPpm": str(MARGIN_PPM),
        }


@dataclass(frozen=True, slots=True)
class Architecture:
    """FLOP counted from model and tokens; `training_executed` is the part that training executed, including the passes
    without gradients that it required."""

    counted: ArchitectureFigures
    training_executed: OpenBounds
    parameters_total: int
    parameters_active: int
    parameters_trainable: int | None
    assumptions: tuple[Note, ...]


def figures_of_ledger(entry: Mapping[str, Any]) -> ArchitectureFigures:
    """The inverse of `ArchitectureFigures.for_ledger`. Raises KeyError, TypeError or ValueError on anything else."""
    tokens = whole_number(entry["tokens"])
    methods = frozenset(entry["method"])
    if not methods or not methods <= {SHAPE, WEIGHTS}:
        raise ValueError("the FLOP of a model were counted in an unknown way")
    required, executed = (OpenBounds(*figures_from(one, "computed")) for one in (entry, entry["executed"]))
    return ArchitectureFigures(required, executed, tokens, methods)


class Ratio(NamedTuple):
    """One basis over another. `low` and `high` are None if a bound is missing or zero, `measured` if a point is."""

    name: str
    low_ppm: int | None
    measured_ppm: int | None
    high_ppm: int | None
    more: str = MORE_EXECUTED
    less: str = LESS_EXECUTED

    @property
    def within(self) -> bool | None:
        if self.measured_ppm is None:
            return None
        return PPM - MARGIN_PPM <= self.measured_ppm <= PPM + MARGIN_PPM

    @property
    def warning(self) -> str | None:
        if self.measured_ppm is None:
            return NOT_COMPARABLE
        if self.within:
            return None
        return self.more if self.measured_ppm > PPM else self.less

    def for_ledger(self) -> dict[str, Any]:
        ratio = {"low": self.low_ppm, "measured": self.measured_ppm, "high": self.high_ppm}
        return {
            "name": self.name,
            "ratioPpm": {name: text_or_none(ppm) for name, ppm in ratio.items()},
            "marginPpm": str(MARGIN_PPM),
            "withinMargin": self.within,
            "warning": self.warning,
        }


def reconcile(
    by_phase: Mapping[str, Figures],
    updates: Figures,
    architecture: ArchitectureFigures | None,
    framework_flop: int | None = None,
) -> tuple[Ratio, ...]:
    """The ratios of a run's bases; none where there is only one basis."""
    if architecture is None:
        return ()
    declared = NO_FIGURES
    for phase in Phase:
        declared += by_phase.get(phase.value, NO_FIGURES)
    most = (declared + by_phase.get(UNDECLARED_PHASE, NO_FIGURES)).high_flop  # undeclared work may belong to them
    needed, all_of_it = architecture.required, architecture.executed
    ratios = [
        _ratio(
            "executed/architecture",
            Figures(declared.low_flop, declared.measured_flop, most),
            Figures(*all_of_it),
        ),
        _ratio("guidelines/architecture", updates, Figures(*needed)),
    ]
    if framework_flop and needed.computed:
        counted, point = (Figures(flop, flop, flop) for flop in (framework_flop, needed.computed))
        framework = _ratio("framework/architecture", counted, point)
        ratios.append(framework._replace(more=FRAMEWORK_DIFFERS, less=FRAMEWORK_DIFFERS))
    return tuple(ratios)


def operators_ratio(measured: Figures, counted_flop: int) -> Ratio:
    """The counter measurements of devices with an operator count of training processes, divided by that count."""
    counted = Figures(counted_flop, counted_flop, counted_flop)
    return _ratio("executed/operator_count", measured, counted)._replace(more=MORE_MEASURED, less=LESS_MEASURED)


def _ratio(name: str, one: Figures, other: Figures) -> Ratio:
    low = one.low_flop * PPM // other.high_flop if other.high_flop else None
    high = ceil_div(one.high_flop * PPM, other.low_flop) if other.low_flop and one.high_flop is not None else None
    measured: int | None = None
    if one.measured_flop is not None and other.measured_flop:
        measured = one.measured_flop * PPM // other.measured_flop
    return Ratio(name, low, measured, high)
