"""An estimate for a terminal: one table, with a column for each way to train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from flopsd.core.architecture import Bounds
from flopsd.core.policy.finding import Finding, Verdict
from flopsd.core.policy.policy_file import INTERPRETATION, SECONDARY
from flopsd.core.rounding import (
    Towards,
    format_duration,
    format_flop,
    format_percent,
    format_rate,
    format_share,
    format_usd,
    grouped,
)
from flopsd.report.answer import answer_to
from flopsd.report.estimate.estimate import Estimate, Option, Plan
from flopsd.report.estimate.planned_hardware import Hardware, Need
from flopsd.report.numbers import percent
from flopsd.report.rule_words import from_when, source_note
from flopsd.report.terminal import one_line, shown, tables, wrapped
from flopsd.settings.words import say, say_all

_MARKS = {INTERPRETATION: " *", SECONDARY: " +"}
_HOUR_S = 3600


def estimate_text(found: Estimate) -> str:
    """The table, the assumptions, and the limits of the estimate."""
    plan = found.plan
    notes = dict.fromkeys(note for option in found.options for note in option.flop.assumptions)
    lines = [*_subject(found), "", *_answers(found.options), "", *_table(plan, found.options), "", "assumed:"]
    for note in (*found.assumed, *(say("architecture.assumptions", note) for note in notes)):
        lines += wrapped(one_line(note), "    ", "  ")
    for policy in plan.policies:
        margin = f"compared with a margin of {percent(policy.margin_ppm, Towards.UP)} either way for estimates"
        lines += wrapped(f"{one_line(policy.id)}: {margin}. {one_line(policy.notice)}")
    return shown(lines)


def _subject(found: Estimate) -> Iterator[str]:
    plan, sizes = found.plan, found.parameters
    active = f", {grouped(sizes.active)} of them active for a token" if sizes.active != sizes.total else ""
    family = plan.model.family if plan.model.bare is None else "size alone"
    yield from wrapped(f"{one_line(family)}: {grouped(sizes.total)} parameters{active}")
    for missing in found.not_known:
        yield from wrapped(f"NOT KNOWN: {missing}")
    yield from wrapped(_work(plan.work))
    for hardware in plan.hardware:
        yield from _hardware(hardware)
    if plan.hardware:
        low, high = format_percent(plan.mfu.low, Towards.DOWN), format_percent(plan.mfu.high, Towards.UP)
        yield from wrapped(f"MFU {low} to {high}, {one_line(plan.mfu.source)}")


def _hardware(hardware: Hardware) -> Iterator[str]:
    peak = f"{format_rate(hardware.peak_flop_per_s)} dense {hardware.number_format} in total"
    devices = f"{hardware.devices} x {hardware.part}"
    yield from wrapped(f"{_name(hardware)}{'' if _name(hardware) == devices else f', {devices}'}: {peak}")
    for doubt in hardware.doubts:
        yield from wrapped(f"DOUBT: {one_line(doubt)}")


def _name(hardware: Hardware) -> str:
    return f"{hardware.instances} x {hardware.name}"


def _answers(options: Sequence[Option]) -> Iterator[str]:
    """The answer for each way to train; equal answers once."""
    by_words: dict[tuple[str, ...], list[str]] = {}
    for option in options:
        answer = answer_to([finding.for_ledger() for finding in option.findings])
        by_words.setdefault((answer.headline, *answer.only_if), []).append(option.method.value)
    for (headline, *rest), methods in by_words.items():
        yield from wrapped(f"{', '.join(methods)}: {headline}" if len(by_words) > 1 else headline)
        for words in rest:
            yield from wrapped(words, "  ")


def _work(work: Mapping[str, int]) -> str:
    text = f"{grouped(work['tokens'])} {'token' if work['tokens'] == 1 else 'tokens'}"
    if "sequences" in work:
        text += f" in {grouped(work['sequences'])} {'sequence' if work['sequences'] == 1 else 'sequences'}"
    if "target_tokens" in work:
        text += f", {grouped(work['target_tokens'])} target tokens"
    return text


def _table(plan: Plan, options: Sequence[Option]) -> list[str]:
    rows = [
        ["", *(option.method.value for option in options)],
        ["trainable parameters", *(_trainable(option.trainable) for option in options)],
        *_flop_rows("required", [option.flop.required for option in options]),
        *_flop_rows("executed", [option.flop.executed for option in options]),
    ]
    for at, hardware in enumerate(plan.hardware):
        rows += _need_rows(hardware, [option.needs[at] for option in options])
    by_rule: dict[tuple[str, str], list[Finding]] = {}
    for option in options:
        for finding in option.findings:
            by_rule.setdefault((finding.policy, finding.rule.id), []).append(finding)
    statuses = set()
    for (policy, rule), found in by_rule.items():
        if any(one.applies is not False for one in found):
            status = found[0].rule.status
            statuses.add(status)
            if [one_line(policy)] not in rows:
                rows.append([one_line(policy)])
            rows.append([f"  {one_line(rule)}{_MARKS.get(status, '')}", *map(_verdict, found)])
    lines = tables(_equal_columns_merged(rows))
    lines += [f"{mark.strip()} {source_note(status)}" for status, mark in _MARKS.items() if status in statuses]
    every = [one for found in by_rule.values() for one in found]
    return [*lines, *_reasons(every), *_conditions(every)]


def _equal_columns_merged(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows with equal columns merged: ways to train with the same figures, as LoRA and QLoRA, share a column."""
    heads, *whole = [row for row in rows if len(row) > 1]
    by_cells: dict[tuple[str, ...], list[int]] = {}
    for at in range(1, len(heads)):
        by_cells.setdefault(tuple(row[at] for row in whole), []).append(at)
    groups = list(by_cells.values())
    head = [heads[0], *(", ".join(heads[at] for at in group) for group in groups)]
    return [head, *([row[0], *(row[group[0]] for group in groups if len(row) > 1)] for row in rows[1:])]


def _need_rows(hardware: Hardware, needs: Sequence[Need]) -> list[list[str]]:
    rows = [[f"time on {_name(hardware)}", *(_time(need.hours) for need in needs)]]
    costs = [_cost(need.usd) for need in needs if need.usd is not None]
    return [*rows, ["  cost, at the assumed price", *costs]] if costs else rows


def _flop_rows(name: str, bounds: Sequence[Bounds]) -> list[list[str]]:
    return [
        [name, *(format_flop(each.computed) for each in bounds)],
        ["  at least", *(format_flop(each.low, Towards.DOWN) for each in bounds)],
        ["  at most", *(format_flop(each.high, Towards.UP) for each in bounds)],
    ]


def _reasons(findings: Sequence[Finding]) -> list[str]:
    """The reasons of indeterminate findings, with the policy's name if there are several policies."""
    several = len({one.policy for one in findings}) > 1
    reasons = dict.fromkeys(
        one_line(f"{f'{one.policy} ' if several else ''}{one.rule.id}: {say_all('findings.reasons', one.why)}")
        for one in findings
        if one.state is Verdict.INDETERMINATE and one.only_if is None
    )
    lines = ["", "indeterminate:"] if reasons else []
    for reason in reasons:
        lines += wrapped(reason, "    ", "  ")
    return lines


def _conditions(findings: Sequence[Finding]) -> list[str]:
    """The other conditions of rules that compute alone does not rule out, and the assumptions of rules above."""
    assumed = [
        (f"{one.policy} {one.rule.id}", words)
        for one in findings
        if one.state is Verdict.ABOVE
        for words in (f"assumes that {one.rule.assumes}" if one.rule.assumes else "", from_when(one.rule.since))
        if words
    ]
    others = [
        (one.policy, words)
        for one in findings
        if one.state in (Verdict.ABOVE, Verdict.INDETERMINATE)
        for words in one.rule.other_conditions
    ]
    lines = ["", "not decided here:"] if assumed or others else []
    for of, words in dict.fromkeys([*assumed, *others]):
        lines += wrapped(f"{one_line(of)}: {one_line(words)}", "    ", "  ")
    return lines


def _verdict(finding: Finding) -> str:
    if finding.state is None:
        return "not applicable"
    high, unsure = finding.value.high_flop, finding.state is Verdict.ABOVE and finding.applies is None
    state = f"{finding.state.value}{' if it applies' if unsure else ''}"
    if finding.state is Verdict.ABOVE and finding.limit is not None and finding.limit.high:
        return f"{state}, at least {format_share(finding.value.low_flop, finding.limit.high, Towards.DOWN)}"
    if high is None or finding.limit is None or finding.limit.low <= 0:
        return state
    return f"{state}, at most {format_share(high, finding.limit.low, Towards.UP)}"


def _trainable(bounds: Bounds | None) -> str:
    if bounds is None:
        return "unknown"
    ends = dict.fromkeys((grouped(bounds.low), grouped(bounds.high)))
    return " to ".join(ends)


def _time(hours: tuple[Fraction, Fraction]) -> str:
    low, high = (hours[0] * _HOUR_S, hours[1] * _HOUR_S)
    return f"{format_duration(low, Towards.DOWN)} to {format_duration(high, Towards.UP)}"


def _cost(usd: tuple[Fraction, Fraction]) -> str:
    return f"{format_usd(usd[0], Towards.DOWN).removesuffix(' USD')} to {format_usd(usd[1], Towards.UP)}"
