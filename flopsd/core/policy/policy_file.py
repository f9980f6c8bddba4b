"""A policy: thresholds of training compute as data, read strictly. Pure.

The head of `config/policies/eu-ai-act.yaml` explains the fields of a policy file. `evaluate.py` compares the rules with
an account.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from flopsd.core.declarations import Method
from flopsd.core.model import PPM
from flopsd.core.untrusted import FieldReader, collecting, shown
from flopsd.core.values import is_whole
from flopsd.errors import PolicyError

SCHEMA = "flopsd-policy/1"
BASE_KINDS = ("known", "estimated", "unknown")
STATUSES = ("text", "interpretation")
INTEGER_OPERATIONS = ("not counted", "counted")
MAX_TEXT = 1200
OURS = "flopsd"  # the source of what we read into a text
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,59}", re.ASCII)
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
class Presumption:
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

    def rule(self, rule_id: str) -> Rule:
        return next(rule for rule in self.rules if rule.id == rule_id)

    @classmethod
    def from_data(cls, data: object, sha256: str) -> Policy:
        """A policy from parsed YAML. Raises PolicyError with every problem."""
        problems: list[str] = []
        top = FieldReader(data, "", collecting(problems, "policy"))
        top.only(
            *("schema", "id", "title", "generated", "notice", "sources", "estimation_margin"),
            *("integer_operations", "base_systemic_presumed", "form", "rules"),
        )
        if top.raw("schema") != SCHEMA:
            raise PolicyError([f"policy: schema is {shown(top.raw('schema'))}; this flopsd reads {SCHEMA!r}"])
        sources = {*map(str, top.object("sources").mapping), OURS}
        if sources == {OURS}:
            top.wrong("sources", "a mapping of names to titles")
        margin = top.object("estimation_margin")
        margin.only("ppm", "citation", "source")
        raw_rules = top.raw("rules")
        if not isinstance(raw_rules, list) or not raw_rules:
            top.wrong("rules", "a list of rules")
            raw_rules = []
        policy = cls(
            id=_id(top, "id"),
            sha256=sha256,
            title=_text(top, "title"),
            notice=_text(top, "notice"),
            margin_ppm=margin.whole("ppm", 1, PPM - 1),
            counts_integers="integer_operations" in top
            and top.one_of("integer_operations", INTEGER_OPERATIONS) == INTEGER_OPERATIONS[1],
            rules=tuple(_rule(raw, position, sources, problems) for position, raw in enumerate(raw_rules, 1)),
            form=None if (form := top.maybe_object("form")) is None else _form(form, sources),
            presumed=None if (base := top.maybe_object("base_systemic_presumed")) is None else _presumption(base),
        )
        _source(margin.object("source"), sources)
        problems += _contradictions(policy.rules)
        if problems:
            raise PolicyError(problems, hint="compare it with the packaged config/policies/eu-ai-act.yaml")
        return policy


def _id(entry: FieldReader, key: str) -> str:
    return entry.matching(key, _ID, "small letters, digits and hyphens")


def _text(entry: FieldReader, key: str) -> str:
    return entry.line(key, MAX_TEXT, fold=True)


def _presumption(base: FieldReader) -> Presumption:
    base.only("above", "citation")
    flop = base.maybe_flop("above")
    if flop is None:
        base.wrong("above", "a count of FLOP")
    return Presumption(flop or 0, _text(base, "citation"))


def _rule(raw: object, position: int, sources: set[str], problems: list[str]) -> Rule:
    name = raw.get("id") if isinstance(raw, Mapping) else None
    named = f"rule {name:.60}" if isinstance(name, str) and name.isprintable() and name else f"rule {position}"
    entry = FieldReader(raw, "", collecting(problems, named))
    entry.only(
        *("id", "title", "quantity", "threshold", "when", "or_else", "derived", "assumes", "notify"),
        *("citation", "consequence", "since", "status", "sources"),
    )
    derived = entry.texts("derived")
    if "derived" in entry and not derived:
        entry.wrong("derived", "a list of rules")
    if ("derived" in entry) == ("quantity" in entry or "threshold" in entry):
        entry.problem("derived", "a rule has either a quantity and a threshold, or what it is derived from")
    when = entry.maybe_object("when")
    return Rule(
        id=_id(entry, "id"),
        title=_text(entry, "title"),
        citation=_text(entry, "citation"),
        consequence=_text(entry, "consequence"),
        since=entry.matching("since", _DATE, 'a date as text, such as "2025-08-02"'),
        status=entry.one_of("status", STATUSES),
        sources=_sources(entry, sources),
        when=Conditions() if when is None else _conditions(when),
        quantities=None if "derived" in entry else _quantities(entry),
        threshold=None if "derived" in entry else _threshold(entry.object("threshold")),
        or_else=_id(entry, "or_else") if "or_else" in entry else None,
        derived=derived,
        assumes=_text(entry, "assumes") if "assumes" in entry else "",
        notify=entry.flag("notify") is True,
    )


def _conditions(when: FieldReader) -> Conditions:
    when.only("modification", "method", "base.kind", "base.systemic", "base.flop")
    flop = when.maybe_object("base.flop")
    if flop is not None:
        flop.only("above", "not_above")
        if ("above" in flop) == ("not_above" in flop):
            when.problem("base.flop", "must have one of above, not_above")
    return Conditions(
        modification=when.flag("modification"),
        methods=tuple(Method(name) for name in when.some_of("method", [method.value for method in Method])),
        base_kinds=when.some_of("base.kind", BASE_KINDS),
        base_systemic=when.flag("base.systemic"),
        base_above_flop=None if flop is None else flop.maybe_flop("above"),
        base_not_above_flop=None if flop is None else flop.maybe_flop("not_above"),
    )


def _quantities(entry: FieldReader) -> tuple[Quantity, Quantity]:
    known = [quantity.value for quantity in Quantity]
    if isinstance(entry.raw("quantity"), Mapping):
        choice = entry.object("quantity")
        choice.only("ordinary_base", "systemic_base")
        return Quantity(choice.one_of("ordinary_base", known)), Quantity(choice.one_of("systemic_base", known))
    quantity = Quantity(entry.one_of("quantity", known))
    return quantity, quantity


def _threshold(threshold: FieldReader) -> Threshold:
    threshold.only("flop", "of_base")
    if ("flop" in threshold) == ("of_base" in threshold):
        threshold.report("threshold: must have one of flop, of_base")
    return Threshold(threshold.maybe_fraction("flop"), threshold.maybe_fraction("of_base"))


def _sources(entry: FieldReader, known: set[str]) -> tuple[PolicySource, ...]:
    found = tuple(_source(source, known) for source in entry.objects("sources"))
    if not found:
        entry.problem("sources", "must be a list: every claim names its source")
    return found


def _source(source: FieldReader, known: set[str]) -> PolicySource:
    source.only("of", "at", "says", "status")
    of = source.one_of("of", sorted(known))
    status = source.one_of("status", STATUSES) if "status" in source else "text"
    if source.raw("of") == OURS and status != "interpretation":
        source.problem("status", "must be interpretation, as every reading by flopsd is")
    return PolicySource(of, _text(source, "at"), _text(source, "says"), status)


def _form(form: FieldReader, sources: set[str]) -> FormRules:
    names = ("flop", "notification", "energy", "parameters", "hardware_days")
    keys = [f"{name}_significant_figures" for name in names]
    form.only(*keys, "training_time_bands_months", "sources")
    bands = form.raw("training_time_bands_months")
    if not isinstance(bands, list) or not bands or not all(map(is_whole, bands)) or bands != sorted({*bands} - {0}):
        form.wrong("training_time_bands_months", "a list of whole months in rising order")
        bands = [1]
    _sources(form, sources)
    flop, notification, energy, parameters, hardware_days = (form.whole(key, 1, 12) for key in keys)
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
