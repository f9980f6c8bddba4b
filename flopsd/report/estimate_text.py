"""An estimate for a terminal: one table, a column for each way to train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from flopsd.core.architecture import Bounds
from flopsd.core.flop import format_flop
from flopsd.core.policy.evaluate import Finding
from flopsd.core.rounding import Towards, divided, plain
from flopsd.report.estimate import Estimate, Option
from flopsd.report.ledger_text import at_least, at_most, counted, one_line, share_text

_READING = " *"


def estimate_text(found: Estimate) -> str:
    """The table, what was assumed, and what it is not."""
    plan, sizes = found.plan, found.parameters
    mixture = f", {sizes.active:,} of them for a token" if sizes.active != sizes.total else ""
    lines = [f"{one_line(plan.model.family)}: {sizes.total:,} parameters{mixture}", _work(plan.work)]
    if plan.hardware is not None:
        hardware = plan.hardware
        peak = format_flop(hardware.peak_flop_per_s, "FLOP/s")
        lines.append(f"{hardware.devices} x {hardware.part}: {peak} dense {hardware.number_format} in all")
        lines += [f"DOUBT: {one_line(doubt)}" for doubt in hardware.doubts]
        low, high = _percent(plan.mfu.low, Towards.DOWN), _percent(plan.mfu.high, Towards.UP)
        lines.append(f"MFU {low} to {high}, {one_line(plan.mfu.source)}")
    lines += ["", *_table(found.options)]
    notes = dict.fromkeys(note for option in found.options for note in option.flop.assumptions)
    lines += ["", "assumed:", *(f"  {one_line(note)}" for note in (*plan.assumed, *notes))]
    for policy in plan.policies:
        margin = share_text(policy.margin_ppm, Towards.UP)
        off = f"an estimate may be off by {margin} both ways, and is held against it so"
        lines.append(f"{one_line(policy.id)}: {off}. {one_line(policy.notice)}")
    return "\n".join(lines) + "\n"


def _work(work: Mapping[str, int]) -> str:
    words = f"{work['tokens']:,} tokens"
    if "sequences" in work:
        words += f" in {counted(work['sequences'], 'sequence')}"
    if "target_tokens" in work:
        words += f", {work['target_tokens']:,} target tokens"
    return words


def _table(options: Sequence[Option]) -> list[str]:
    rows: list[list[str]] = [["", *(option.method.value for option in options)]]
    rows.append(["trainable parameters", *(_trainable(option.trainable) for option in options)])
    for name in ("required", "executed"):
        bounds = [option.flop.required if name == "required" else option.flop.executed for option in options]
        rows.append([f"{name} FLOP", *(format_flop(each.computed) for each in bounds)])
        rows.append(["  at least", *(at_least(each.low) for each in bounds)])
        rows.append(["  at most", *(at_most(each.high) for each in bounds)])
    if all(option.hours is not None for option in options):
        rows.append(["hours", *(_hours(option.hours) for option in options)])
    told: dict[str, list[Finding]] = {}
    for option in options:
        for finding in option.findings:
            told.setdefault(f"{finding.policy} {finding.rule.id}", []).append(finding)
    for title, found in told.items():
        if any(one.applies is not False for one in found):
            mark = _READING if any(one.rule.status == "interpretation" for one in found) else ""
            rows.append([one_line(title) + mark, *(_verdict(one) for one in found)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons = dict.fromkeys(
        f"  {one_line(one.rule.id)}: {one_line(one.why)}"
        for found in told.values()
        for one in found
        if one.state is not None and one.state.value == "indeterminate"
    )
    if any(row[0].endswith(_READING) for row in rows):
        lines.append(f"{_READING.strip()} as flopsd reads it: the text does not spell it out")
    return [*lines, *(["", "indeterminate:", *reasons] if reasons else [])]


def _verdict(finding: Finding) -> str:
    if finding.state is None:
        return "does not apply"
    _, _, high = finding.share_ppm
    share = "" if high is None else f", at most {share_text(high, Towards.UP)}"
    return f"{finding.state.value}{share}"


def _trainable(bounds: Bounds | None) -> str:
    if bounds is None:
        return "unknown"
    return f"{bounds.low:,}" if bounds.low == bounds.high else f"{bounds.low:,} to {bounds.high:,}"


def _hours(hours: tuple[Fraction, Fraction] | None) -> str:
    return "unknown" if hours is None else f"{plain(hours[0], 3, Towards.DOWN)} to {plain(hours[1], 3, Towards.UP)}"


def _percent(share: Fraction, towards: Towards) -> str:
    tenths = divided(1000 * share.numerator, share.denominator, towards)
    return f"{tenths // 10}%" if tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10}%"
