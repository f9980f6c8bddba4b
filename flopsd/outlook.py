"""Where a run stands against the thresholds, and when it would cross them at the rate it has had."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flopsd.core.forecast import Rate, crossing
from flopsd.core.guidelines import Guidelines
from flopsd.core.model import Figures
from flopsd.core.policy import Finding

NS_PER_S = 1_000_000_000
NOTHING_BEFORE = Guidelines(Figures(0, None, 0), Figures(0, None, 0))
Rates = tuple[Rate, Rate]


def outlook(findings: Iterable[Finding], rates: Rates | None) -> list[dict[str, Any]]:
    """Each rule that applies or may, as the ledger tells it, with its crossing at `rates`."""
    return [
        {**finding.for_ledger(), "crossing": _crossing(finding, rates)}
        for finding in findings
        if finding.state is not None and finding.applies is not False
    ]


def mean_rates(before: Guidelines, now: Guidelines, passed_ns: int) -> Rates | None:
    """FLOP/s of updates and of all that is cumulative, while `passed_ns` passed; None where no time did."""
    if passed_ns <= 0:
        return None
    return (
        _rate(before.updates, now.updates, passed_ns),
        _rate(before.cumulative, now.cumulative, passed_ns),
    )


def _crossing(finding: Finding, rates: Rates | None) -> dict[str, str | None] | None:
    when = None if rates is None else crossing(finding.limit, finding.value, _rate_of(finding, rates))
    if when is None:
        return None
    return {"earliestSeconds": _text(when.earliest_s), "latestSeconds": _text(when.latest_s)}


def _rate_of(finding: Finding, rates: Rates) -> Rate:
    """The rate of what the rule counts; of all that it may count, where which it is is not known."""
    mine = [rates["cumulative" in quantity] for quantity in finding.quantity.split(" or ")]
    highs = [rate.high_flop_per_s for rate in mine]
    return Rate(
        min(rate.low_flop_per_s for rate in mine),
        None if None in highs else max(high for high in highs if high is not None),
    )


def _rate(before: Figures, now: Figures, passed_ns: int) -> Rate:
    low = max(0, now.low_flop - before.low_flop) * NS_PER_S // passed_ns
    if now.high_flop is None or before.high_flop is None:
        return Rate(low, None)
    return Rate(low, -(-max(0, now.high_flop - before.high_flop) * NS_PER_S // passed_ns))


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
