"""The findings of a ledger in words: what each rule comes to, and the answer to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from flopsd.core.model import Figures
from flopsd.errors import LedgerError
from flopsd.report import counted
from flopsd.reporting.charts import Axis, RuleChart, anchor_at, axis_of, width_of
from flopsd.reporting.model import Answer, Rule, State
from flopsd.reporting.numbers import (
    DOWN,
    NO_UPPER_BOUND,
    NOTHING_MEASURED,
    UP,
    Amount,
    Interval,
    fraction,
    interval,
    percent,
)
from flopsd.reporting.reading import Told

QUANTITIES = {
    "updates": "compute that directly contributes to parameter updates",
    "cumulative": "all compute that counts towards the model",
    "base+updates": "compute of the base model and of this training",
    "base+cumulative": "compute of the base model and all that counts of this training",
}
_WORDS = {
    State.ABOVE: "Above",
    State.INDETERMINATE: "Cannot be told",
    State.UNDECIDED: "Not decided",
    State.BELOW: "Below",
    State.NOT_APPLICABLE: "Does not apply",
}
_ORDER = (State.ABOVE, State.INDETERMINATE, State.UNDECIDED, State.BELOW, State.NOT_APPLICABLE)
_COMPARED = ("below", "above", "indeterminate")


def rules_of(predicate: Told) -> tuple[tuple[Rule, ...], tuple[Rule, ...], Axis | None]:
    """The rules that apply or may, the gravest first; those that do not; and the scale of the drawings."""
    findings = list(predicate.objects("findings"))
    axis = axis_of(
        number for finding in findings if finding.flag("applies") is not False for number in _numbers(finding)
    )
    rules = sorted((_rule(finding, axis) for finding in findings), key=lambda rule: _ORDER.index(rule.state))
    return (
        tuple(rule for rule in rules if rule.state is not State.NOT_APPLICABLE),
        tuple(rule for rule in rules if rule.state is State.NOT_APPLICABLE),
        axis,
    )


def answer_of(rules: Sequence[Rule], others: Sequence[Rule], executed: Interval | None) -> Answer:
    """The headline: the gravest state of any rule decides it."""
    if not rules and not others:
        return Answer(
            State.NONE,
            "No policy was applied",
            (
                "This ledger holds no verdict: its figures were not held against any threshold.",
                *(() if executed is None else (f"Executed compute: {_words_of(executed)}.",)),
            ),
        )
    if not rules:
        return Answer(State.NOT_APPLICABLE, "No rule applies", tuple(rule.why for rule in others[:1] if rule.why))
    state = rules[0].state
    gravest = [rule for rule in rules if rule.state is state]
    headline = {
        State.ABOVE: f"Above {_number(gravest, rules)}",
        State.INDETERMINATE: f"Cannot be told for {_number(gravest, rules)}",
        State.UNDECIDED: f"Not decided for {_number(gravest, rules)}",
        State.BELOW: f"Below {_all(rules)}",
    }[state]
    return Answer(state, headline, tuple(_lead(rule) for rule in gravest[:2]) + _rest(rules, gravest))


def _lead(rule: Rule) -> str:
    share = f" That is {rule.share} of the threshold." if rule.share else ""
    return f"{rule.title}: {rule.says}{share}"


def _rest(rules: Sequence[Rule], gravest: Sequence[Rule]) -> tuple[str, ...]:
    """What the other rules come to, so that the headline hides none."""
    told = []
    for state in _ORDER:
        count = sum(1 for rule in rules if rule.state is state and rule not in gravest)
        if count:
            told.append(f"{counted(count, 'further rule')}: {_WORDS[state].lower()}.")
    hidden = len(gravest) - 2
    return ((f"The same holds for {counted(hidden, 'further rule')}.",) if hidden > 0 else ()) + tuple(told)


def _number(some: Sequence[Rule], rules: Sequence[Rule]) -> str:
    if len(rules) == 1:
        return "the threshold that applies"
    return f"{len(some)} of {len(rules)} thresholds"


def _all(rules: Sequence[Rule]) -> str:
    return "the one threshold that applies" if len(rules) == 1 else f"all {len(rules)} thresholds that apply"


def _rule(finding: Told, axis: Axis | None) -> Rule:
    applies, compared = finding.flag("applies"), finding.maybe_text("state")
    if compared is not None and compared not in _COMPARED:
        raise LedgerError(f"{finding.path}.state is {compared!r}, not one of {', '.join(_COMPARED)}")
    value = None if "value" not in finding else finding.figures("value")
    low, high = _threshold(finding)
    state = _state(applies, compared)
    quantity = finding.maybe_text("quantity") or ""
    shown = None if low is None or high is None else _shown(low, high)
    share = _share(finding)
    return Rule(
        title=finding.maybe_text("title") or finding.text("rule"),
        name=f"{finding.text('policy')}/{finding.text('rule')}",
        state=state,
        word=_WORDS[state],
        says=_says(state, compared, value, high),
        why=finding.maybe_text("why") or "",
        quantity=QUANTITIES.get(quantity, quantity),
        value=None if value is None else interval(value),
        threshold=shown,
        share=share,
        citation=finding.maybe_text("citation") or "",
        consequence=finding.maybe_text("consequence") or "",
        since=finding.maybe_text("since") or "",
        chart=None
        if axis is None or value is None or low is None or high is None or state is State.NOT_APPLICABLE
        else chart_of(axis, value, low, high, finding.maybe_text("title") or finding.text("rule"), share),
    )


def _state(applies: bool | None, compared: str | None) -> State:
    if applies is False:
        return State.NOT_APPLICABLE
    if compared is None:
        return State.UNDECIDED
    if applies is None and compared != "below":  # what lies below is below whether the rule applies or not
        return State.UNDECIDED
    return State(compared)


def _says(state: State, compared: str | None, value: Figures | None, high: Fraction | None) -> str:
    if state is State.UNDECIDED:
        told = {
            "above": "it would be above, if the rule applies",
            "indeterminate": "it could not be told, if the rule applies",
        }.get(compared or "", "there is nothing to compare")
        return f"whether the rule applies was not declared; {told}."
    if state is State.NOT_APPLICABLE:
        return "the rule does not apply."
    if state is State.ABOVE:
        return "even the lower end of the interval is above the threshold."
    if state is State.BELOW:
        return "even the upper end of the interval is below the threshold."
    if value is not None and value.high_flop is None:
        return f"{NO_UPPER_BOUND}, and the lower end is not above the threshold."
    if high is not None and value is not None and value.measured_flop is None:
        return f"{NOTHING_MEASURED}, and only the upper end exceeds the threshold."
    return "the threshold lies within the interval."


def _threshold(finding: Told) -> tuple[Fraction | None, Fraction | None]:
    told = finding.maybe_object("threshold")
    return (None, None) if told is None else (told.fraction("low"), told.fraction("high"))


def _shown(low: Fraction, high: Fraction) -> Amount:
    one, other = fraction(low), fraction(high)
    return one if low == high else Amount(f"{one.text} to {other.text}", f"{one.exact} to {other.exact}")


def _share(finding: Told) -> str:
    """`19.5 % (8.5 % to 41 %)`; what is not known is said."""
    told = finding.maybe_object("sharePpm")
    if told is None:
        return ""
    low, measured, high = (told.maybe_count(name) for name in ("low", "measured", "high"))
    if low is None and high is None:
        return ""
    upper = NO_UPPER_BOUND if high is None else percent(high, UP)
    ends = f"at most {upper}" if not low and high is not None else f"{percent(low or 0, DOWN)} to {upper}"
    if high is None:
        ends = f"at least {percent(low or 0, DOWN)}; {upper}"
    return ends if not measured else f"{percent(measured)} ({ends})"


def _words_of(value: Interval) -> str:
    middle = NOTHING_MEASURED if value.measured is None else f"measured {value.measured.text} FLOP"
    return f"{middle}, {value.ends}"


def _numbers(finding: Told) -> list[int | Fraction]:
    value = None if "value" not in finding else finding.figures("value")
    known = [] if value is None else [value.low_flop, value.measured_flop, value.high_flop]
    return [number for number in (*known, *_threshold(finding)) if number is not None]


def chart_of(axis: Axis, value: Figures, low: Fraction, high: Fraction, title: str, share: str) -> RuleChart:
    """The drawing of one rule, and the same in words for whoever cannot see it."""
    begin = axis.at(value.low_flop)
    end = 100.0 if value.high_flop is None else axis.at(value.high_flop)
    shown, wall = interval(value), axis.at(low)
    words = _words_of(shown)
    return RuleChart(
        bar_from=begin if value.low_flop > 0 else 0.0,
        bar_width=width_of(begin if value.low_flop > 0 else 0.0, end),
        from_zero=value.low_flop == 0,
        unbounded=value.high_flop is None,
        measured=None if not value.measured_flop else axis.at(value.measured_flop),
        threshold_from=wall,
        threshold_to=axis.at(high),
        threshold_label=f"threshold {_shown(low, high).text}",
        threshold_anchor=anchor_at(wall),
        title=f"{title}: interval against threshold",
        description=f"On a scale of powers of ten: {words}. Threshold {_shown(low, high).text} FLOP."
        + (f" Share of it: {share}." if share else ""),
    )
