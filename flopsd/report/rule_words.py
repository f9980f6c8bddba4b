"""What a rule rests on and what it leaves open, in the same words wherever a finding is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from flopsd.core.policy.policy_file import INTERPRETATION, SECONDARY

_BESIDE_SOURCE = {
    INTERPRETATION: "as flopsd reads it: the text does not spell it out",
    SECONDARY: "by copies or accounts of it: the official text was not read",
}
_SENTENCES = {
    INTERPRETATION: "This is flopsd's reading and not the text's.",
    SECONDARY: "The official text of this rule was not read.",
}
_NOTES = {INTERPRETATION: "flopsd's reading, not the text's", SECONDARY: "the official text was not read"}
COMPUTE_ALONE = "other conditions are not decided here"


def beside_source(status: str | None) -> str:
    """To follow the citation of a rule that is not a plain reading of the text; empty for one that is."""
    return _BESIDE_SOURCE.get(status or "", "")


def doubt(status: str | None) -> str:
    """The same as a sentence."""
    return _SENTENCES.get(status or "", "")


def doubt_note(status: str | None) -> str:
    """The same in a few words."""
    return _NOTES.get(status or "", "")


def from_when(since: str | None) -> str:
    """From when the rule applies, which may be later than the run; empty where its policy does not say."""
    return f"the rule applies from {since}" if since else ""


def not_decided(conditions: Iterable[str]) -> str:
    """`not decided here: …`, of the conditions that no meter sees; empty where there are none."""
    listed = "; ".join(conditions)
    return f"not decided here: {listed}" if listed else ""


def of_compute_alone(conditions: Iterable[str]) -> str:
    """The same as a sentence, for a rule that compute alone does not rule out."""
    listed = not_decided(conditions)
    return f"This is the criterion of compute alone; {listed}." if listed else ""
