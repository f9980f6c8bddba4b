"""Compares a run's compute with thresholds: which rules apply, and whether they are crossed. Pure.

A verdict is given only where it is certain, whatever is declared later (ADR 27): `below` if even the upper bound is not
above the lowest threshold that the rule can have, whether it applies or not; `above` if it applies and even the lower
bound is above the highest; otherwise `indeterminate`, with the reason. "Above" means "greater than" or "at least", as
the rule says, on exact fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import NamedTuple, cast

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Base, Method
from flopsd.core.figures import Figures
from flopsd.core.notes import Note, note
from flopsd.core.policy.conditions import applies_to, base_range
from flopsd.core.policy.finding import OPERATOR_COUNT, QUANTITY_OR, Finding, Limit, OnlyIfBase, Verdict
from flopsd.core.policy.guidelines import NOTHING_COUNTED, Guidelines
from flopsd.core.policy.policy_file import WITH_BASE, Conditions, Policy, Quantity, Rule
from flopsd.core.values import ceil_div, most

_MAX_KNOWN = 1024  # entries per policy: a merge has as many base models as lineages


@dataclass(frozen=True, slots=True)
class Case:
    """The account of one lineage and its declarations. `integers` are integer operations, which only some policies
    count.

    `whole` is False where something is missing from the account: it then has no upper bound. `conflict` names
    contradictions about the base model; if there are any, a `base` of None does not mean undeclared.
    """

    counted: Guidelines
    method: Method | None = None
    base: Base | None = None
    whole: bool = True
    conflict: tuple[str, ...] = ()  # codes
    integers: Guidelines = NOTHING_COUNTED
    claimed: Guidelines | None = None  # FLOP that count if training processes tell the truth
    methods: tuple[Method | None, ...] = ()  # of the parts of a sum: `method` may be of none of them


def findings(policy: Policy, case: Case) -> tuple[Finding, ...]:
    """One finding per rule, in the policy's order."""
    judged = _judged(policy, case)
    if any(case.counted.by_operators):
        read = replace(case, counted=case.counted.without_operators)
        judged = tuple(
            one
            if one.state is other.state
            else replace(one, rests_on=OPERATOR_COUNT, why=(*one.why, Note("by_operators")))
            for one, other in zip(judged, _judged(policy, read), strict=True)
        )
    if case.claimed is None:
        return judged
    others = _judged(policy, replace(case, counted=case.claimed))
    return tuple(
        one if one.state is other.state else replace(one, if_claims_hold=other.state)
        for one, other in zip(judged, others, strict=True)
    )


def _judged(policy: Policy, case: Case) -> tuple[Finding, ...]:
    if policy.counts_integers:
        case = replace(case, counted=case.counted + case.integers)
    found: dict[str, Finding] = {}
    for rule in sorted(policy.rules, key=lambda rule: bool(rule.derived)):
        found[rule.id] = _derived(policy, rule, case, found) if rule.derived else _compared(policy, rule, case)
    return tuple(found[rule.id] for rule in policy.rules)


class _Stated(NamedTuple):
    """What follows for a rule from declarations alone. `limit` is None where the rule does not apply."""

    applies: bool | None
    why: tuple[Note, ...]
    only_systemic_open: bool
    quantities: tuple[Quantity, ...]
    quantity: str
    base: _BaseFlop
    limit: Limit | None


class _BaseFlop(NamedTuple):
    """The compute of the base model under the conditions of a rule: its bounds, rounded outward, and the least and the
    most whole count within them. No upper bound: None."""

    low: int
    high: int | None
    least: int
    most: int | None
    is_exact: bool

    @classmethod
    def of(cls, when: Conditions, base: Base | None, margin_ppm: int) -> _BaseFlop:
        low, high = base_range(when, base, margin_ppm)
        least = int(low) + 1 if low == when.base_above_flop else ceil(low)
        if high is None:
            return cls(int(low), None, least, None, is_exact=False)
        return cls(int(low), ceil(high), least, int(high), is_exact=low == high)


def _stated(policy: Policy, rule: Rule, case: Case) -> _Stated:
    """The cached result for a rule: a daemon asks at every scrape."""
    key = rule.id, case.method, case.base, case.conflict, case.methods
    if (known := policy.known.get(key)) is not None and known[0] is rule:
        return cast(_Stated, known[1])
    margin_ppm = policy.margin_ppm
    applies, why, only_systemic_open = applies_to(
        rule.when, case.method, case.base, margin_ppm, case.conflict, case.methods
    )
    quantities, limit = _quantities(rule, case), None
    base = _BaseFlop.of(Conditions() if applies is False else rule.when, case.base, margin_ppm)
    if applies is not False and rule.threshold is not None:
        limit = lowest_and_highest(rule, case.base, margin_ppm)
    words = QUANTITY_OR.join(quantity.value for quantity in quantities)
    found = _Stated(applies, why, only_systemic_open, quantities, words, base, limit)
    if len(policy.known) >= _MAX_KNOWN:
        policy.known.clear()
    policy.known[key] = rule, found
    return found


def _compared(policy: Policy, rule: Rule, case: Case) -> Finding:
    stated = _stated(policy, rule, case)
    why, limit, applies = stated.why, stated.limit, stated.applies
    value = _enclosing([_value(quantity, case, stated.base) for quantity in stated.quantities])
    state: Verdict | None = None
    only_if = None
    if limit is not None:
        state, reason = _state(value, limit, case)
        unsure = applies is None and not (stated.only_systemic_open and _alternative_is_above(policy, rule, case))
        if state is Verdict.ABOVE and unsure:
            state, reason = Verdict.INDETERMINATE, (Note("above_if_it_applies"),)
        if state is Verdict.INDETERMINATE:
            only_if = _only_if(rule, stated.quantities, case, stated.base)
        why += reason
    return Finding(
        policy.id, rule, applies, why, stated.quantity, value, limit, state, policy.counts_integers, only_if=only_if
    )


def lowest_and_highest(rule: Rule, base: Base | None, margin_ppm: int) -> Limit:
    """The threshold if the rule applies, over everything undeclared about the base model, by the policy's data alone.
    Declaring more, or estimating more exactly, never lowers the low end or raises the high one."""
    assert rule.threshold is not None
    flop, of_base, at_least = rule.threshold.flop, rule.threshold.of_base, rule.threshold.at_least
    if flop is not None:
        return Limit(flop, flop, at_least)
    assert of_base is not None
    low, high = base_range(rule.when, base, margin_ppm)
    return Limit(low * of_base, None if high is None else high * of_base, at_least)


def _alternative_is_above(policy: Policy, rule: Rule, case: Case) -> bool:
    """Whether the account is also above the rule's `or_else` alternative, where one of the two certainly applies."""
    if rule.or_else is None:
        return False
    other = policy.rule(rule.or_else)
    base = _BaseFlop.of(other.when, case.base, policy.margin_ppm)
    value = _enclosing([_value(quantity, case, base) for quantity in _quantities(other, case)])
    return _state(value, lowest_and_highest(other, case.base, policy.margin_ppm), case)[0] is Verdict.ABOVE


def _only_if(rule: Rule, quantities: Sequence[Quantity], case: Case, base: _BaseFlop) -> OnlyIfBase | None:
    """The base models for which the account is not below; None where the result does not depend on their compute."""
    assert rule.threshold is not None
    own = _enclosing([_computed_here(quantity, case) for quantity in quantities]).high_flop
    if own is None or base.is_exact:
        return None
    least_flop, most_flop = base.least, base.most
    if rule.threshold.of_base is not None:
        # The largest base model for which this account is above the rule's fraction.
        part, whole = rule.threshold.of_base.as_integer_ratio()
        crossed = own * whole // part if rule.threshold.at_least else ceil_div(own * whole, part) - 1
        most_flop = crossed if most_flop is None else min(most_flop, crossed)
    elif WITH_BASE.issuperset(quantities):
        assert rule.threshold.flop is not None
        flop, unit = rule.threshold.flop.as_integer_ratio()
        lacking = flop - own * unit
        least_flop = max(least_flop, ceil_div(lacking, unit) if rule.threshold.at_least else lacking // unit + 1)
    else:
        return None
    if most_flop is None or least_flop > most_flop:
        return None
    return OnlyIfBase(least_flop, most_flop, rule.when.base_systemic)


def _derived(policy: Policy, rule: Rule, case: Case, found: dict[str, Finding]) -> Finding:
    """The result of the rules from which this one is derived, if its own conditions hold too. Uses the rules that are
    not below, if any. It is not known which of them applies, so the figures enclose all of theirs."""
    stated = _stated(policy, rule, case)
    applies, why = stated.applies, stated.why
    sources = [found[other] for other in rule.derived if found[other].applies is not False]
    if applies is not False and not sources:
        applies, why = False, (Note("no_rule_applies"), *found[rule.derived[0]].why)
    if applies is False:
        return replace(found[rule.derived[0]], rule=rule, applies=False, why=why, limit=None, state=None, only_if=None)
    open_ones = [source for source in sources if source.state is not Verdict.BELOW]
    rest = open_ones or sources
    certain = applies is True and len(sources) == 1 and rest[0].applies is True
    state = rest[0].state if certain or not open_ones else Verdict.INDETERMINATE
    if applies:
        why = (note("as_rules", rules=tuple(source.rule.id for source in rest)), *rest[0].why)
    else:
        why = tuple(dict.fromkeys((*why, *rest[0].why)))
    only_if = rest[0].only_if if len(rest) == 1 else None
    return replace(
        rest[0],
        rule=rule,
        applies=True if certain else None,
        why=why,
        quantity=QUANTITY_OR.join(dict.fromkeys(one for each in rest for one in each.quantity.split(QUANTITY_OR))),
        value=_enclosing([each.value for each in rest]),
        limit=_enclosing_limit([each.limit for each in rest if each.limit is not None]),
        state=state,
        only_if=only_if,
    )


def _enclosing_limit(limits: Sequence[Limit]) -> Limit:
    """A threshold that encloses all of these."""
    if len(limits) == 1:
        return limits[0]
    return Limit(min(limit.low for limit in limits), most(limit.high for limit in limits), limits[0].at_least)


def _quantities(rule: Rule, case: Case) -> tuple[Quantity, ...]:
    """The distinct quantities that the rule may mean, depending on the base model. A derived rule has none."""
    if rule.quantities is None:
        return ()
    systemic = rule.when.base_systemic
    if systemic is None and case.base is not None:
        systemic = case.base.systemic
    elif systemic is None and case.method is Method.PRETRAINING and not case.conflict:
        systemic = False
    ordinary, with_risk = rule.quantities
    return tuple(dict.fromkeys([ordinary, with_risk] if systemic is None else [with_risk if systemic else ordinary]))


def _computed_here(quantity: Quantity, case: Case) -> Figures:
    """The part of a quantity that this account itself computed."""
    of_updates = quantity in (Quantity.UPDATES, Quantity.BASE_UPDATES)
    plain = case.counted.updates if of_updates else case.counted.cumulative
    return plain if case.whole else plain.unbounded


def _value(quantity: Quantity, case: Case, base: _BaseFlop) -> Figures:
    plain = _computed_here(quantity, case)
    if quantity not in WITH_BASE:
        return plain
    return Figures(
        plain.low_flop + base.low,
        None,  # the base model's part is declared, not measured
        None if base.high is None or plain.high_flop is None else plain.high_flop + base.high,
    )


def _enclosing(values: Sequence[Figures]) -> Figures:
    """The interval that encloses all values. It has a measured figure only where they agree."""
    if len(values) == 1:
        return values[0]
    measured = {value.measured_flop for value in values}
    return Figures(
        min(value.low_flop for value in values),
        measured.pop() if len(measured) == 1 else None,
        most(value.high_flop for value in values),
    )


def _state(value: Figures, limit: Limit, case: Case) -> tuple[Verdict, tuple[Note, ...]]:
    """The state, with the reason for an indeterminate one."""
    if limit.is_above(value.low_flop):
        return Verdict.ABOVE, ()
    if value.high_flop is not None and limit.is_below(value.high_flop):
        return Verdict.BELOW, ()
    if not case.whole:
        return Verdict.INDETERMINATE, (Note("account_not_whole"),)
    if value.high_flop is None:
        return Verdict.INDETERMINATE, (Note("no_upper_bound"),)
    if limit.high is None:
        return Verdict.INDETERMINATE, (Note("threshold_not_known"),)
    if limit.low != limit.high:
        return Verdict.INDETERMINATE, (Note("both_answers"),)
    return Verdict.INDETERMINATE, (Note("threshold_between"),)
