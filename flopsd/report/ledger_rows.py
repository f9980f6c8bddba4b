"""The statements of a ledger as rows of a name and a text: figures, coverage, the other bases, the findings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

from flopsd.core.figures import figures_from
from flopsd.core.model import PPM, Evidence
from flopsd.core.policy.reconcile import NO_PROCESS
from flopsd.core.rounding import Towards, format_duration, format_energy, format_flop
from flopsd.report.claims import claims_text, holds_counts, operators_text, required_source
from flopsd.report.ledger_json import LedgerObject, contradiction_text, is_complete, job_seconds, may_be_longer
from flopsd.report.numbers import (
    NOTHING_MEASURED,
    beyond_margin,
    coverage_words,
    figures_text,
    integer_facts,
    interval,
    left_out,
)
from flopsd.report.terminal import counted, one_line, stated
from flopsd.report.threshold_text import threshold_facts
from flopsd.settings.words import ABSENT, say, say_all

Row = tuple[str, str]
_GAP = Evidence.GAP.value


def executed_rows(predicate: Mapping[str, Any]) -> list[Row]:
    executed, gaps = predicate["totals"]["executed"], predicate["coverage"].get("gaps")
    clock = int(executed.get("clockUncertaintyFlop", 0))
    doubt = f"{format_flop(clock, Towards.UP)} of the margin either way: not known between its samples"
    listed = "" if gaps is None else f", {counted(len(gaps), 'gap')} listed"
    is_idle = list(executed["byEvidence"]) == [_GAP] and int(predicate["coverage"]["coveragePpm"] or 0) > 0
    evidence, energy = one_line(", ".join(executed["byEvidence"])) or "none", "not counted"
    if predicate["energyJoules"] is not None:
        energy = format_energy(Fraction(predicate["energyJoules"]))
        if uncounted := Fraction(predicate["energyUncountedSeconds"]):
            least = "at least " if may_be_longer(predicate["coverage"]["gapSecondsByReason"]) else ""
            energy += f", and more that was not counted in {least}{format_duration(uncounted)} of device time"
    return [
        *interval(figures_from(executed)).facts(NOTHING_MEASURED),
        *by_count_rows(executed["byEvidence"]),
        ("evidence", f"{_GAP}; no work in the time that was read" if is_idle else evidence),
        *stated([("clock", doubt if clock else "")]),
        *integer_facts(executed["mayBeIntegerFlop"], figures_from(predicate["totals"]["integerOperations"])),
        ("coverage", f"{coverage_text(predicate)}{listed}"),
        ("energy", energy),
    ]


def by_count_rows(evidence: Collection[str]) -> list[Row]:
    return stated([("by count", holds_counts(evidence))])


def coverage_text(predicate: Mapping[str, Any]) -> str:
    coverage = predicate["coverage"]
    share, job = coverage["coveragePpm"], job_seconds(coverage)
    return coverage_words(
        None if share is None else Fraction(int(share), PPM),
        job,
        Fraction(coverage["spanSeconds"]) - job,
        is_open=may_be_longer(coverage["gapSecondsByReason"]),
        here="" if is_complete(predicate) else " in the ledgers that are here",
    )


def meaning_rows(predicate: Mapping[str, Any]) -> list[Row]:
    """The other bases and the findings in short; `flopsd report` shows them in full."""
    totals = predicate["totals"]
    guidelines, architecture = totals["guidelines"], totals["architecture"]
    source = f" ({required_source(guidelines)})" if "requiredPpmSource" in guidelines else ""
    counted_flop = figures_from(guidelines)
    rows = stated(
        [
            ("guidelines", f"{figures_text(counted_flop)}: what contributes to parameter updates{source}"),
            ("left out", left_out(figures_from(totals["executed"]), counted_flop)),
            ("guidelines", beyond_margin(counted_flop)),
            ("by count", operators_text(guidelines)),
            ("as claimed", claims_text(guidelines)),
        ]
    )
    if architecture is not None:
        computed = figures_text(figures_from(architecture, "computed"))
        rows.append(("by model", f"{computed}: from the model and the tokens that its processes declare"))
    elif (reasons := totals[ABSENT]) != [NO_PROCESS.for_ledger()]:
        rows.append(("by model", f"no figure: {one_line(say_all(ABSENT, reasons))}"))
    warned = [ratio for ratio in predicate["reconciliation"] if ratio["warning"] is not None]
    rows += [("WARNING", text) for text in map(_warning, warned)]
    declared = LedgerObject(predicate, "predicate").object("declared")
    rows += [("WARNING", contradiction_text(one)) for one in declared.objects("contradictions")]
    return [*rows, *threshold_facts(predicate["findings"])]


def _warning(ratio: Mapping[str, Any]) -> str:
    code = ratio["warning"]
    return f"{one_line(ratio['name'])}: {one_line(code)}: {one_line(say('reconciliation.warning', code))}"
