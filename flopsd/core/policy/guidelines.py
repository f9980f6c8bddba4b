"""The `guidelines` basis: the part of the executed compute that the Commission counts as training compute. Pure.

Guidelines C(2025) 5045, annex A.1: recomputation of activations and purely diagnostic work are excluded. Both are
declared, never measured, so without a declaration the figure is an interval, not a point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Method, Phase, Recomputation
from flopsd.core.figures import NO_FIGURES, Figures, sum_by_key
from flopsd.core.model import PPM, UNDECLARED_PHASE
from flopsd.core.values import ceil_div, sum_if_all_known

# Forward, activation gradients and weight gradients take 2 FLOP each per parameter and token: 6 are required, and a
# second forward pass makes it 8. Frozen weights need no weight gradients: 4 of 6. The share cannot be lower if each
# activation is recomputed at most once: attention needs 3 parts, and executes 4.5 even with a recomputing kernel.
LEAST_PPM = 666_666
# A kernel that recomputes attention scores in its backward pass executes 3.5 parts where 3 are required. A loss that
# computes logits again is checkpointing, which `none` denies: a model that is all head would execute 3 for 2.
LEAST_WITHOUT_CHECKPOINTS_PPM = 857_142
# Paragraph 120: an estimate is acceptable if the truth is within 30 % of it.
MARGIN_PPM = 300_000
_STATED = {
    (Recomputation.NONE, None): PPM,
    (Recomputation.FULL, Method.PRETRAINING): 750_000,
    (Recomputation.FULL, Method.FULL): 750_000,
    (Recomputation.FULL, Method.LORA): 666_667,
    (Recomputation.FULL, Method.QLORA): 666_667,
}


@dataclass(frozen=True, slots=True)
class Required:
    """Executed training work without recomputation, as a share. `stated_ppm` is None: only bounds are known."""

    low_ppm: int
    stated_ppm: int | None
    high_ppm: int
    source: tuple[str, ...]  # codes


@dataclass(frozen=True, slots=True)
class Guidelines:
    """`updates` contribute directly to parameter updates (para 115); `cumulative` includes generated data too."""

    updates: Figures
    cumulative: Figures
    by_operators: tuple[int, int] = (0, 0)  # the part of each low that rests on training processes' operator counts

    def for_ledger(self, claimed: Claimed | None) -> dict[str, Any]:
        low, cumulative = self.by_operators
        return {
            **self.updates.for_ledger(),
            "cumulative": self.cumulative.for_ledger(),
            "operatorCount": {"low": str(low), "cumulativeLow": str(cumulative)},
            "asClaimed": None if claimed is None else claimed.for_ledger(),
            "method": "annex_a1",
        }

    def __add__(self, other: Guidelines) -> Guidelines:
        """A part that may count but is not measured leaves the sum unmeasured; executed sums skip it."""
        by_operators = (self.by_operators[0] + other.by_operators[0], self.by_operators[1] + other.by_operators[1])
        updates, cumulative = _both(self.updates, other.updates), _both(self.cumulative, other.cumulative)
        return Guidelines(updates, cumulative, by_operators)

    @property
    def unbounded(self) -> Guidelines:
        """The same figures without an upper bound, for a total that is incomplete."""
        return replace(self, updates=self.updates.unbounded, cumulative=self.cumulative.unbounded)

    @property
    def without_operators(self) -> Guidelines:
        """The figures without training processes' operator counts."""
        low, cumulative = self.by_operators
        return Guidelines(
            self.updates._replace(low_flop=self.updates.low_flop - low),
            self.cumulative._replace(low_flop=self.cumulative.low_flop - cumulative),
        )


def _both(one: Figures, other: Figures) -> Figures:
    unmeasured = any(part.measured_flop is None and part.high_flop != 0 for part in (one, other))
    return (one + other)._replace(measured_flop=None) if unmeasured else one + other


NOTHING_COUNTED = Guidelines(NO_FIGURES, NO_FIGURES)
Claims = Mapping[tuple[str, str], Figures]  # executed, by claimed phase and format; "": none claimed


@dataclass(frozen=True, slots=True)
class Claimed:
    """What counts if training processes tell the truth. Their claims are unchecked, and no verdict rests on them."""

    counted: Guidelines
    claims: Claims
    process: int | None = None  # pid of the process, if all claims are of one

    def __add__(self, other: Claimed) -> Claimed:
        return Claimed(self.counted + other.counted, sum_by_key((self.claims, other.claims)))

    def for_ledger(self) -> dict[str, Any]:
        return {
            **self.counted.updates.for_ledger(),
            "cumulative": self.counted.cumulative.for_ledger(),
            "claims": [
                {
                    "phase": phase or None,
                    "precision": precision or None,
                    "flop": figures.for_ledger(),
                    "process": self.process,
                }
                for (phase, precision), figures in sorted(self.claims.items())
            ],
        }


def required_share(method: Method | None, recomputation: Recomputation | None) -> Required:
    """The share by the declarations, for use without the model's own arithmetic."""
    stated = _STATED.get((recomputation, None if recomputation is Recomputation.NONE else method))  # type: ignore[arg-type]
    if recomputation is Recomputation.NONE:
        return Required(LEAST_WITHOUT_CHECKPOINTS_PPM, stated, PPM, ("none",))
    if recomputation is None:
        return Required(LEAST_PPM, None, PPM, ("not_declared",))
    known = "" if stated is None or method is None else f"_{method.value}"
    return Required(LEAST_PPM, stated, PPM, (f"{recomputation.value}{known}",))


def measured_as(ends: Guidelines, point: Guidelines) -> Guidelines:
    """The low and high ends of `ends` with the measured figures of `point`."""
    return replace(
        ends,
        updates=ends.updates._replace(measured_flop=point.updates.measured_flop),
        cumulative=ends.cumulative._replace(measured_flop=point.cumulative.measured_flop),
    )


def guidelines(by_phase: Mapping[str, Figures], required: Required) -> Guidelines:
    """The basis of work with the executed figures `by_phase`, whoever declared the phases.

    Declared training counts, less recomputation; declared evaluation does not. All other work may or may not count, so
    it is in the upper bound only. Generated data count in the cumulative figure. If the measured work that may count
    exceeds the margin of an estimate there is no measured figure, since without that work it could be far too low.
    """
    train = by_phase.get(Phase.TRAIN.value, NO_FIGURES)
    generated = by_phase.get(Phase.GENERATE.value, NO_FIGURES)
    perhaps = [by_phase[phase] for phase in (Phase.OTHER.value, UNDECLARED_PHASE) if phase in by_phase]
    trained = None if train.high_flop is None else ceil_div(train.high_flop * required.high_ppm, PPM)
    high = sum_if_all_known([trained, generated.high_flop, *[figures.high_flop for figures in perhaps]])
    measured: int | None = None
    if train.measured_flop is not None and required.stated_ppm is not None:
        measured = train.measured_flop * required.stated_ppm // PPM
    both: int | None = measured
    if generated.measured_flop is not None:
        both = None if measured is None and Phase.TRAIN.value in by_phase else (measured or 0) + generated.measured_flop
    elif generated.high_flop != 0:
        both = None
    beside = sum([figures.measured_flop or 0 for figures in perhaps])
    low = train.low_flop * required.low_ppm // PPM
    return Guidelines(
        Figures(low, _point(measured, beside), high), Figures(low + generated.low_flop, _point(both, beside), high)
    )


def _point(measured: int | None, beside: int) -> int | None:
    """The measured figure; None if so much measured work `beside` it may count too that it would not be an estimate."""
    return None if measured is None or beside * PPM > measured * MARGIN_PPM else measured
