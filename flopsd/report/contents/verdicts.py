"""The findings of a ledger in words: the result of each rule. `answer.py` makes the answer from them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from flopsd.core.figures import Figures
from flopsd.core.policy.finding import OPERATOR_COUNT, Limit
from flopsd.core.policy.policy_file import AT_LEAST
from flopsd.core.rounding import FACTOR, Towards, format_share
from flopsd.report.claims import BY_COUNT_ALONE
from flopsd.report.contents.charts import Axis, RuleChart, anchor_at, axis_of, width_of
from flopsd.report.contents.model import ReportRule, ReportState
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.numbers import NO_MEASURED, NO_UPPER_BOUND, Amount, Distance, Interval, OnlyIf, flop, interval
from flopsd.report.rule_words import doubt, from_when, of_compute_alone
from flopsd.report.terminal import capital, sentence

QUANTITIES = {
    "updates": "compute that directly contributes to parameter updates",
    "cumulative": "all compute that counts towards the model",
    "base+updates": "compute of the base model and of this training",
    "base+cumulative": "compute of the base model and all that counts of this training",
}
WORDS = {  # the gravest first
    ReportState.ABOVE: "Above",
    ReportState.INDETERMINATE: "Indeterminate",
    ReportState.BELOW: "Below",
    ReportState.NOT_APPLICABLE: "Not applicable",
}
_NOT_RULED_OUT = (ReportState.ABOVE, ReportState.INDETERMINATE)
_FOR_SURE = "what is declared outside the job, as by --phase and --precision, needs no such condition"
_DRAWN = 2  # how many rules that are below are shown in full
_NOTHING_KNOWN = interval(Figures(0, None, None))
_COMPARED = ("below", "above", "indeterminate")


def rules_of(predicate: LedgerObject) -> tuple[tuple[ReportRule, ...], tuple[ReportRule, ...], Axis | None]:
    """The rules that apply or may apply, the gravest first, and of these those that apply first; the rules that do not;
    and the scale of the charts."""
    findings = list(predicate.objects("findings"))
    axis = axis_of(
        number for finding in findings if finding.flag("applies") is not False for number in _numbers(finding)
    )
    order = tuple(WORDS)
    rules = sorted(
        (_rule(finding, axis) for finding in findings), key=lambda rule: (order.index(rule.state), rule.applies is None)
    )
    return (
        tuple(rule for rule in rules if rule.state is not ReportState.NOT_APPLICABLE),
        tuple(rule for rule in rules if rule.state is ReportState.NOT_APPLICABLE),
        axis,
    )


def drawn_and_listed(rules: Sequence[ReportRule]) -> tuple[Sequence[ReportRule], Sequence[ReportRule]]:
    """The rules to show in full, and the rules for a table: rules below if others are not, and all but _DRAWN if all
    are below, or if nothing is known of the figures."""
    open_rules = [rule for rule in rules if rule.state is not ReportState.BELOW]
    drawn = open_rules or rules[:_DRAWN]
    if all(rule.value == _NOTHING_KNOWN for rule in open_rules):
        drawn = drawn[:_DRAWN]
    return drawn, rules[len(drawn) :]


def shown_of(rule: ReportRule) -> object:
    """A key of what is shown of a rule: indeterminate rules with the same key are shown together, others separately."""
    if rule.state is not ReportState.INDETERMINATE:
        return rule.name
    return rule.value, rule.threshold, rule.share, rule.text, rule.why


def common_reasons(rules: Sequence[ReportRule]) -> tuple[str, ...]:
    """The reasons that all the rules share, in order."""
    parts = rules[0].why.split("; ")
    return tuple(part for part in parts if part and all(part in rule.why.split("; ") for rule in rules))


def _rule(finding: LedgerObject, axis: Axis | None) -> ReportRule:
    applies = finding.flag("applies")
    compared, held = (
        finding.one_of(key, _COMPARED) if key in finding else None for key in ("state", "stateIfClaimsHold")
    )
    rests_on = finding.one_of("restsOn", (OPERATOR_COUNT,)) if "restsOn" in finding else None
    value = finding.figures("value")
    limit = _limit(finding)
    state, only_if = _state(applies, compared), _only_if(finding)
    title, status = capital(finding.text("title")), finding.text("status")
    since = finding.maybe_text("since") or ""
    share = _share(value, limit)
    quantities, other_conditions = finding.texts("quantities"), finding.texts("otherConditions")
    return ReportRule(
        title=title,
        policy=finding.text("policy"),
        name=f"{finding.text('policy')}/{finding.text('rule')}",
        state=state,
        applies=applies,
        word=WORDS[state],
        text=" ".join(
            filter(
                None,
                (
                    _text(state, applies, value, limit) if only_if is None else f"Above only if {only_if.words}.",
                    doubt(status) if state is ReportState.ABOVE else "",
                    sentence(from_when(since)) if state is ReportState.ABOVE else "",
                    sentence(BY_COUNT_ALONE) if rests_on else "",
                    of_compute_alone(other_conditions) if state in _NOT_RULED_OUT else "",
                    f"{WORDS[ReportState(held)]} if what its processes claim is true: {_FOR_SURE}." if held else "",
                ),
            )
        ),
        why="; ".join(finding.all_words("reasons", "findings.reasons")),
        quantity=", or ".join(QUANTITIES.get(quantity, quantity) for quantity in quantities),
        value=interval(value),
        threshold=None if limit is None else _shown(limit),
        share=share,
        citation=finding.text("citation"),
        consequence=finding.maybe_text("consequence") or "",
        since=since,
        assumes=finding.maybe_text("assumes") or "",
        status=status,
        other_conditions=other_conditions,
        chart=None
        if axis is None or limit is None or not limit.low or state is ReportState.NOT_APPLICABLE
        else chart_of(axis, value, limit, title, share),
        distance=None
        if value.high_flop is None or limit is None or not limit.low
        else Distance(value.high_flop / limit.low, limit.low, any(name.startswith("base+") for name in quantities)),
        only_if=only_if,
    )


def _only_if(finding: LedgerObject) -> OnlyIf | None:
    """Such as `the base model's training took at most 10^23 FLOP, and less than 5.1x10^16 FLOP short of that`."""
    entry = finding.maybe_object("aboveOnlyIfBase")
    if entry is None:
        return None
    least, most, systemic = entry.count("leastFlop"), entry.count("mostFlop"), entry.flag("systemic")
    width, shown = most - least + 1, flop(most, Towards.UP).text
    if least <= 1:
        took = f"training took at most {shown} FLOP"
    elif width * FACTOR < most and flop(most, Towards.DOWN).text == shown:  # else it is not short of what is shown
        short = flop(width, Towards.UP).text
        took = f"training took at most {shown} FLOP, and at most {short} FLOP less than that"
    else:
        took = f"training took between {flop(least, Towards.DOWN).text} and {shown} FLOP"
    risk = {True: " carries systemic risk and its", False: " carries no systemic risk and its", None: "'s"}[systemic]
    return OnlyIf(f"the base model{risk} {took}", width)


def _state(applies: bool | None, compared: str | None) -> ReportState:
    if applies is False:
        return ReportState.NOT_APPLICABLE
    if compared is None or (applies is None and compared != "below"):  # below holds whether or not the rule applies
        return ReportState.INDETERMINATE
    return ReportState(compared)


def _text(state: ReportState, applies: bool | None, value: Figures, limit: Limit | None) -> str:
    """The result in words. The figures of a rule may lack a measured one although something was measured, since they
    may include a base model's compute."""
    if state is ReportState.NOT_APPLICABLE:
        return "The rule does not apply."
    if state is ReportState.INDETERMINATE and applies is None:
        return f"It is not known whether the rule applies. {_stand(value, limit)}"
    at_least = limit is not None and limit.at_least
    if state is ReportState.ABOVE:
        return f"Even the lower bound {'reaches' if at_least else 'is above'} the threshold."
    if state is ReportState.BELOW:
        return f"Even the upper bound does not {'reach' if at_least else 'exceed'} the threshold."
    if limit is None or limit.high is None:
        return _not_known(limit)
    if value.high_flop is None and limit.is_below(value.low_flop):
        verb = "reach" if at_least else "exceed"
        return f"No upper bound is known, and the lower bound does not {verb} the threshold."
    return _open(value, limit)


def _not_known(limit: Limit | None) -> str:
    """A threshold without an upper end, or without any."""
    above_zero = limit is not None and limit.low
    return f"The threshold is not known{', and may be as low as the figures' if above_zero else ''}."


def _open(value: Figures, limit: Limit) -> str:
    """Neither end of the figures decides. The threshold may be an interval too."""
    if value.high_flop is not None and limit.is_below(value.low_flop) and limit.is_above(value.high_flop):
        return "The threshold lies between the lower and the upper bound."
    least = "No upper bound is known, and the threshold" if value.high_flop is None else "The threshold"
    return f"{least} may be above or below the figures: only a range is known of it."


def _stand(value: Figures, limit: Limit | None) -> str:
    """The relation of figures and threshold, whether or not the rule applies."""
    if limit is None:
        return "The threshold is not known either."
    verb = "reach" if limit.at_least else "exceed"
    if limit.is_above(value.low_flop):
        return f"The figures {verb} the threshold."
    if value.high_flop is None:
        return "The figures have no upper bound."
    if limit.is_below(value.high_flop):
        return f"The figures do not {verb} the threshold."
    return _not_known(limit) if limit.high is None else _open(value, limit)


def _limit(finding: LedgerObject) -> Limit | None:
    entry = finding.maybe_object("threshold")
    if entry is None:
        return None
    low = Fraction(0) if entry.raw("low") == "0" else entry.fraction("low")  # a fraction of any base model's compute
    return Limit(low, entry.fraction("high") if "high" in entry else None, entry.text("comparison") == AT_LEAST)


def _shown(limit: Limit) -> Amount:
    one = flop(limit.low)
    if limit.high is None:
        return Amount(f"at least {one.text}", f"at least {one.exact}")
    other = flop(limit.high)
    return one if limit.low == limit.high else Amount(f"{one.text} to {other.text}", f"{one.exact} to {other.exact}")


def _share(value: Figures, limit: Limit | None) -> str:
    """The share of the threshold, rounded outward; it says if no upper bound is known. Empty without a threshold."""
    if limit is None or not limit.low:
        return ""
    low, high = limit.low, limit.high
    small = high is None or value.low_flop * FACTOR < high
    least = "" if small or high is None else format_share(value.low_flop, high, Towards.DOWN)
    if value.high_flop is None:
        ends = f"at least {least}; {NO_UPPER_BOUND}" if least else NO_UPPER_BOUND
    else:
        most = format_share(value.high_flop, low, Towards.UP)
        ends = f"{least} to {most}" if least else f"at most {most}"
    if not value.measured_flop or low != high:
        return ends
    return f"{format_share(value.measured_flop, low)} ({ends})"


def words_of(value: Interval, absent: str) -> str:
    middle = absent if value.measured is None else f"measured {value.measured.text} FLOP"
    return f"{middle}, {value.ends}"


def _numbers(finding: LedgerObject) -> list[int | Fraction]:
    limit = _limit(finding)
    ends = () if limit is None else (limit.low, limit.high)
    return [number for number in (*finding.figures("value"), *ends) if number is not None]


def chart_of(axis: Axis, value: Figures, limit: Limit, title: str, share: str) -> RuleChart:
    """The chart of one rule, with a description for a screen reader."""
    threshold, wall = _shown(limit).text, axis.at(limit.low)
    begin = axis.at(value.low_flop) if value.low_flop > 0 else 0.0
    known = axis.at(value.measured_flop or value.low_flop)  # the end of the solid bar without an upper bound
    end = known if value.high_flop is None else axis.at(value.high_flop)
    words = words_of(interval(value), NO_MEASURED)
    return RuleChart(
        bar_from=begin,
        bar_width=width_of(begin, end),
        from_zero=value.low_flop == 0,
        open_from=None if value.high_flop is not None else end,
        measured=None if not value.measured_flop else axis.at(value.measured_flop),
        threshold_from=wall,
        threshold_to=axis.at(limit.low if limit.high is None else limit.high),
        # With an interval, there is no room for the word on a phone.
        threshold_label=f"threshold {threshold}" if limit.low == limit.high else threshold,
        threshold_anchor=anchor_at(wall),
        title=f"{title}: interval against threshold",
        description=f"On a scale of powers of ten: {words}. Threshold {threshold} FLOP."
        + (f" Share of it: {share}." if share else ""),
    )
