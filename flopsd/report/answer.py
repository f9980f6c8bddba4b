"""The answer to all findings: one headline, the same in every output, and the conditions under which it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from flopsd.core.rounding import FACTOR, share_at_most
from flopsd.report.contents.model import Answer, ReportRule, ReportState
from flopsd.report.contents.verdicts import WORDS, common_reasons, rules_of, words_of
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.numbers import NOTHING_MEASURED, Interval
from flopsd.report.rule_words import COMPUTE_ALONE
from flopsd.report.terminal import counted, sentence

_REASONS = 3
_NARROW = 10  # exceptions are named only if the lowest threshold is more than this times the range they leave open
_LED = 2  # rules that the answer explains one by one


def answer_to(findings: Iterable[Mapping[str, Any]]) -> Answer:
    """The answer to findings in the form of a ledger or the status of a run."""
    rules, others, _ = rules_of(LedgerObject({"findings": list(findings)}, ""))
    return answer_of(rules, others)


def answer_of(rules: Sequence[ReportRule], others: Sequence[ReportRule], executed: Interval | None = None) -> Answer:
    """The answer. With several policies, each has its own, with its name; the state is the gravest of them."""
    policies = dict.fromkeys(rule.policy for rule in (*rules, *others))
    if len(policies) < 2:
        return _answer(rules, others, executed)
    answers = {
        name: _answer([one for one in rules if one.policy == name], [one for one in others if one.policy == name])
        for name in policies
    }
    return Answer(
        min((answer.state for answer in answers.values()), key=list(WORDS).index),
        "; ".join(f"{name}: {answer.headline}" for name, answer in answers.items()),
        tuple(dict.fromkeys(words for answer in answers.values() for words in answer.only_if)),
        tuple(f"{name}: {words}" for name, answer in answers.items() for words in answer.sentences),
    )


def _answer(rules: Sequence[ReportRule], others: Sequence[ReportRule], executed: Interval | None = None) -> Answer:
    """The answer for one policy: below if only base models of a narrow kind would be above, else the gravest state."""
    if not rules and not others:
        figures = () if executed is None else (f"Executed compute: {words_of(executed, NOTHING_MEASURED)}.",)
        says = "This ledger has no verdict: its figures were not compared with any threshold."
        return Answer(ReportState.NONE, "No policy was applied", (), (says, *figures))
    if not rules:
        return Answer(ReportState.NOT_APPLICABLE, "No rule applies", (), _reasons(others))
    only_if = _only_if(rules)
    if headline := _below(rules):
        return Answer(ReportState.BELOW, headline, only_if, _leads(rules, ReportState.BELOW))
    state = rules[0].state
    gravest = [rule for rule in rules if rule.state is state]
    headline = f"{WORDS[state]} {'for ' * (state is ReportState.INDETERMINATE)}{_number(len(gravest), len(rules))}"
    if state is ReportState.INDETERMINATE:
        headline += f": {_last_common_reason(gravest)}"
    if state is ReportState.ABOVE and any(rule.other_conditions for rule in gravest):
        headline += f" ({COMPUTE_ALONE})"
    if state is ReportState.INDETERMINATE and gravest[0].applies is None:
        return Answer(state, headline, only_if, (*_reasons(gravest), *_rest(rules, 0, state)))
    return Answer(state, headline, only_if, _leads(rules, state))


def _below(rules: Sequence[ReportRule]) -> str:
    """The headline of a run that is below whatever was not declared; else empty. A run far below may have exceptions
    for base models in a narrow range of compute; with a wider range the answer depends on the base model."""
    all_below = [rule.distance for rule in rules if rule.state is ReportState.BELOW and rule.distance is not None]
    own = [one for one in all_below if not one.with_base] or all_below
    open_ones = [rule for rule in rules if rule.state is not ReportState.BELOW]
    if not own:
        return ""
    nearest = max(own, key=lambda one: (one.at_most, -one.lowest))
    far_below = nearest.at_most * FACTOR < 1
    for rule in open_ones:
        few = rule.only_if is not None and rule.only_if.width * _NARROW < nearest.lowest
        if not (far_below and few and rule.applies is None):
            return ""
    certain = all(rule.applies for rule in rules)
    least = "lowest" if nearest.lowest == min(one.lowest for one in own) else "nearest"
    which = "threshold" if certain and len(rules) == 1 else f"{least} threshold"
    of = f"the {which} that {'applies' if certain else 'could apply'}"
    share = share_at_most(nearest.at_most, Fraction(1), of)
    word = "Far below" if far_below else "Below"
    base = ", with the base model's compute in it" if nearest.with_base else ""
    exceptions = ", except for certain base models" if open_ones else ""
    return f"{word}: {share}{base}{exceptions}{'' if nearest.with_base else _with_base(rules)}"


def _only_if(rules: Sequence[ReportRule]) -> tuple[str, ...]:
    """The conditions under which the run is above, each with the rules that depend on it."""
    found: dict[str, list[str]] = {}
    for rule in rules:
        if rule.only_if is not None:
            found.setdefault(rule.only_if.words, []).append(rule.name)
    return tuple(f"Above only if {words} ({', '.join(names)})." for words, names in found.items())


def _with_base(rules: Sequence[ReportRule]) -> str:
    """The share of a threshold that the run has reached together with its base model, unless that is far below too.
    Even if most of it is the base model's, the rule is that near."""
    below = (rule.distance for rule in rules if rule.state is ReportState.BELOW and rule.distance is not None)
    most = max((one.at_most for one in below if one.with_base), default=Fraction(0))
    return "" if most * FACTOR < 1 else f"; together with its base model {share_at_most(most, Fraction(1), 'another')}"


def _leads(rules: Sequence[ReportRule], state: ReportState) -> tuple[str, ...]:
    """The first rules of that state (of rules below: those that apply), and a summary of the others."""
    led = [rule for rule in rules if rule.state is state and (rule.applies or state is not ReportState.BELOW)][:_LED]
    hidden = sum(rule.state is state for rule in rules) - len(led)
    texts = [
        f"{rule.title}: {rule.text}" + (f" Share of the threshold: {rule.share}." if rule.share else "") for rule in led
    ]
    return (*texts, *_rest(rules, hidden, state))


def _last_common_reason(rules: Sequence[ReportRule]) -> str:
    """The last reason that the rules have in common."""
    common = common_reasons(rules)
    return common[-1] if common else "see each"


def _reasons(rules: Sequence[ReportRule]) -> tuple[str, ...]:
    """The reasons as sentences, each once, at most _REASONS."""
    parts = (part for rule in rules for part in rule.why.split("; ") if part)
    return tuple(dict.fromkeys(map(sentence, parts)))[:_REASONS]


def _rest(rules: Sequence[ReportRule], hidden: int, led: ReportState) -> tuple[str, ...]:
    """A summary of the other rules, so that the headline hides none: first those of its own state, then the others."""
    counts = [(led, hidden)] + [
        (one, sum(rule.state is one and rule.only_if is None for rule in rules)) for one in WORDS if one is not led
    ]
    return tuple(f"{counted(count, 'further rule')}: {WORDS[state].lower()}." for state, count in counts if count)


def _number(some: int, rules: int) -> str:
    if some < rules:
        return f"{some} of {rules} thresholds"
    return {1: "the threshold that applies", 2: "both thresholds"}.get(rules, f"all {rules} thresholds")
