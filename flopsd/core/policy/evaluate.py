"""A run's compute against thresholds: which rules apply, and whether they are crossed. Pure.

A verdict is given only where it is certain: `below` if even the upper end is not above the threshold, `above` if even
the lower end is, else `indeterminate` with the reason. "Above" is a strict "greater than" on exact fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import Any

from flopsd.core.declarations import Base, Method
from flopsd.core.model import PPM, Figures
from flopsd.core.policy.conditions import applies_to, base_bounds
from flopsd.core.policy.guidelines import NOTHING_COUNTED, Guidelines
from flopsd.core.policy.policy_file import Policy, Quantity, Rule, Threshold
from flopsd.core.values import ceil_div, text_or_none

__all__ = ["Case", "Finding", "Limit", "Policy", "Verdict", "findings"]


class Verdict(str, Enum):
    """What is certain of an account and a threshold."""

    BELOW = "below"
    ABOVE = "above"
    INDETERMINATE = "indeterminate"


@dataclass(frozen=True, slots=True)
class Case:
    """The account of one lineage and what is declared of it. `integers` are integer operations, which only some
    policies count.

    `whole` is False where something is missing from the account: then it has no upper end. `conflict` names what
    contradicts what about the base model, if anything does: then a `base` of None does not mean undeclared.
    """

    updates: Figures
    cumulative: Figures
    method: Method | None = None
    base: Base | None = None
    whole: bool = True
    conflict: str = ""
    integers: Guidelines = NOTHING_COUNTED
    claimed: Guidelines | None = None  # what counts of FLOP if training processes say the truth


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold in exact FLOP; `low` and `high` differ where the base model's compute is an estimate."""

    low: Fraction
    high: Fraction


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule and one account. `applies` is None where it is not known; then `why` names what is not known.

    `limit` is None where it is not known, `state` where the rule does not apply. `if_claims_hold` is the state if
    training processes say the truth, where that is another one.
    """

    policy: str
    rule: Rule
    applies: bool | None
    why: str
    quantity: str
    value: Figures
    limit: Limit | None
    state: Verdict | None
    counts_integers: bool = False  # whether integer operations are in the value
    if_claims_hold: Verdict | None = None

    @property
    def share_ppm(self) -> tuple[int | None, int | None, int | None]:
        """Low, measured and high as parts per million of the threshold, rounded outward.

        `measured` has a share only of an exact threshold.
        """
        if self.limit is None or self.limit.low <= 0:
            return None, None, None
        low, measured, high = self.value.low_flop, self.value.measured_flop, self.value.high_flop
        exact = self.limit.low == self.limit.high
        return (
            int(low * PPM / self.limit.high),
            round(measured * PPM / self.limit.low) if exact and measured is not None else None,
            None if high is None else _ceil(high * PPM / self.limit.low),
        )

    def for_ledger(self) -> dict[str, Any]:
        """JSON without a number: counts are decimal strings, thresholds exact fractions as text."""
        low, measured, high = self.share_ppm
        return {
            "policy": self.policy,
            "rule": self.rule.id,
            "quantity": self.quantity,
            "countsIntegerOperations": self.counts_integers,
            "applies": self.applies,
            "reason": self.why,
            "threshold": None if self.limit is None else {"low": str(self.limit.low), "high": str(self.limit.high)},
            "state": None if self.state is None else self.state.value,
            "stateIfClaimsHold": None if self.if_claims_hold is None else self.if_claims_hold.value,
            "value": self.value.for_ledger(),
            "sharePpm": {"low": text_or_none(low), "measured": text_or_none(measured), "high": text_or_none(high)},
            "title": self.rule.title,
            "citation": self.rule.citation,
            "consequence": self.rule.consequence,
            "assumes": self.rule.assumes or None,
            "status": self.rule.status,
            "since": self.rule.since,
        }


def findings(policy: Policy, case: Case) -> tuple[Finding, ...]:
    """One finding a rule, in the policy's order."""
    judged = _judged(policy, case)
    if case.claimed is None:
        return judged
    others = _judged(policy, replace(case, updates=case.claimed.updates, cumulative=case.claimed.cumulative))
    return tuple(
        one if one.state is other.state else replace(one, if_claims_hold=other.state)
        for one, other in zip(judged, others, strict=True)
    )


def _judged(policy: Policy, case: Case) -> tuple[Finding, ...]:
    if policy.counts_integers:
        both = Guidelines(case.updates, case.cumulative) + case.integers
        case = replace(case, updates=both.updates, cumulative=both.cumulative)
    found: dict[str, Finding] = {}
    for rule in sorted(policy.rules, key=lambda rule: bool(rule.derived)):
        found[rule.id] = _derived(policy, rule, case, found) if rule.derived else _compared(policy, rule, case)
    return tuple(found[rule.id] for rule in policy.rules)


def _compared(policy: Policy, rule: Rule, case: Case) -> Finding:
    assert rule.quantities is not None
    assert rule.threshold is not None
    applies, why, only_systemic_open = applies_to(rule.when, case.method, case.base, policy.margin_ppm, case.conflict)
    rules = [rule]
    if rule.or_else is not None and applies is None and only_systemic_open:
        rules.append(policy.rule(rule.or_else))
    quantities = _quantities(rules, case)
    value = _hull([_value(quantity, case, policy.margin_ppm) for quantity in quantities])
    limit = _limit([r.threshold for r in rules if r.threshold is not None], case, policy.margin_ppm)
    state: Verdict | None
    if applies is False:
        state, limit = None, None
    elif applies is None and case.base is None:
        state = Verdict.INDETERMINATE  # what is not declared could be anything: the words are in `why`
    else:
        state, reason = _state(value, limit, case)
        if applies is None and state is Verdict.ABOVE and len(rules) == 1:
            state, reason = Verdict.INDETERMINATE, "above the threshold, if the rule applies"
        why = f"{why}; {reason}" if reason else why
    quantity = " or ".join(q.value for q in quantities)
    return Finding(policy.id, rule, applies, why, quantity, value, limit, state, policy.counts_integers)


def _derived(policy: Policy, rule: Rule, case: Case, found: dict[str, Finding]) -> Finding:
    """The result of the rules that this one is derived from, where its own conditions hold too."""
    applies, why, _ = applies_to(rule.when, case.method, case.base, policy.margin_ppm, case.conflict)
    sources = [found[other] for other in rule.derived if found[other].applies is not False]
    first = sources[0] if sources else found[rule.derived[0]]
    if applies is not False and not sources:
        applies, why = False, f"no rule that it rests on applies: {first.why}"
    if applies is False:
        return replace(first, rule=rule, applies=False, why=why, limit=None, state=None)
    certain = applies is True and len(sources) == 1 and first.applies is True
    states = {source.state for source in sources}
    state = first.state if certain or states == {Verdict.BELOW} else Verdict.INDETERMINATE
    names = " or ".join(source.rule.id for source in sources)
    why = f"as {names}: {first.why}" if applies else why
    limit = first.limit if len(sources) == 1 else None
    return replace(first, rule=rule, applies=True if certain else None, why=why, limit=limit, state=state)


def _quantities(rules: Sequence[Rule], case: Case) -> list[Quantity]:
    """Those that the rules may mean, without repeats: which one can depend on the base model."""
    found: list[Quantity] = []
    no_base = False if case.method is Method.PRETRAINING and not case.conflict else None
    systemic = case.base.systemic if case.base is not None else no_base
    for rule in rules:
        assert rule.quantities is not None
        ordinary, with_risk = rule.quantities
        if len(rules) > 1 and rule.when.base_systemic is not None:
            choice = [with_risk if rule.when.base_systemic else ordinary]
        else:
            choice = [ordinary, with_risk] if systemic is None else [with_risk if systemic else ordinary]
        found += [quantity for quantity in choice if quantity not in found]
    return list(dict.fromkeys(found))


def _value(quantity: Quantity, case: Case, margin_ppm: int) -> Figures:
    plain = case.updates if quantity in (Quantity.UPDATES, Quantity.BASE_UPDATES) else case.cumulative
    if not case.whole:
        plain = plain.unbounded
    if quantity in (Quantity.UPDATES, Quantity.CUMULATIVE):
        return plain
    low, high = base_bounds(case.base, margin_ppm)
    return Figures(
        plain.low_flop + int(low),
        None,  # the base model's part is declared, not measured
        None if high is None or plain.high_flop is None else plain.high_flop + _ceil(high),
    )


def _hull(values: Sequence[Figures]) -> Figures:
    """The interval around all of them. Measured only where they agree."""
    highs = [value.high_flop for value in values]
    measured = {value.measured_flop for value in values}
    return Figures(
        min(value.low_flop for value in values),
        measured.pop() if len(measured) == 1 else None,
        None if None in highs else max(high for high in highs if high is not None),
    )


def _limit(thresholds: Sequence[Threshold], case: Case, margin_ppm: int) -> Limit | None:
    ends: list[Fraction] = []
    for threshold in thresholds:
        if threshold.flop is not None:
            ends.append(threshold.flop)
            continue
        assert threshold.of_base is not None
        low, high = base_bounds(case.base, margin_ppm)
        if high is None:
            return None
        ends += [low * threshold.of_base, high * threshold.of_base]
    return Limit(min(ends), max(ends))


def _state(value: Figures, limit: Limit | None, case: Case) -> tuple[Verdict, str]:
    """The state, and for an indeterminate one the reason."""
    if limit is None:
        return Verdict.INDETERMINATE, "the threshold is not known, since the base model's compute is not"
    if value.low_flop > limit.high:
        return Verdict.ABOVE, ""
    if value.high_flop is not None and value.high_flop <= limit.low:
        return Verdict.BELOW, ""
    if not case.whole:
        return Verdict.INDETERMINATE, "something is missing from the account, so that no upper bound is known"
    if value.high_flop is None:
        return Verdict.INDETERMINATE, "no upper bound is known"
    if limit.low != limit.high:
        return Verdict.INDETERMINATE, "between the figures' two ends and the base model's two ends both answers lie"
    return Verdict.INDETERMINATE, "the threshold lies between the lower and the upper end"


def _ceil(number: Fraction) -> int:
    return ceil_div(number.numerator, number.denominator)
