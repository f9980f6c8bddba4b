"""A policy: thresholds of training compute as data, read strictly. Pure.

What the words of a policy file mean is written at the head of `config/policies/eu-ai-act.yaml`. Rules are compared
with an account in `core/policy.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from flopsd.core.declarations import Method
from flopsd.core.model import PPM
from flopsd.core.policy.strict_yaml import Entry
from flopsd.errors import PolicyError

SCHEMA = "flopsd-policy/1"
BASE_KINDS = ("known", "estimated", "unknown")
STATUSES = ("text", "interpretation")
OURS = "flopsd"  # the source of what we read into a text
_DATE = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])", re.ASCII)


class Quantity(str, Enum):
    """What is held against a threshold."""

    UPDATES = "updates"
    CUMULATIVE = "cumulative"
    BASE_UPDATES = "base+updates"
    BASE_CUMULATIVE = "base+cumulative"


@dataclass(frozen=True, slots=True)
class Threshold:
    """An exact count of FLOP, or an exact fraction of the base model's compute: one of the two."""

    flop: Fraction | None
    of_base: Fraction | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must be declared for a rule to apply. None and () ask nothing."""

    modification: bool | None = None
    methods: tuple[Method, ...] = ()
    base_kinds: tuple[str, ...] = ()
    base_systemic: bool | None = None
    base_above_flop: int | None = None
    base_not_above_flop: int | None = None
    systemic_is_above: bool = False  # a base model with systemic risk counts as above, whatever its compute


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Where a claim stands: a key of the policy's sources, or `flopsd` for what we read into it."""

    of: str
    at: str
    says: str
    status: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One threshold. Either `quantities` and `threshold` are there, or the result is `derived` from other rules.

    `quantities` are those for an ordinary base model and for one with systemic risk.
    """

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
    notify: bool  # whether the regulator is notified when it is above


@dataclass(frozen=True, slots=True)
class FormRules:
    """To how many significant figures a regulator's form takes its figures, and its bands of training time."""

    flop_figures: int
    notification_figures: int
    energy_figures: int
    parameters_figures: int
    hardware_days_figures: int
    bands_months: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """One regime's rules, with the SHA-256 of the file they came from."""

    id: str
    sha256: str
    title: str
    notice: str
    margin_ppm: int  # how far an estimate may be off, both ways
    rules: tuple[Rule, ...]
    form: FormRules | None

    def rule(self, rule_id: str) -> Rule:
        return next(rule for rule in self.rules if rule.id == rule_id)

    @classmethod
    def from_data(cls, data: object, sha256: str) -> Policy:
        """A policy from parsed YAML. Raises PolicyError with every problem."""
        problems: list[str] = []
        top = Entry(data, "policy", problems)
        top.only("schema", "id", "title", "generated", "notice", "sources", "estimation_margin", "form", "rules")
        if top.get("schema") != SCHEMA:
            raise PolicyError([f"policy: schema is {top.get('schema')!r:.60}; this flopsd reads {SCHEMA!r}"])
        named = top.get("sources")
        if not isinstance(named, Mapping) or not named:
            problems.append("policy: sources: expected a mapping of names to titles")
            named = {}
        sources = {str(name) for name in named} | {OURS}
        margin = top.entry("estimation_margin")
        margin.only("ppm", "citation", "source")
        raw_rules = top.get("rules")
        if not isinstance(raw_rules, list) or not raw_rules:
            problems.append("policy: rules: expected a list of rules")
            raw_rules = []
        policy = cls(
            id=top.name("id"),
            sha256=sha256,
            title=top.text("title"),
            notice=top.text("notice"),
            margin_ppm=margin.count("ppm", PPM - 1),
            rules=tuple(_rule(raw, position, sources, problems) for position, raw in enumerate(raw_rules, 1)),
            form=_form(top.entry("form"), sources) if top.get("form") is not None else None,
        )
        _sources(margin, sources, [margin.get("source")])
        problems += _contradictions(policy.rules)
        if problems:
            raise PolicyError(problems, hint="compare it with the packaged config/policies/eu-ai-act.yaml")
        return policy


def _rule(raw: object, position: int, sources: set[str], problems: list[str]) -> Rule:
    name = raw.get("id") if isinstance(raw, Mapping) else None
    entry = Entry(raw, f"rule {name if isinstance(name, str) and name else position}", problems)
    entry.only(
        *("id", "title", "quantity", "threshold", "when", "or_else", "derived", "assumes", "notify"),
        *("citation", "consequence", "since", "status", "sources"),
    )
    derived = entry.get("derived")
    if derived is not None and (not isinstance(derived, list) or not derived):
        entry.wrong("derived", "expected a list of rules")
    if (derived is not None) == (entry.has("quantity") or entry.has("threshold")):
        entry.wrong("derived", "a rule has either a quantity and a threshold, or what it is derived from")
    since = entry.get("since")
    if not isinstance(since, str) or not _DATE.fullmatch(since):
        entry.wrong("since", 'expected a date as text, such as "2025-08-02"')
    return Rule(
        id=entry.name("id"),
        title=entry.text("title"),
        citation=entry.text("citation"),
        consequence=entry.text("consequence"),
        since=str(since),
        status=entry.one_of("status", STATUSES),
        sources=_sources(entry, sources, entry.get("sources")),
        when=_conditions(entry.entry("when")),
        quantities=_quantities(entry) if derived is None else None,
        threshold=_threshold(entry.entry("threshold")) if derived is None else None,
        or_else=entry.name("or_else") if entry.has("or_else") else None,
        derived=tuple(str(item) for item in derived) if isinstance(derived, list) else (),
        assumes=entry.text("assumes", ""),
        notify=entry.flag("notify") is True,
    )


def _conditions(when: Entry) -> Conditions:
    if when.raw is None:
        return Conditions()
    when.only("modification", "method", "base.kind", "base.systemic", "base.flop")
    flop = when.entry("base.flop")
    if when.has("base.flop"):
        flop.only("above", "not_above", "systemic")
        if flop.has("above") == flop.has("not_above"):
            when.wrong("base.flop", "expected one of above, not_above")
        if flop.has("systemic"):
            flop.one_of("systemic", ("above",))
    return Conditions(
        modification=when.flag("modification"),
        methods=tuple(Method(name) for name in when.some_of("method", [method.value for method in Method])),
        base_kinds=when.some_of("base.kind", BASE_KINDS),
        base_systemic=when.flag("base.systemic"),
        base_above_flop=flop.flop("above"),
        base_not_above_flop=flop.flop("not_above"),
        systemic_is_above=flop.has("systemic"),
    )


def _quantities(entry: Entry) -> tuple[Quantity, Quantity]:
    known = [quantity.value for quantity in Quantity]
    if isinstance(entry.get("quantity"), Mapping):
        choice = entry.entry("quantity")
        choice.only("ordinary_base", "systemic_base")
        return Quantity(choice.one_of("ordinary_base", known)), Quantity(choice.one_of("systemic_base", known))
    quantity = Quantity(entry.one_of("quantity", known))
    return quantity, quantity


def _threshold(entry: Entry) -> Threshold:
    entry.only("flop", "of_base")
    if entry.has("flop") == entry.has("of_base"):
        entry.problems.append(f"{entry.where}: expected one of flop, of_base")
    return Threshold(entry.fraction("flop"), entry.fraction("of_base"))


def _sources(entry: Entry, known: set[str], raw: object) -> tuple[PolicySource, ...]:
    if not isinstance(raw, list) or not raw:
        entry.wrong("sources", "expected a list: every claim names its source")
        return ()
    found = []
    for position, item in enumerate(raw, 1):
        source = Entry(item, f"{entry.where}: source {position}", entry.problems)
        source.only("of", "at", "says", "status")
        if source.get("of") not in known:
            source.wrong("of", f"{source.get('of')!r:.60} is not one of {', '.join(sorted(known))}")
        status = source.one_of("status", STATUSES, "text")
        if source.get("of") == OURS and status != "interpretation":
            source.wrong("status", "what flopsd says is an interpretation")
        found.append(PolicySource(str(source.get("of")), source.text("at"), source.text("says"), status))
    return tuple(found)


def _form(entry: Entry, sources: set[str]) -> FormRules:
    names = ("flop", "notification", "energy", "parameters", "hardware_days")
    keys = [f"{name}_significant_figures" for name in names]
    entry.only(*keys, "training_time_bands_months", "sources")
    bands = entry.get("training_time_bands_months")
    whole = isinstance(bands, list) and all(isinstance(b, int) and not isinstance(b, bool) and b > 0 for b in bands)
    if not whole or not bands or bands != sorted(set(bands)):
        entry.wrong("training_time_bands_months", "expected whole months in rising order")
        bands = [1]
    _sources(entry, sources, entry.get("sources"))
    flop, notification, energy, parameters, hardware_days = (entry.count(key, 12) for key in keys)
    return FormRules(flop, notification, energy, parameters, hardware_days, tuple(bands))


def _contradictions(rules: Sequence[Rule]) -> list[str]:
    """What is wrong between rules."""
    found = []
    by_id = {rule.id: rule for rule in rules}
    if len(by_id) != len(rules):
        found.append("policy: rules: two rules have the same id")
    for rule in rules:
        found += [
            f"rule {rule.id}: derived: {other[:60]!r} is not a rule with a threshold of its own"
            for other in rule.derived
            if other not in by_id or by_id[other].derived
        ]
        if rule.or_else is not None:
            partner = by_id.get(rule.or_else)
            if partner is None or partner.or_else != rule.id or rule.derived or partner.derived:
                found.append(f"rule {rule.id}: or_else: the two rules must name each other and have thresholds")
            elif {rule.when.base_systemic, partner.when.base_systemic} != {True, False}:
                found.append(f"rule {rule.id}: or_else: one rule must be for base.systemic true, one for false")
    return found
