"""The three bases of counting, whether they agree, and the parts of the executed figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flopsd.core.ledger.energy import NAME as ENERGY
from flopsd.core.ledger.statement import NO_METHOD
from flopsd.core.model import PPM
from flopsd.core.rounding import Towards, divided, grouped
from flopsd.report.claims import AS_CLAIMED, BY_COUNT, claims_text, operators_text, required_source
from flopsd.report.contents.model import Basis, Comparison, Fact, Share
from flopsd.report.ledger_json import LedgerObject, is_complete
from flopsd.report.numbers import (
    NO_UPPER_BOUND,
    NOTHING_MEASURED,
    PJ_PER_FLOP,
    beyond_margin,
    duration,
    fj_per_flop,
    flop,
    integers_text,
    interval,
    left_out,
    percent,
)
from flopsd.report.terminal import stated
from flopsd.settings.words import ABSENT

EXECUTED = (
    "What the accelerators' own counters recorded: everything that ran, recomputation of activations, padding and "
    "evaluation included."
)
AND_COUNTED = (
    " Where no counter measured, the measured figure and the lower bound have the training processes' own count, which "
    "nobody checked. Work that they cannot count is in neither. The upper bound does not rest on that count."
)
GUIDELINES = (
    "The part of it that directly contributed to parameter updates, as Annex A.1 of the Commission's Guidelines "
    "counts: recomputation of activations and purely diagnostic work taken out, by what the settings declare."
)
ARCHITECTURE = (
    "What follows from the model and the tokens that the training declared: a calculation beside the measurement, "
    "not a measurement."
)
EVIDENCE = {
    "cycles": "differences of hardware cycle counters, which keep counting between readings",
    "activity": "hardware activity percentages times the clock",
    "count": "counted by the vendor's software, not by a hardware counter",
    "operator_count": "software's count by the training process, which nobody checked: what it adds to the other rows",
    "utilization": "share of time in which anything ran: an upper bound, never an estimate",
    "gap": "no reading counts: at most what the device can do, if that is known",
}
AGREEMENT = {True: "Agree", False: "Do not agree", None: "Indeterminate"}
SOME_READ_NOTHING = "on some nodes no counter that gives an estimate was read"
ENERGY_LIMIT = "A check of plausibility: no bound and no finding rests on it."
PHASES = {
    "train": "training steps",
    "evaluate": "purely diagnostic: trains nothing, generates no training data",
    "generate": "generates training data: rollouts, synthetic data",
    "other": "declared as none of these",
    "undeclared": "no phase was declared",
}


def bases_of(predicate: LedgerObject) -> tuple[Basis, ...]:
    """Executed, guidelines and architecture: always all three."""
    totals = predicate.object("totals")
    return _executed(totals), _guidelines(totals), _architecture(totals)


def read_from(executed: LedgerObject) -> str:
    """What was read. A merged ledger has that of all its ledgers, so that of some may be nothing."""
    words = dict(zip(executed.texts("method"), executed.all_words("method", "executed.method"), strict=True))
    nothing = words.pop(NO_METHOD, "")
    if nothing and words:
        nothing = SOME_READ_NOTHING
    elif nothing and "high" not in executed:
        nothing = "no measuring counter was read, and no upper bound is known"
    return "; ".join(filter(None, (*words.values(), nothing)))


def _executed(totals: LedgerObject) -> Basis:
    entry = totals.object("executed")
    facts = [Fact("Read from", read_from(entry))]
    margins = entry.maybe_object("marginPpm")
    if margins is not None:
        known = [f"{name} {percent(margins.count(name))} either way" for name in margins.mapping if name in EVIDENCE]
        facts += [Fact("Margin", ", ".join(known))] if known else []
    if doubt := entry.maybe_count("clockUncertaintyFlop"):
        most = flop(doubt, Towards.UP)
        facts.append(Fact("Of that, from the clock", f"{most.text} FLOP either way", exact=most.exact))
    facts.append(Fact("Integer operations, counted separately", integers_text(totals.figures("integerOperations"))))
    if mixed := entry.count("mayBeIntegerFlop"):
        most = flop(mixed, Towards.UP)
        text = f"{most.text} FLOP: no counter distinguishes them"
        facts.append(Fact("Of the measured figure, may be integer operations", text, exact=most.exact))
    meaning = EXECUTED + AND_COUNTED if "operator_count" in entry.object("byEvidence") else EXECUTED
    shown = interval(entry.figures())
    return Basis("executed", meaning, value=shown, no_middle=NOTHING_MEASURED, facts=tuple(facts))


def _guidelines(totals: LedgerObject) -> Basis:
    entry = totals.object("guidelines")
    updates, cumulative = entry.figures(), entry.figures("cumulative")
    rows = [
        ("Recomputation", required_source(entry.mapping) if "requiredPpmSource" in entry else ""),
        ("How", entry.words("method", "guidelines.method")),
        ("Left out", left_out(totals.figures("executed"), updates)),
        ("Bounds", beyond_margin(updates) or beyond_margin(cumulative)),
        (AS_CLAIMED, claims_text(entry.mapping)),
        (BY_COUNT, operators_text(entry.mapping)),
        ("Counted share of executed training work", _required_share(entry.maybe_object("requiredPpm"))),
    ]
    facts = tuple(Fact(name, words) for name, words in stated(rows))
    further = ("Cumulative: all that counts towards the model", interval(cumulative))
    return Basis("guidelines", GUIDELINES, value=interval(updates), facts=facts, further=(further,))


def _required_share(share: LedgerObject | None) -> str:
    if share is None:
        return ""
    low, declared, high = share.count("low"), share.maybe_count("stated"), share.count("high")
    if low == high:
        return percent(low)
    ends = f"{percent(low, Towards.DOWN)} to {percent(high, Towards.UP)}"
    return ends if declared is None else f"{ends}, {percent(declared)} by what was declared"


def _architecture(totals: LedgerObject) -> Basis:
    entry = totals.maybe_object("architecture")
    if entry is None:
        why = "; ".join(totals.all_words(ABSENT, ABSENT)) or "this ledger does not say why"
        absent = f"Not computed: {why}. So there is nothing to compare with the counters."
        return Basis("architecture", ARCHITECTURE, "computed", absent=absent)
    facts = [Fact("How", " ".join(entry.all_words("method", "architecture.method")))]
    parameters = entry.maybe_object("parameters")
    if parameters is not None:
        names = [name for name in ("total", "active", "trainable") if name in parameters]
        facts.append(Fact("Parameters", ", ".join(f"{grouped(parameters.count(name))} {name}" for name in names)))
    facts.append(Fact("Tokens", grouped(entry.count("tokens"))))
    facts.append(Fact("Margin", f"{percent(entry.count('marginPpm'))} either way"))
    executed = interval(entry.figures("executed", "computed"))
    return Basis(
        "architecture",
        ARCHITECTURE,
        "computed",
        interval(entry.figures(middle="computed")),
        facts=tuple(facts),
        further=(("With recomputation, as the hardware executes it", executed),),
        assumptions=entry.all_words("assumptions", "architecture.assumptions"),
    )


def comparisons_of(predicate: LedgerObject) -> tuple[Comparison, ...]:
    """Pairs of bases, each with its ratio, and a named warning if they do not agree."""
    return tuple(
        _energy_comparison(entry) if entry.text("name") == ENERGY else _comparison(entry)
        for entry in predicate.objects("reconciliation")
    )


def _energy_comparison(entry: LedgerObject) -> Comparison:
    per_flop, published = entry.object("fjPerFlop"), entry.object("publishedFjPerFlop")
    measured, warned = per_flop.count("measured"), "warning" in entry
    ends = fj_per_flop(per_flop.count("low"), per_flop.maybe_count("high"))
    part, precision = entry.text("part"), entry.text("precision")
    same = duration(entry.decimal("deviceSeconds")).text
    return Comparison(
        f"{ENERGY}: {part}",
        f"energy by the devices' counters / FLOP measured in the same {same} of device time",
        f"{fj_per_flop(measured, measured)} ({ends.removesuffix(PJ_PER_FLOP)})",
        f"published runs in {precision} took {fj_per_flop(published.count('low'), published.count('high'))}",
        AGREEMENT[entry.flag("withinMargin")],
        entry.text("warning") if warned else "",
        (entry.words("warning", "reconciliation.warning") + " " if warned else "") + ENERGY_LIMIT,
    )


def _comparison(entry: LedgerObject) -> Comparison:
    warned = "warning" in entry
    return Comparison(
        entry.text("name"),
        entry.words("name", "reconciliation.name"),
        _ratio(entry.object("ratioPpm")),
        f"margin {percent(entry.count('marginPpm'))} either way",
        AGREEMENT[entry.flag("withinMargin")],
        entry.text("warning") if warned else "",
        entry.words("warning", "reconciliation.warning") if warned else "They agree within the margin.",
    )


def _ratio(entry: LedgerObject) -> str:
    low, measured, high = (entry.maybe_count(name) for name in ("low", "measured", "high"))
    if high is None:
        ends = NO_UPPER_BOUND if not low else f"at least {_times(low, Towards.DOWN)}; {NO_UPPER_BOUND}"
    else:
        ends = f"{_times(low or 0, Towards.DOWN)} to {_times(high, Towards.UP)}"
    if low is None and high is None:
        return "not known" if measured is None else _times(measured)
    return ends if measured is None else f"{_times(measured)} ({ends})"


def _times(ppm: int, towards: Towards = Towards.NEAREST) -> str:
    thousandths = divided(ppm, PPM // 1000, towards)
    return f"{thousandths // 1000}.{thousandths % 1000:03d}"


def evidence_of(predicate: LedgerObject) -> tuple[Share, ...]:
    """The executed figure by evidence, strongest first."""
    found = dict(_shares(predicate, "byEvidence", EVIDENCE))
    return tuple(found[name] for name in (*EVIDENCE, *(n for n in found if n not in EVIDENCE)) if name in found)


def phases_of(predicate: LedgerObject) -> tuple[Share, ...]:
    """The executed figure by declared phase; empty if the ledger has no phases."""
    return tuple(share for _, share in _shares(predicate, "byPhase", PHASES))


def _shares(predicate: LedgerObject, name: str, meanings: Mapping[str, str]) -> Iterator[tuple[str, Share]]:
    is_whole = is_complete(predicate.mapping)
    for key, entry in predicate.object("totals").object("executed").items(name):
        figures = entry.figures()  # a missing ledger may have more of each
        yield key, Share(key, meanings.get(key, ""), interval(figures if is_whole else figures.unbounded))
