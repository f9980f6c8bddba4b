"""A run and the thresholds in a terminal: for the findings of a ledger or of a running daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from flopsd.core.rounding import LONGEST_S, Towards, format_duration, share_at_least, share_at_most
from flopsd.report.answer import answer_to
from flopsd.report.claims import BY_COUNT_ALONE
from flopsd.report.numbers import NO_UPPER_BOUND
from flopsd.report.rule_words import doubt_note, from_when, not_decided
from flopsd.report.terminal import counted, one_line
from flopsd.settings.words import say_all

Row = tuple[str, str]
_UNSURE = "if it applies"
_AT_RATE = "at the mean rate since the last start"


def threshold_facts(findings: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The answer; then one fact per rule: its verdict, the share of the threshold, and the forecast of its crossing.
    Rules with equal facts are one fact, and so are rules below that may not apply. Rules in the answer's exceptions
    have none."""
    answer = answer_to(findings)
    rows = [("answer", words) for words in (answer.headline, *answer.only_if)]
    judged = [one for one in findings if one["state"] is not None and one.get("aboveOnlyIfBase") is None]
    unsure = [one for one in judged if one["applies"] is None and one["state"] == "below"]
    several = len({one["policy"] for one in findings}) > 1
    alike: dict[tuple[str, str], list[str]] = {}
    for one in judged:
        if one not in unsure:
            verdict, doubts = _finding(one, named=several)
            alike.setdefault((verdict, doubts), []).append(one_line(one["title"]))
    for (verdict, doubts), titles in alike.items():
        of_all = doubts if len(titles) == 1 else doubts.replace(_UNSURE, "if they apply", 1)
        rows.append(("threshold", f"{verdict}{'; '.join(titles)}{of_all}"))
    return [*rows, *([("threshold", _all_below(unsure))] if unsure else [])]


def _all_below(findings: Sequence[Mapping[str, Any]]) -> str:
    words = f"BELOW: {counted(len(findings), 'rule')}, whether {'it applies' if len(findings) == 1 else 'they apply'}"
    known = [one["crossing"]["earliestSeconds"] for one in findings if one.get("crossing") is not None]
    first = min((int(seconds) for seconds in known if seconds is not None), default=None)
    soonest = {"earliestSeconds": None if first is None else str(first), "latestSeconds": None}
    return f"{words} or not{f'; {crossing_text(soonest)}' if known else ''}"


def _finding(finding: Mapping[str, Any], *, named: bool) -> tuple[str, str]:
    """The texts before and after the rule's title. `named`: include the policy's name."""
    notes = [] if finding["applies"] else [_UNSURE]
    if finding["state"] == "above" and (note := doubt_note(finding["status"])):
        notes.append(note)
    if finding.get("restsOn") is not None:
        notes.append(BY_COUNT_ALONE)
    if (held := finding.get("stateIfClaimsHold")) is not None:
        notes.append(f"{held} if what its processes claim is true")
    parts = [_against(finding)]
    if finding["state"] != "above" and finding.get("crossing") is not None:
        parts.append(crossing_text(finding["crossing"]))
    if finding["state"] == "above" and finding.get("assumes"):
        parts.append(f"assumes: {one_line(finding['assumes'])}")
    if finding["state"] == "above" and (start := from_when(finding["since"])):
        parts.append(one_line(start))
    if finding["state"] != "below" and (conditions := not_decided(map(one_line, finding["otherConditions"]))):
        parts.append(conditions)
    sure = f" ({', '.join(notes)})" if notes else ""
    policy = f"{one_line(finding['policy'])}: " if named else ""
    return f"{finding['state'].upper()}: {policy}", f"{sure}: {'; '.join(parts)}"


def _against(finding: Mapping[str, Any]) -> str:
    high, threshold = finding["value"]["high"], finding["threshold"]
    if threshold is None or finding["state"] == "indeterminate":
        return one_line(say_all("findings.reasons", finding["reasons"]))
    if finding["state"] == "above":
        return share_at_least(int(finding["value"]["low"]), Fraction(threshold["high"]))
    return NO_UPPER_BOUND if high is None else share_at_most(int(high), Fraction(threshold["low"]))


def crossing_text(crossing: Mapping[str, str | None]) -> str:
    """The forecast of crossing a threshold. If no upper bound is known, it may be crossed already."""
    ends = (crossing["earliestSeconds"], crossing["latestSeconds"])
    earliest, latest = (None if end is None else int(end) for end in ends)
    if earliest is None:
        return f"not crossed {_AT_RATE}"
    if latest == 0:
        return "crossed already"
    last = "" if latest is None or latest >= LONGEST_S else format_duration(latest, Towards.UP)
    if earliest == 0:
        return "may be crossed already" + (f", certainly within {last} {_AT_RATE}" if last else "")
    if earliest >= LONGEST_S:
        return f"not crossed within 10 000 years {_AT_RATE}"
    first = format_duration(earliest, Towards.DOWN)
    return f"crossed in {first} {f'to {last}' if last else 'or later'} {_AT_RATE}"
