"""Texts on the claims of training processes about a run, and what follows if they are true."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from flopsd.core.figures import Figures
from flopsd.core.rounding import Towards
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.numbers import flop, interval

AS_CLAIMED = "As its processes claim"
BY_COUNT = "Of the lower bound, by its processes' own count"
HOLD_COUNTS = (
    "The measured figure and the lower bound include software's count by the training process, which nobody checked. "
    "Work that the process cannot count is in neither."
)
BY_COUNT_ALONE = "this rests on the count of operators by its training processes, which nobody checked"
_PHASES = {
    "train": "training",
    "evaluate": "evaluation",
    "generate": "generation of training data",
    "other": "other work",
}


def claims_text(guidelines: Mapping[str, Any]) -> str:
    """`9.1x10^14 to 3.2x10^15 FLOP only if it was what process 4711 declared: 2.9x10^15 FLOP of evaluation`; empty if
    no process claims anything."""
    entry = LedgerObject(guidelines, "guidelines").maybe_object("asClaimed")
    if entry is None:
        return ""
    claims = list(entry.objects("claims"))
    process = claims[0].maybe_count("process") if claims else None
    by = "its training processes" if process is None else f"process {process}"
    return f"{interval(entry.figures()).ends} only if it was what {by} declared: {', '.join(map(_claim, claims))}"


def holds_counts(*evidence: Collection[str]) -> str:
    """A sentence if figures rest on counts by processes, else empty. `evidence`: of each device, or of all."""
    return HOLD_COUNTS if any("operator_count" in one for one in evidence) else ""


def operators_text(guidelines: Mapping[str, Any]) -> str:
    """`1.2x10^15 FLOP: software's count by the training process, which nobody checked`; empty if no process counts."""
    entry = LedgerObject(guidelines, "guidelines").maybe_object("operatorCount")
    if entry is None or not (low := entry.count("cumulativeLow")):
        return ""
    return f"{flop(low).text} FLOP: software's count by the training process, which nobody checked"


def required_source(guidelines: Mapping[str, Any]) -> str:
    """The source of the share of executed training work that counts."""
    words = LedgerObject(guidelines, "predicate.totals.guidelines").all_words(
        "requiredPpmSource", "guidelines.requiredPpmSource"
    )
    return "; ".join(words)


def _claim(claim: LedgerObject) -> str:
    phase, precision = claim.maybe_text("phase"), claim.maybe_text("precision")
    precision = precision and precision.replace(",", ", ")  # lets the shares of eight formats wrap
    what = f"{precision} work" if phase is None else _PHASES.get(phase, phase)
    if phase is not None and precision is not None:
        what += f" in {precision}"
    return f"{_amount(claim.figures('flop'))} of {what}"


def _amount(figures: Figures) -> str:
    if figures.measured_flop is not None:
        return f"{flop(figures.measured_flop).text} FLOP"
    if figures.high_flop is None:
        return "an unknown amount"
    return f"{flop(figures.high_flop, Towards.UP).text} FLOP at most"
