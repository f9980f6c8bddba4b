"""Coverage as a ledger has it: how much device time was observed, and each gap with its reason and ceiling. Pure."""

from __future__ import annotations

from typing import Any

from flopsd.core.figures import gap_ceiling_flop
from flopsd.core.ledger.history import GapInterval, History
from flopsd.core.ledger.run_view import RatedTallies, RatedTally, RunView
from flopsd.core.model import ACCOUNTED_ELSEWHERE
from flopsd.core.values import seconds

MAX_LISTED_GAPS = 1000


def coverage_for_ledger(history: History, view: RunView) -> dict[str, Any]:
    """The longest gaps are listed, in the order of time; all are in the sums."""
    ppm = view.coverage_ppm
    longest = sorted(history.gaps, key=lambda gap: gap.begin_ns - gap.end_ns)[:MAX_LISTED_GAPS]
    listed = sorted(longest, key=lambda gap: (gap.incarnation, gap.begin_ns, gap.device))
    rated = {(one.start, one.uid): one for one in view.rated}
    begin_ns = [incarnation.begin["ns"] for incarnation in history.incarnations]
    return {
        **times_for_ledger(view),
        "coveragePpm": None if ppm is None else str(ppm),
        "gapSecondsByReason": {reason.value: seconds(ns) for reason, ns in sorted(view.gap_ns_by_reason.items())},
        "gaps": [_gap(gap, rated[gap.incarnation, gap.device], begin_ns[gap.incarnation - 1]) for gap in listed],
        "gapsNotListed": str(len(history.gaps) - len(listed)),
    }


def times_for_ledger(tallies: RatedTallies) -> dict[str, str]:
    """Of a device or a run: observed and gap time are together the span."""
    return {
        "observedSeconds": seconds(tallies.observed_ns),
        "gapSeconds": seconds(tallies.gap_ns),
        "recoveredSeconds": seconds(tallies.recovered_ns),
        "spanSeconds": seconds(tallies.span_ns),
    }


def _gap(gap: GapInterval, rated: RatedTally, begin_ns: int) -> dict[str, Any]:
    duration_ns = gap.end_ns - gap.begin_ns
    elsewhere = gap.reason in ACCOUNTED_ELSEWHERE
    ceiling = 0 if elsewhere else gap_ceiling_flop(duration_ns, rated.rating, rated.table)
    return {
        "device": gap.device,
        "incarnation": gap.incarnation,
        "reason": gap.reason.value,
        "beginSeconds": seconds(gap.begin_ns - begin_ns),
        "endSeconds": seconds(gap.end_ns - begin_ns),
        "seconds": seconds(duration_ns),
        "ceiling": None if ceiling is None else str(ceiling),
    }
