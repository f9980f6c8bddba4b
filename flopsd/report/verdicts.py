"""The findings of a ledger in words: what each rule comes to, and the answer to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from flopsd.core.model import PPM, Figures
from flopsd.report.charts import Axis, RuleChart, anchor_at, axis_of, width_of
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.ledger_text import counted
from flopsd.report.model import Answer, ReportRule, ReportState
from flopsd.report.model_documentation_texts import READING
from flopsd.report.numbers import (
    DOWN,
    NO_MEASURED,
    NO_UPPER_BOUND,
    NOTHING_MEASURED,
    TIMES_WORD,
    UP,
    Amount,
    Interval,
    fraction,
    interval,
    percent,
    times,
)

QUANTITIES = {
    "updates": "compute that directly contributes to parameter updates",
    "cumulative": "all compute that counts towards the model",
    "base+updates": "compute of the base model and of this training",
    "base+cumulative": "compute of the base model and all that counts of this training",
}
_WORDS = {
    ReportState.ABOVE: "Above",
    ReportState.INDETERMINATE: "Cannot be told",
    ReportState.UNDECIDED: "Not decided",
    ReportState.BELOW: "Below",
    ReportState.NOT_APPLICABLE: "Does not apply",
}
_ORDER = (
    ReportState.ABOVE,
    ReportState.INDETERMINATE,
    ReportState.UNDECIDED,
    ReportState.BELOW,
    ReportState.NOT_APPLICABLE,
)
_REASONS = 3
_TOLD = 2  # rules that the answer tells one by one
_COMPARED = ("below", "above", "indeterminate")


def rules_of(predicate: LedgerObject) -> tuple[tuple[ReportRule, ...], tuple[ReportRule, ...], Axis | None]:
    """The rules that apply or may, the gravest first; those that do not; and the scale of the drawings."""
    findings = list(predicate.objects("findings"))
    axis = axis_of(
        number for finding in findings if finding.flag("applies") is not False for number in _numbers(finding)
    )
    rules = sorted((_rule(finding, axis) for finding in findings), key=lambda rule: _ORDER.index(rule.state))
    return (
        tuple(rule for rule in rules if rule.state is not ReportState.NOT_APPLICABLE),
        tuple(rule for rule in rules if rule.state is ReportState.NOT_APPLICABLE),
        axis,
    )


def answer_of(rules: Sequence[ReportRule], others: Sequence[ReportRule], executed: Interval | None) -> Answer:
    """The headline: the gravest state of any rule decides it."""
    if not rules and not others:
        figures = () if executed is None else (f"Executed compute: {_words_of(executed, NOTHING_MEASURED)}.",)
        says = "This ledger holds no verdict: its figures were not held against any threshold."
        return Answer(ReportState.NONE, "No policy was applied", (says, *figures))
    if not rules:
        return Answer(ReportState.NOT_APPLICABLE, "No rule applies", _reasons(others))
    state = rules[0].state
    gravest = [rule for rule in rules if rule.state is state]
    number = _number(len(gravest), len(rules))
    headline = {
        ReportState.ABOVE: f"Above {number}",
        ReportState.INDETERMINATE: f"Cannot be told for {number}",
        ReportState.UNDECIDED: f"Not decided for {number}: not enough was declared",
        ReportState.BELOW: f"Below {number}",
    }[state]
    lead = _reasons(gravest) if state is ReportState.UNDECIDED else tuple(_lead(rule) for rule in gravest[:_TOLD])
    return Answer(state, headline, lead + _rest(rules, gravest))


def _lead(rule: ReportRule) -> str:
    share = f" Share of the threshold: {rule.share}." if rule.share else ""
    return f"{rule.title}: {rule.says}{share}"


def _reasons(rules: Sequence[ReportRule]) -> tuple[str, ...]:
    """Why, each reason once."""
    parts = (part for rule in rules for part in rule.why.split("; ") if part)
    return tuple(dict.fromkeys(map(_sentence, parts)))[:_REASONS]


def _rest(rules: Sequence[ReportRule], gravest: Sequence[ReportRule]) -> tuple[str, ...]:
    """What the other rules come to, so that the headline hides none."""
    told = []
    hidden = len(gravest) - _TOLD
    if hidden > 0 and gravest[0].state is not ReportState.UNDECIDED:
        told.append(f"The same holds for {counted(hidden, 'further rule')}.")
    for state in _ORDER:
        count = sum(1 for rule in rules if rule.state is state and rule not in gravest)
        if count:
            told.append(f"{counted(count, 'further rule')}: {_WORDS[state].lower()}.")
    return tuple(told)


def _number(some: int, rules: int) -> str:
    if some < rules:
        return f"{some} of {rules} thresholds"
    return {1: "the threshold that applies", 2: "both thresholds"}.get(rules, f"all {rules} thresholds")


def _sentence(words: str) -> str:
    """With a capital letter, and a full stop where there is no end."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _rule(finding: LedgerObject, axis: Axis | None) -> ReportRule:
    applies, compared = finding.flag("applies"), finding.maybe_text("state")
    if compared is not None and compared not in _COMPARED:
        finding.wrong("state", f"one of {', '.join(_COMPARED)}")
    value = None if "value" not in finding else finding.figures("value")
    low, high = _threshold(finding)
    state = _state(applies, compared)
    title = finding.maybe_text("title") or finding.text("rule")
    title = title[:1].upper() + title[1:]
    quantities = (finding.maybe_text("quantity") or "").split(" or ")
    shown = None if low is None or high is None else _shown(low, high)
    share, reading = _share(finding), finding.maybe_text("status") == "interpretation"
    return ReportRule(
        title=title,
        name=f"{finding.text('policy')}/{finding.text('rule')}",
        state=state,
        word=_WORDS[state],
        says=_says(state, value, low, high) + (f" {READING}" if reading and state is ReportState.ABOVE else ""),
        why=finding.maybe_text("reason") or "",
        quantity=", or ".join(QUANTITIES.get(quantity, quantity) for quantity in quantities),
        value=None if value is None else interval(value),
        threshold=shown,
        share=share,
        citation=finding.maybe_text("citation") or "",
        consequence=finding.maybe_text("consequence") or "",
        since=finding.maybe_text("since") or "",
        assumes=finding.maybe_text("assumes") or "",
        reading=reading,
        chart=None
        if axis is None or value is None or low is None or high is None or state is ReportState.NOT_APPLICABLE
        else chart_of(axis, value, low, high, title, share),
    )


def _state(applies: bool | None, compared: str | None) -> ReportState:
    if applies is False:
        return ReportState.NOT_APPLICABLE
    if compared is None:
        return ReportState.UNDECIDED
    if applies is None and compared != "below":  # what lies below is below whether the rule applies or not
        return ReportState.UNDECIDED
    return ReportState(compared)


def _says(state: ReportState, value: Figures | None, low: Fraction | None, high: Fraction | None) -> str:
    """What came of it. The figures of a rule may have no measured one where something was, since the compute of a
    base model may be in them."""
    if state is ReportState.NOT_APPLICABLE:
        return "The rule does not apply."
    if state is ReportState.UNDECIDED:
        return f"It is not known whether the rule applies. {_stand(value, low, high)}"
    if state is ReportState.ABOVE:
        return "Even the lower end of the interval is above the threshold."
    if state is ReportState.BELOW:
        return "Even the upper end of the interval does not exceed the threshold."
    if low is None or high is None:
        return "The threshold is not known."
    if value is not None and value.high_flop is None:
        return "No upper bound is known, and the lower end does not exceed the threshold."
    return "The threshold lies between the lower and the upper end."


def _stand(value: Figures | None, low: Fraction | None, high: Fraction | None) -> str:
    """How figures and threshold stand to each other, whatever it means."""
    if value is None or low is None or high is None:
        return "Its threshold is not known either."
    if value.low_flop > high:
        return "The figures exceed its threshold."
    if value.high_flop is None:
        return "The figures have no upper bound."
    if value.high_flop <= low:
        return "The figures do not exceed its threshold."
    return "Its threshold lies between their lower and upper end."


def _threshold(finding: LedgerObject) -> tuple[Fraction | None, Fraction | None]:
    told = finding.maybe_object("threshold")
    return (None, None) if told is None else (told.fraction("low"), told.fraction("high"))


def _shown(low: Fraction, high: Fraction) -> Amount:
    one, other = fraction(low), fraction(high)
    return one if low == high else Amount(f"{one.text} to {other.text}", f"{one.exact} to {other.exact}")


def _share(finding: LedgerObject) -> str:
    """In per cent, or in times where it is more than twofold; what is not known is said."""
    told = finding.maybe_object("sharePpm")
    if told is None:
        return ""
    low, measured, high = (told.maybe_count(name) for name in ("low", "measured", "high"))
    if low is None and high is None:
        return ""
    show = times if max(low or 0, measured or 0) >= 2 * PPM else percent
    if high is None:
        ends = f"at least {show(low or 0, DOWN)}; {NO_UPPER_BOUND}" if low else NO_UPPER_BOUND
    else:
        ends = f"{show(low, DOWN).removesuffix(TIMES_WORD)} to {show(high, UP)}" if low else f"at most {show(high, UP)}"
    return ends if not measured else f"{show(measured)} ({ends})"


def _words_of(value: Interval, absent: str) -> str:
    middle = absent if value.measured is None else f"measured {value.measured.text} FLOP"
    return f"{middle}, {value.ends}"


def _numbers(finding: LedgerObject) -> list[int | Fraction]:
    value = None if "value" not in finding else finding.figures("value")
    known = [] if value is None else [value.low_flop, value.measured_flop, value.high_flop]
    return [number for number in (*known, *_threshold(finding)) if number is not None]


def chart_of(axis: Axis, value: Figures, low: Fraction, high: Fraction, title: str, share: str) -> RuleChart:
    """The drawing of one rule, and the same in words for whoever cannot see it."""
    shown, wall = interval(value), axis.at(low)
    begin = axis.at(value.low_flop) if value.low_flop > 0 else 0.0
    known = axis.at(value.measured_flop or value.low_flop)  # up to where the bar is solid if it has no upper end
    end = known if value.high_flop is None else axis.at(value.high_flop)
    words = _words_of(shown, NO_MEASURED)
    return RuleChart(
        bar_from=begin,
        bar_width=width_of(begin, end),
        from_zero=value.low_flop == 0,
        open_from=None if value.high_flop is not None else end,
        measured=None if not value.measured_flop else axis.at(value.measured_flop),
        threshold_from=wall,
        threshold_to=axis.at(high),
        threshold_label=f"threshold {_shown(low, high).text}",
        threshold_anchor=anchor_at(wall),
        title=f"{title}: interval against threshold",
        description=f"On a scale of powers of ten: {words}. Threshold {_shown(low, high).text} FLOP."
        + (f" Share of it: {share}." if share else ""),
    )
