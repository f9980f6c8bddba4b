"""An estimate for a terminal: one table, a column for each way to train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from flopsd.core.architecture import Bounds
from flopsd.core.policy.finding import Finding, Verdict
from flopsd.core.rounding import (
    Towards,
    format_duration,
    format_flop,
    format_percent,
    format_rate,
    format_share,
    grouped,
)
from flopsd.report.answer import answer_to
from flopsd.report.estimate import Estimate, Option
from flopsd.report.numbers import percent
from flopsd.report.terminal import one_line, shown, table, wrapped

_READING = " *"
_HOUR_S = 3600


def estimate_text(found: Estimate) -> str:
    """The table, what was assumed, and what it is not."""
    plan = found.plan
    notes = dict.fromkeys(note for option in found.options for note in option.flop.assumptions)
    lines = [*_subject(found), "", *_answers(found.options), "", *_table(found.options), "", "assumed:"]
    for note in (*plan.assumed, *notes):
        lines += wrapped(one_line(note), "    ", "  ")
    for policy in plan.policies:
        margin = f"compared with a margin of {percent(policy.margin_ppm, Towards.UP)} either way for estimates"
        lines += wrapped(f"{one_line(policy.id)}: {margin}. {one_line(policy.notice)}")
    return shown(lines)


def _subject(found: Estimate) -> Iterator[str]:
    plan, sizes = found.plan, found.parameters
    active = f", {grouped(sizes.active)} of them active for a token" if sizes.active != sizes.total else ""
    yield from wrapped(f"{one_line(plan.model.family)}: {grouped(sizes.total)} parameters{active}")
    yield from wrapped(_work(plan.work))
    if plan.hardware is not None:
        hardware = plan.hardware
        peak = f"{format_rate(hardware.peak_flop_per_s)} dense {hardware.number_format} in total"
        yield from wrapped(f"{hardware.devices} x {hardware.part}: {peak}")
        for doubt in hardware.doubts:
            yield from wrapped(f"DOUBT: {one_line(doubt)}")
        low, high = format_percent(plan.mfu.low, Towards.DOWN), format_percent(plan.mfu.high, Towards.UP)
        yield from wrapped(f"MFU {low} to {high}, {one_line(plan.mfu.source)}")


def _answers(options: Sequence[Option]) -> Iterator[str]:
    """The answer for each way to train; once where it is the same."""
    by_words: dict[tuple[str, ...], list[str]] = {}
    for option in options:
        answer = answer_to([finding.for_ledger() for finding in option.findings])
        by_words.setdefault((answer.headline, *answer.only_if), []).append(option.method.value)
    for (headline, *rest), methods in by_words.items():
        yield from wrapped(f"{', '.join(methods)}: {headline}" if len(by_words) > 1 else headline)
        for words in rest:
            yield from wrapped(words, "  ")


def _work(work: Mapping[str, int]) -> str:
    text = f"{grouped(work['tokens'])} tokens"
    if "sequences" in work:
        text += f" in {grouped(work['sequences'])} {'sequence' if work['sequences'] == 1 else 'sequences'}"
    if "target_tokens" in work:
        text += f", {grouped(work['target_tokens'])} target tokens"
    return text


def _table(options: Sequence[Option]) -> list[str]:
    rows = [
        ["", *(option.method.value for option in options)],
        ["trainable parameters", *(_trainable(option.trainable) for option in options)],
        *_flop_rows("required", [option.flop.required for option in options]),
        *_flop_rows("executed", [option.flop.executed for option in options]),
    ]
    if all(option.hours is not None for option in options):
        rows.append(["time", *(_time(option.hours) for option in options)])
    by_rule: dict[str, list[Finding]] = {}
    for option in options:
        for finding in option.findings:
            by_rule.setdefault(f"{finding.policy} {finding.rule.id}", []).append(finding)
    readings = False
    for rule, findings in by_rule.items():
        if any(one.applies is not False for one in findings):
            reading = any(one.rule.status == "interpretation" for one in findings)
            readings |= reading
            rows.append([one_line(rule) + (_READING if reading else ""), *map(_verdict, findings)])
    lines = table(rows)
    if readings:
        lines.append(f"{_READING.strip()} as flopsd reads it: the text does not spell it out")
    return [*lines, *_reasons(one for findings in by_rule.values() for one in findings)]


def _flop_rows(name: str, bounds: Sequence[Bounds]) -> list[list[str]]:
    return [
        [name, *(format_flop(each.computed) for each in bounds)],
        ["  at least", *(format_flop(each.low, Towards.DOWN) for each in bounds)],
        ["  at most", *(format_flop(each.high, Towards.UP) for each in bounds)],
    ]


def _reasons(findings: Iterable[Finding]) -> list[str]:
    open_ones = [one for one in findings if one.state is Verdict.INDETERMINATE and one.only_if is None]
    reasons = dict.fromkeys(f"{one_line(one.rule.id)}: {one_line(one.why)}" for one in open_ones)
    lines = ["", "indeterminate:"] if reasons else []
    for reason in reasons:
        lines += wrapped(reason, "    ", "  ")
    return lines


def _verdict(finding: Finding) -> str:
    if finding.state is None:
        return "not applicable"
    high = finding.value.high_flop
    if high is None or finding.limit is None or finding.limit.low <= 0:
        return finding.state.value
    return f"{finding.state.value}, at most {format_share(high, finding.limit.low, Towards.UP)}"


def _trainable(bounds: Bounds | None) -> str:
    if bounds is None:
        return "unknown"
    ends = dict.fromkeys((grouped(bounds.low), grouped(bounds.high)))
    return " to ".join(ends)


def _time(hours: tuple[Fraction, Fraction] | None) -> str:
    if hours is None:
        return "unknown"
    low, high = (hours[0] * _HOUR_S, hours[1] * _HOUR_S)
    return f"{format_duration(low, Towards.DOWN)} to {format_duration(high, Towards.UP)}"
