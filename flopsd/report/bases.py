"""The three bases of counting, how they agree, and what the executed figure is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flopsd.core.model import PPM
from flopsd.core.rounding import Towards, divided, grouped
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.model import Basis, Comparison, Fact, Share
from flopsd.report.numbers import NO_UPPER_BOUND, NOTHING_MEASURED, Interval, flop, interval, percent

EXECUTED = (
    "What the accelerators' own counters saw: everything that ran, recomputation of activations, padding and "
    "evaluation included."
)
GUIDELINES = (
    "The part of it that directly contributed to parameter updates, as Annex A.1 of the Commission's Guidelines "
    "counts: recomputation of activations and purely diagnostic work taken out, by what was declared."
)
ARCHITECTURE = (
    "What follows from the model and the tokens that the training declared: a calculation beside the measurement, "
    "not a measurement."
)
NO_SINGLE = "no single figure"
EVIDENCE = {
    "cycles": "differences of hardware cycle counters that run on while nobody looks",
    "activity": "hardware activity percentages times the clock",
    "count": "what the vendor's own software counted: no hardware counter",
    "utilization": "share of time in which anything ran: an upper bound, never an estimate",
    "gap": "nothing was read: an upper bound",
}
PHASES = {
    "train": "training steps",
    "evaluate": "purely diagnostic: trains nothing, makes no training data",
    "generate": "makes training data: rollouts, synthetic data",
    "other": "declared as none of these",
    "undeclared": "nobody said what was done",
}


def bases_of(predicate: LedgerObject) -> tuple[Basis, ...]:
    """Executed, guidelines, architecture: side by side, always all three."""
    totals = predicate.object("totals")
    return _executed(totals), _guidelines(totals), _architecture(totals)


def _executed(totals: LedgerObject) -> Basis:
    told = totals.object("executed")
    facts = [Fact("Read from", told.text("method"))]
    margins = told.maybe_object("marginPpm")
    if margins is not None:
        known = [f"{name} ± {percent(margins.count(name))}" for name in margins.mapping if name in EVIDENCE]
        facts += [Fact("Margin", ", ".join(known))] if known else []
    if doubt := told.maybe_count("clockUncertaintyFlop"):
        facts.append(Fact("Of that, from the clock", f"± {flop(doubt).text} FLOP", exact=flop(doubt).exact))
    shown = interval(told.figures())
    return Basis("executed", "Executed", EXECUTED, "measured", shown, "", NOTHING_MEASURED, tuple(facts))


def _guidelines(totals: LedgerObject) -> Basis:
    told = totals.maybe_object("guidelines")
    if told is None:
        return Basis(
            "guidelines",
            "Guidelines",
            GUIDELINES,
            "measured",
            None,
            "Not stated: this ledger does not say how much of the executed compute the Guidelines count. "
            "It is not more than was executed.",
            NO_SINGLE,
        )
    facts = [Fact("Taken from", told.text("requiredPpmSource"))] if "requiredPpmSource" in told else []
    facts += [Fact("How", told.text("method"))] if "method" in told else []
    share = told.maybe_object("requiredPpm")
    if share is not None:
        low, stated, high = share.count("low"), share.maybe_count("stated"), share.count("high")
        words = percent(low) if low == high else f"{percent(low, Towards.DOWN)} to {percent(high, Towards.UP)}"
        if stated is not None and low != high:
            words += f", {percent(stated)} by what was declared"
        facts.append(Fact("Counted share of executed", words))
    further: tuple[tuple[str, Interval], ...] = ()
    if "cumulative" in told:
        further = (("Cumulative: all that counts towards the model", interval(told.figures("cumulative"))),)
    shown, assumptions = interval(told.figures()), told.texts("assumptions")
    name, title, middle = "guidelines", "Guidelines", "measured"
    return Basis(name, title, GUIDELINES, middle, shown, "", NO_SINGLE, tuple(facts), further, assumptions)


def _architecture(totals: LedgerObject) -> Basis:
    told = totals.maybe_object("architecture")
    if told is None:
        return Basis(
            "architecture",
            "Architecture",
            ARCHITECTURE,
            "computed",
            None,
            "Not declared: neither model nor tokens were given, so there is nothing to hold against the counters.",
            NO_SINGLE,
        )
    facts = [Fact("How", told.text("method"))] if "method" in told else []
    parameters = told.maybe_object("parameters")
    if parameters is not None:
        names = [name for name in ("total", "active", "trainable") if name in parameters]
        known = [f"{grouped(parameters.count(name))} {name}" for name in names]
        facts.append(Fact("Parameters", ", ".join(known) or "not declared"))
    if "tokens" in told:
        facts.append(Fact("Tokens", grouped(told.count("tokens"))))
    if "marginPpm" in told:
        facts.append(Fact("Margin", f"± {percent(told.count('marginPpm'))}"))
    further: tuple[tuple[str, Interval], ...] = ()
    if "executed" in told:
        again = interval(told.figures("executed", "computed"))
        further = (("With recomputation, as the hardware executes it", again),)
    shown, assumptions = interval(told.figures(middle="computed")), told.texts("assumptions")
    name, title, middle = "architecture", "Architecture", "computed"
    return Basis(name, title, ARCHITECTURE, middle, shown, "", NO_SINGLE, tuple(facts), further, assumptions)


def comparisons_of(predicate: LedgerObject) -> tuple[Comparison, ...]:
    """Pairs of bases, each with its ratio and the named warning where they do not agree."""
    return tuple(_comparison(told) for told in predicate.objects("reconciliation"))


def _comparison(told: LedgerObject) -> Comparison:
    within = told.flag("withinMargin")
    word = {True: "Agree", False: "Do not agree", None: "Indeterminate"}[within]
    margin = told.maybe_count("marginPpm")
    return Comparison(
        told.text("name"),
        " / ".join(told.text(name) for name in ("numerator", "denominator") if name in told),
        _ratio(told.maybe_object("ratioPpm")),
        "" if margin is None else f"± {percent(margin)}",
        word,
        told.maybe_text("warning") or "",
        told.maybe_text("summary") or "",
    )


def _ratio(told: LedgerObject | None) -> str:
    if told is None:
        return "not known"
    low, measured, high = (told.maybe_count(name) for name in ("low", "measured", "high"))
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
    """The executed figure by how it is known, strongest first."""
    executed = predicate.object("totals").object("executed")
    found = dict(_shares(executed, "byEvidence", EVIDENCE))
    return tuple(found[name] for name in (*EVIDENCE, *(n for n in found if n not in EVIDENCE)) if name in found)


def phases_of(predicate: LedgerObject) -> tuple[Share, ...]:
    """The executed figure by declared phase; empty in a ledger that knows no phases."""
    return tuple(share for _, share in _shares(predicate.object("totals").object("executed"), "byPhase", PHASES))


def _shares(told: LedgerObject, name: str, meanings: Mapping[str, str]) -> Iterator[tuple[str, Share]]:
    for key, figures in told.items(name):
        yield key, Share(key, meanings.get(key, ""), interval(figures.figures()))
