"""Texts on the source of a rule and the conditions that it leaves open, the same for all outputs. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from flopsd.core.policy.policy_file import INTERPRETATION, SECONDARY, Rule
from flopsd.report.terminal import sentence

_SOURCE_NOTES = {
    INTERPRETATION: "as flopsd reads it: the text does not spell it out",
    SECONDARY: "from copies or summaries: the official text was not read",
}
_SENTENCES = {
    INTERPRETATION: "This is flopsd's reading and not the text's.",
    SECONDARY: "The official text of this rule was not read.",
}
_NOTES = {INTERPRETATION: "flopsd's reading, not the text's", SECONDARY: "the official text was not read"}
COMPUTE_ALONE = "other conditions are not decided here"


def source_note(status: str | None) -> str:
    """A text to follow the citation of a rule that is not a plain reading of the law; else empty."""
    return _SOURCE_NOTES.get(status or "", "")


def source_of(citation: str, status: str | None) -> str:
    """The citation of a rule, with `source_note`."""
    return ", ".join(filter(None, (citation, source_note(status))))


def doubt(status: str | None) -> str:
    """The text of `source_note` as a sentence."""
    return _SENTENCES.get(status or "", "")


def doubt_note(status: str | None) -> str:
    """The text of `source_note` in a few words."""
    return _NOTES.get(status or "", "")


def from_when(since: str | None) -> str:
    """The date from which the rule applies, which may be after the run; empty if its policy does not state it."""
    return f"the rule applies from {since}" if since else ""


def not_decided(conditions: Iterable[str]) -> str:
    """`not decided here: …`, with the conditions that no meter can see; empty if there are none."""
    listed = "; ".join(conditions)
    return f"not decided here: {listed}" if listed else ""


def of_compute_alone(conditions: Iterable[str]) -> str:
    """The text of `not_decided` as a sentence, for a rule that compute alone does not rule out."""
    listed = not_decided(conditions)
    return f"This is the criterion of compute alone; {listed}." if listed else ""


def what_follows(rule: Rule) -> str:
    """The consequence of a rule, with its date, assumptions and other conditions: an alert shows no other text."""
    assumes = f"It assumes: {rule.assumes}." if rule.assumes else ""
    conditions = of_compute_alone(rule.other_conditions)
    return " ".join(filter(None, (rule.consequence, sentence(from_when(rule.since)), assumes, conditions)))
