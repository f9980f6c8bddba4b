"""A policy: training compute thresholds as data. Pure.

`policy_reader.py` reads a policy from parsed YAML; `evaluate.py` compares its rules with an account.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from fractions import Fraction
from typing import Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Method

BASE_KINDS = ("known", "estimated", "unknown")
# Basis of a rule: the cited text, flopsd's interpretation of that text, or reports about a text that was not read.
TEXT, INTERPRETATION, SECONDARY = "text", "interpretation", "secondary"
STATUSES = (TEXT, INTERPRETATION, SECONDARY)
GREATER_THAN, AT_LEAST = COMPARISONS = "greater_than", "at_least"


class Quantity(str, Enum):
    """The quantity that is compared with a threshold."""

    UPDATES = "updates"
    CUMULATIVE = "cumulative"
    BASE_UPDATES = "base+updates"
    BASE_CUMULATIVE = "base+cumulative"


WITH_BASE = frozenset({Quantity.BASE_UPDATES, Quantity.BASE_CUMULATIVE})


@dataclass(frozen=True, slots=True)
class Threshold:
    """Either an exact count of FLOP or an exact fraction of the base model's compute. `at_least`: an equal amount is
    above it too."""

    flop: Fraction | None
    of_base: Fraction | None
    at_least: bool = False


class Conditions(NamedTuple):
    """What must be declared for a rule to apply. None and () impose no condition."""

    modification: bool | None = None
    methods: tuple[Method, ...] = ()
    base_kinds: tuple[str, ...] = ()
    base_systemic: bool | None = None
    base_above_flop: int | None = None
    base_not_above_flop: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One threshold. Either `quantities` and `threshold` are set, or the result is `derived` from other rules.
    `quantities` are for an ordinary base model and for one with systemic risk, in that order."""

    id: str
    title: str
    citation: str
    consequence: str
    since: str
    status: str
    when: Conditions
    quantities: tuple[Quantity, Quantity] | None
    threshold: Threshold | None
    or_else: str | None
    derived: tuple[str, ...]
    assumes: str
    other_conditions: tuple[str, ...]  # what the law also requires and no meter can decide, such as a revenue
    notify: bool  # whether the regulator must be notified when above


class FormRules(NamedTuple):
    """The significant figures of a regulator's form, and its bands of training time in months."""

    flop_figures: int
    notification_figures: int
    energy_figures: int
    parameters_figures: int
    hardware_days_figures: int
    bands_months: tuple[int, ...]


class Presumption(NamedTuple):
    """The law presumes systemic risk of a base model with more compute than this."""

    above_flop: int
    citation: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one legal regime, with the SHA-256 of their file."""

    id: str
    sha256: str
    title: str
    notice: str
    margin_ppm: int  # how far an estimate may be off, either way
    counts_integers: bool  # whether integer operations count in addition to FLOP
    rules: tuple[Rule, ...]
    form: FormRules | None
    presumed: Presumption | None = None
    # For each rule, what follows from declarations alone; see evaluate.py.
    known: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rule(self, rule_id: str) -> Rule:
        return next(rule for rule in self.rules if rule.id == rule_id)
