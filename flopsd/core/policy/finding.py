"""The result of comparing a rule with an account, as in ledgers: verdict, threshold, and what it depends on. Pure."""

from __future__ import annotations

from enum import Enum
from fractions import Fraction
from typing import Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.figures import Figures
from flopsd.core.model import PPM
from flopsd.core.notes import Note, notes_for_ledger
from flopsd.core.policy.policy_file import AT_LEAST, GREATER_THAN, Rule
from flopsd.core.values import ceil_div, text_or_none

QUANTITY_OR = " or "  # joins the quantities that a rule may mean
OPERATOR_COUNT = "operator_count"  # what a state can rest on besides readings


class Verdict(str, Enum):
    """What is certain about an account and a threshold."""

    BELOW = "below"
    ABOVE = "above"
    INDETERMINATE = "indeterminate"


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold in exact FLOP: the lowest and the highest value that it can have, whatever is undeclared. They differ
    where the base model's compute is an estimate or undeclared; `high` may then be None, for no end. `at_least`: a
    count equal to the threshold is above it too."""

    low: Fraction
    high: Fraction | None
    at_least: bool = False

    def is_above(self, flop: int) -> bool:
        """Whether `flop` is above the threshold, whatever value it has."""
        return self.high is not None and self._crosses(flop, self.high)

    def is_below(self, flop: int) -> bool:
        """Whether `flop` is not above the threshold, whatever value it has."""
        return not self._crosses(flop, self.low)

    def for_ledger(self) -> dict[str, Any]:
        return {
            "low": str(self.low),
            "high": None if self.high is None else str(self.high),
            "comparison": AT_LEAST if self.at_least else GREATER_THAN,
        }

    def _crosses(self, flop: int, end: Fraction) -> bool:
        numerator, denominator = end.as_integer_ratio()  # comparing fractions takes six times as long
        whole = flop * denominator
        return whole >= numerator if self.at_least else whole > numerator


class OnlyIfBase(NamedTuple):
    """The base model for which an account would not be below: its compute, both ends included, and whether it carries
    systemic risk, where the rule asks for that."""

    least_flop: int
    most_flop: int
    systemic: bool | None

    def for_ledger(self) -> dict[str, Any]:
        return {"leastFlop": str(self.least_flop), "mostFlop": str(self.most_flop), "systemic": self.systemic}


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule and one account. `applies` is None where it is not known; `why` then names what is not known.

    `limit` and `state` are None where the rule does not apply. `only_if` names the base models that would put the
    account above, where the result depends on them alone. `if_claims_hold` is the state if training processes tell the
    truth, where that differs.
    """

    policy: str
    rule: Rule
    applies: bool | None
    why: tuple[Note, ...]
    quantity: str
    value: Figures
    limit: Limit | None
    state: Verdict | None
    counts_integers: bool = False  # whether the value includes integer operations
    if_claims_hold: Verdict | None = None
    only_if: OnlyIfBase | None = None
    rests_on: str | None = None  # OPERATOR_COUNT if the state would differ without that count

    @property
    def share_ppm(self) -> tuple[int | None, int | None, int | None]:
        """Low, measured and high in parts per million of the threshold, rounded outward. `measured` has a share only of
        an exact threshold."""
        if self.limit is None:
            return None, None, None
        least, most = self.limit.low.as_integer_ratio(), None
        if least[0] <= 0:
            return None, None, None
        if self.limit.high is not None:
            most = self.limit.high.as_integer_ratio()
        low, measured, high = self.value
        return (
            None if most is None else low * PPM * most[1] // most[0],
            _nearest(measured * PPM * least[1], least[0]) if least == most and measured is not None else None,
            None if high is None else ceil_div(high * PPM * least[1], least[0]),
        )

    def for_ledger(self) -> dict[str, Any]:
        """JSON without numbers: counts are decimal strings, thresholds exact fractions as text."""
        low, measured, high = self.share_ppm
        return {
            "policy": self.policy,
            "rule": self.rule.id,
            "quantities": self.quantity.split(QUANTITY_OR),
            "countsIntegerOperations": self.counts_integers,
            "applies": self.applies,
            "reasons": notes_for_ledger(self.why),
            "threshold": None if self.limit is None else self.limit.for_ledger(),
            "state": None if self.state is None else self.state.value,
            "restsOn": self.rests_on,
            "stateIfClaimsHold": None if self.if_claims_hold is None else self.if_claims_hold.value,
            "aboveOnlyIfBase": None if self.only_if is None else self.only_if.for_ledger(),
            "value": self.value.for_ledger(),
            "sharePpm": {"low": text_or_none(low), "measured": text_or_none(measured), "high": text_or_none(high)},
            "title": self.rule.title,
            "citation": self.rule.citation,
            "consequence": self.rule.consequence or None,
            "assumes": self.rule.assumes or None,
            "otherConditions": list(self.rule.other_conditions),
            "status": self.rule.status,
            "since": self.rule.since or None,
        }


def _nearest(numerator: int, denominator: int) -> int:
    """The quotient rounded as by `round`, halves to even, without reducing a fraction to lowest terms."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2))
