"""When a threshold would be crossed if work continued at a given rate. Pure; times are seconds after the figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.figures import Figures
from flopsd.core.policy.finding import QUANTITY_OR, Finding, Limit
from flopsd.core.policy.guidelines import Guidelines
from flopsd.core.values import NS_PER_S, ceil_div, most, text_or_none


@dataclass(frozen=True, slots=True)
class Rate:
    """The range of FLOP/s at which the work continues. `high_flop_per_s` is None where no ceiling is known."""

    low_flop_per_s: int
    high_flop_per_s: int | None


@dataclass(frozen=True, slots=True)
class Crossing:
    """The threshold is certainly not crossed before `earliest_s`, and certainly crossed from `latest_s` on; 0 is now.
    `earliest_s` is None if it is never crossed at this rate, `latest_s` if a crossing is not certain."""

    earliest_s: int | None
    latest_s: int | None


def crossing(limit: Limit | None, figures: Figures, rate: Rate) -> Crossing | None:
    """Earliest and latest crossing of `limit`; None where the threshold itself is not known. An unknown upper bound may
    already have crossed, so the earliest crossing is then now."""
    if limit is None:
        return None
    earliest: int | None = 0
    if figures.high_flop is not None and limit.is_below(figures.high_flop):
        high_rate = rate.high_flop_per_s
        earliest = 0 if high_rate is None else _until(limit.low, figures.high_flop, high_rate, limit.at_least)
    if limit.is_above(figures.low_flop):
        latest: int | None = 0
    elif limit.high is None:
        latest = None
    else:
        latest = _until(limit.high, figures.low_flop, rate.low_flop_per_s, limit.at_least)
    return Crossing(earliest, latest)


def _until(limit: Fraction, flop: int, flop_per_s: int, at_least: bool) -> int | None:
    """The number of whole seconds after which `flop`, now below `limit`, is above it; None for never."""
    if flop_per_s <= 0:
        return None
    lacking = limit - flop
    return ceil(lacking / flop_per_s) if at_least else lacking // flop_per_s + 1


Rates = tuple[Rate, Rate]


def outlook(
    findings: Iterable[Finding], rates: Rates | None, with_integers: Rates | None = None
) -> list[dict[str, Any]]:
    """Each rule as in the ledger, with its crossing at `rates`. `with_integers` are the rates of FLOP and integer
    operations together, for a policy that counts both. Where the base model decides, no rate gives a time."""
    found = tuple(findings)
    by_rule = {(finding.policy, finding.rule.id): finding for finding in found}
    rows = []
    for finding in found:
        sources = [by_rule[finding.policy, other] for other in finding.rule.derived] or [finding]
        crossed = _crossing(finding, sources, with_integers if finding.counts_integers else rates)
        rows.append({**finding.for_ledger(), "crossing": crossed})
    return rows


def mean_rates(before: Guidelines, now: Guidelines, passed_ns: int) -> Rates | None:
    """FLOP/s of updates and of everything cumulative during `passed_ns`; None if no time passed."""
    if passed_ns <= 0:
        return None
    return _rate(before.updates, now.updates, passed_ns), _rate(before.cumulative, now.cumulative, passed_ns)


def _crossing(finding: Finding, sources: Sequence[Finding], rates: Rates | None) -> dict[str, str | None] | None:
    """`sources`: the finding itself, or those of the rules from which it is derived; any of these may be the one to
    apply."""
    if finding.only_if is not None or finding.limit is None or rates is None:
        return None
    each = [crossing(source.limit, source.value, _rate_of(source, rates)) for source in sources]
    known = [when for when in each if when is not None]
    earliest = min((when.earliest_s for when in known if when.earliest_s is not None), default=None)
    latest = most([0, *(when.latest_s for when in known)])
    return {"earliestSeconds": text_or_none(earliest), "latestSeconds": text_or_none(latest)}


def _rate_of(finding: Finding, rates: Rates) -> Rate:
    """The rate of what the rule counts; where that is not known, the range over everything that it may count."""
    mine = [rates["cumulative" in quantity] for quantity in finding.quantity.split(QUANTITY_OR)]
    return Rate(min(rate.low_flop_per_s for rate in mine), most(rate.high_flop_per_s for rate in mine))


def _rate(before: Figures, now: Figures, passed_ns: int) -> Rate:
    low = max(0, now.low_flop - before.low_flop) * NS_PER_S // passed_ns
    if now.high_flop is None or before.high_flop is None:
        return Rate(low, None)
    return Rate(low, ceil_div(max(0, now.high_flop - before.high_flop) * NS_PER_S, passed_ns))
