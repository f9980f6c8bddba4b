"""A policy: thresholds of training compute as data. Pure.

`policy_reader.py` reads one from parsed YAML, and `evaluate.py` compares its rules with an account.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from fractions import Fraction
from typing import Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Method

BASE_KINDS = ("known", "estimated", "unknown")
# How a rule is known: from the text cited, as flopsd reads that text, or from accounts of a text that was not read.
TEXT, INTERPRETATION, SECONDARY = "text", "interpretation", "secondary"
STATUSES = (TEXT, INTERPRETATION, SECONDARY)
GREATER_THAN, AT_LEAST = COMPARISONS = "greater_than", "at_least"


class Quantity(str, Enum):
    """What is held against a threshold."""

    UPDATES = "updates"
    CUMULATIVE = "cumulative"
    BASE_UPDATES = "base+updates"
    BASE_CUMULATIVE = "base+cumulative"


WITH_BASE = frozenset({Quantity.BASE_UPDATES, Quantity.BASE_CUMULATIVE})


@dataclass(frozen=True, slots=True)
class Threshold:
    """An exact count of FLOP, or an exact fraction of the base model's compute: one of the two. `at_least`: as much is
    above it already. Otherwise only more is."""

    flop: Fraction | None
    of_base: Fraction | None
    at_least: bool = False


class Conditions(NamedTuple):
    """What must be declared for a rule to apply. None and () ask nothing."""

    modification: bool | None = None
    methods: tuple[Method, ...] = ()
    base_kinds: tuple[str, ...] = ()
    base_systemic: bool | None = None
    base_above_flop: int | None = None
    base_not_above_flop: int | None = None


class PolicySource(NamedTuple):
    """Where a claim stands: a key of the policy's sources, or `flopsd` for what we read into it."""

    of: str
    at: str
    says: str
    status: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One threshold. Either `quantities` and `threshold` are there, or the result is `derived` from other rules.
    `quantities` are those for an ordinary base model and for one with systemic risk."""

    id: str
    title: str
    citation: str
    consequence: str
    since: str
    status: str
    sources: tuple[PolicySource, ...]
    when: Conditions
    quantities: tuple[Quantity, Quantity] | None
    threshold: Threshold | None
    or_else: str | None
    derived: tuple[str, ...]
    assumes: str
    other_conditions: tuple[str, ...]  # what the law also asks, such as a revenue, which no meter can decide
    notify: bool  # whether the regulator is notified when it is above


class FormRules(NamedTuple):
    """To how many significant figures a regulator's form takes its figures, and its bands of training time."""

    flop_figures: int
    notification_figures: int
    energy_figures: int
    parameters_figures: int
    hardware_days_figures: int
    bands_months: tuple[int, ...]


class Presumption(NamedTuple):
    """The law presumes systemic risk of a base model whose compute is above this."""

    above_flop: int
    citation: str


@dataclass(frozen=True, slots=True)
class Policy:
    """One regime's rules, with the SHA-256 of the file they came from."""

    id: str
    sha256: str
    title: str
    notice: str
    margin_ppm: int  # how far an estimate may be off, both ways
    counts_integers: bool  # whether integer operations count beside FLOP
    rules: tuple[Rule, ...]
    form: FormRules | None
    presumed: Presumption | None = None
    # What follows of each rule from declarations alone; see evaluate.py.
    known: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rule(self, rule_id: str) -> Rule:
        return next(rule for rule in self.rules if rule.id == rule_id)
