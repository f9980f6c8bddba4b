"""How a run stands against the thresholds, in a terminal: of a ledger's findings, and of a running daemon's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from flopsd.core.rounding import Towards, format_duration, share_at_most
from flopsd.report.numbers import NO_UPPER_BOUND
from flopsd.report.terminal import counted, one_line

Row = tuple[str, str]
TOO_LITTLE = "too little is declared of the training and its base model (docs/thresholds.md)"


def threshold_facts(findings: Iterable[Mapping[str, Any]]) -> list[Row]:
    """One fact a rule: its verdict, what the run can be of the threshold at most, when it would be crossed."""
    judged = [finding for finding in findings if finding["state"] is not None]
    rows = [("threshold", _finding(one)) for one in judged if not _hangs_on_declarations(one)]
    if count := len(judged) - len(rows):
        rows.append(("threshold", f"INDETERMINATE for {counted(count, 'rule')}: {TOO_LITTLE}"))
    return rows


def _hangs_on_declarations(finding: Mapping[str, Any]) -> bool:
    return finding["applies"] is None and finding["state"] == "indeterminate"


def _finding(finding: Mapping[str, Any]) -> str:
    notes = [] if finding["applies"] else ["if it applies"]
    if finding["state"] == "above" and finding["status"] == "interpretation":
        notes.append("flopsd's reading, not the text's")
    if (held := finding.get("stateIfClaimsHold")) is not None:
        notes.append(f"{held} if what its processes claim is true")
    parts = [_against(finding)]
    if finding["state"] != "above" and finding.get("crossing") is not None:
        parts.append(crossing_text(finding["crossing"]))
    sure = f" ({', '.join(notes)})" if notes else ""
    return f"{finding['state'].upper()}: {one_line(finding['title'])}{sure}: {'; '.join(parts)}"


def _against(finding: Mapping[str, Any]) -> str:
    high, threshold = finding["value"]["high"], finding["threshold"]
    if threshold is None:
        return one_line(finding["reason"]) or "the threshold is not known"
    return NO_UPPER_BOUND if high is None else share_at_most(int(high), Fraction(threshold["low"]))


def crossing_text(crossing: Mapping[str, str | None]) -> str:
    """When a threshold is crossed; an upper bound that is not known may be beyond it already."""
    ends = (crossing["earliestSeconds"], crossing["latestSeconds"])
    earliest, latest = (None if end is None else int(end) for end in ends)
    if earliest is None:
        return "not crossed at this rate"
    last = "" if latest is None else format_duration(latest, Towards.UP)
    if earliest == 0:
        return "may be crossed already" + (f", certainly within {last} at this rate" if last else "")
    first = format_duration(earliest, Towards.DOWN)
    return f"crossed in {first} to {last} at this rate" if last else f"crossed in {first} at the earliest"
