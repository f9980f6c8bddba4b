"""Where a run stands against the thresholds, and when it would cross them at the rate it has had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flopsd.core.forecast import Rate, crossing
from flopsd.core.guidelines import Guidelines
from flopsd.core.ledger import meaning_of
from flopsd.core.meaning import Meaning
from flopsd.core.model import Figures
from flopsd.core.peaks import PeakTable
from flopsd.core.policy import Case, Finding, Policy, findings
from flopsd.core.records import History

NS_PER_S = 1_000_000_000


def thresholds(history: History, table: PeakTable, policies: Sequence[Policy]) -> tuple[Meaning, list[dict[str, Any]]]:
    """The run's meaning, and each rule that applies or may: state, share, crossing at this incarnation's mean rate."""
    found = meaning_of(history, table)
    last = history.incarnations[-1]
    roster = last.begin["context"]["node"]["roster"]
    case = Case(
        found.guidelines.updates, found.guidelines.cumulative, found.told.method, found.told.base, len(roster) <= 1
    )
    rate = _mean_rate(history, table, found.guidelines)
    return found, [
        _facts(finding, rate)
        for policy in policies
        for finding in findings(policy, case)
        if finding.state is not None and finding.applies is not False
    ]


def _facts(finding: Finding, rate: tuple[Rate, Rate] | None) -> dict[str, Any]:
    low, measured, high = finding.share_ppm
    mine = None if rate is None else rate["cumulative" in finding.quantity]
    when = None if mine is None else crossing(finding.limit, finding.value, mine)
    return {
        "policy": finding.policy,
        "rule": finding.rule.id,
        "title": finding.rule.title,
        "applies": finding.applies,
        "state": None if finding.state is None else finding.state.value,
        "why": finding.why,
        "sharePpm": {"low": _text(low), "measured": _text(measured), "high": _text(high)},
        "crossing": None
        if when is None
        else {"earliestSeconds": _text(when.earliest_s), "latestSeconds": _text(when.latest_s)},
    }


def _mean_rate(history: History, table: PeakTable, now: Guidelines) -> tuple[Rate, Rate] | None:
    """FLOP/s of updates and of all that is cumulative, since the last incarnation began; None where no time passed."""
    last = history.incarnations[-1]
    passed_ns = last.last_ns - int(last.begin["ns"])
    if passed_ns <= 0:
        return None
    before = Guidelines(Figures(0, None, 0), Figures(0, None, 0))
    if len(history.incarnations) > 1:
        earlier = History(history.incarnations[:-1], sessions=history.sessions)
        before = meaning_of(earlier, table).guidelines
    return (
        _rate(before.updates, now.updates, passed_ns),
        _rate(before.cumulative, now.cumulative, passed_ns),
    )


def _rate(before: Figures, now: Figures, passed_ns: int) -> Rate:
    low = max(0, now.low_flop - before.low_flop) * NS_PER_S // passed_ns
    if now.high_flop is None or before.high_flop is None:
        return Rate(low, None)
    return Rate(low, -(-max(0, now.high_flop - before.high_flop) * NS_PER_S // passed_ns))


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
