"""Strict reader of a policy from parsed YAML: reports every problem with its line. Pure.

The head of `config/policies/eu-ai-act.yaml` explains the fields; docs/thresholds.md shows the shortest policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from flopsd.core.declarations import Method
from flopsd.core.field_reader import FieldReader, Report
from flopsd.core.model import PPM
from flopsd.core.policy.guidelines import MARGIN_PPM
from flopsd.core.policy.policy_file import (
    AT_LEAST,
    BASE_KINDS,
    COMPARISONS,
    INTERPRETATION,
    STATUSES,
    TEXT,
    WITH_BASE,
    Conditions,
    FormRules,
    Policy,
    Presumption,
    Quantity,
    Rule,
    Threshold,
)
from flopsd.core.values import is_whole, parse_flop, shown
from flopsd.errors import PolicyError

SCHEMA = "flopsd-policy/1"
INTEGER_OPERATIONS = ("not counted", "counted")
MAX_TEXT = 1200
MAX_FLOP = 10**40  # the limit of counts in ledgers
MAX_TERM = 10**9  # of a fraction of a count: in a ledger each term has at most 60 digits
NOTICE = "A comparison of compute with the thresholds of this policy, and no legal advice."
HINT = "docs/thresholds.md has the shortest policy; config/policies/eu-ai-act.yaml explains every field"
OURS = "flopsd"  # the source name of our own interpretations
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,59}", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])", re.ASCII)
Lines = Mapping[str, int]  # line numbers in the file by the path of a field such as `rules[0].at_least`


def policy_from(data: object, sha256: str, lines: Lines | None = None) -> Policy:
    """A policy from parsed YAML. Raises PolicyError with every problem, and its line where `lines` has it."""
    problems: list[str] = []
    place = _Place(problems, lines or {})
    top = FieldReader(data, "", place.report("policy"))
    top.only(
        *("schema", "id", "title", "generated", "notice", "sources", "estimation_margin"),
        *("integer_operations", "base_systemic_presumed", "form", "rules"),
    )
    if "schema" in top and top.raw("schema") != SCHEMA:
        raise PolicyError([f"policy: schema is {shown(top.raw('schema'))}; this flopsd reads {SCHEMA!r}"])
    sources = {OURS}
    if "sources" in top:
        titles = top.object("sources")
        sources |= {str(name) for name in titles.mapping if _text(titles, name)}
        if top.raw("sources") == {}:
            top.wrong("sources", "a mapping of names to titles")
    raw_rules = top.raw("rules")
    if not isinstance(raw_rules, list) or not raw_rules:
        top.wrong("rules", "a list of rules")
        raw_rules = []
    rules = tuple(_rule(raw, at, sources, place) for at, raw in enumerate(raw_rules))
    policy = Policy(
        id=_id(top, "id"),
        sha256=sha256,
        title=_text(top, "title"),
        notice=_text(top, "notice", NOTICE),
        margin_ppm=_margin(top, sources),
        counts_integers="integer_operations" in top
        and top.one_of("integer_operations", INTEGER_OPERATIONS) == INTEGER_OPERATIONS[1],
        rules=rules,
        form=None if (form := top.maybe_object("form")) is None else _form(form, sources),
        presumed=None if (base := top.maybe_object("base_systemic_presumed")) is None else _presumption(base),
    )
    _check_together(rules, place)
    if problems:
        raise PolicyError(problems, hint=HINT)
    return policy


class _Place:
    """Locates problems in the file: the line of the field, or of the enclosing one if the field is missing."""

    def __init__(self, problems: list[str], lines: Lines) -> None:
        self._problems, self._lines = problems, lines

    def report(self, named: str, root: str = "") -> Report:
        """A report for the fields below `root`; a problem begins with the path of its field, as in FieldReader."""

        def add(problem: str) -> None:
            path = problem.partition(": ")[0]
            line = self._line(".".join(filter(None, (root, path))))
            self._problems.append(f"{f'line {line}: ' if line else ''}{named}: {problem}")

        return add

    def _line(self, path: str) -> int | None:
        while path and path not in self._lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._lines.get(path)


def _margin(top: FieldReader, sources: set[str]) -> int:
    """How far an estimate may be off, either way, in ppm."""
    margin = top.maybe_object("estimation_margin")
    if margin is None:
        return MARGIN_PPM  # without a margin an estimate would be taken as exact
    margin.only("ppm", "citation", "source")
    if "source" in margin:
        _check_source(margin.object("source"), sources)
    return margin.whole("ppm", 1, PPM - 1)


def _id(entry: FieldReader, key: str) -> str:
    return entry.matching(key, _ID, "small letters, digits and hyphens")


def _text(entry: FieldReader, key: str, missing: str | None = None) -> str:
    """A text; `missing` is the value of an omitted field, None if the field is required."""
    return missing if missing is not None and key not in entry else entry.line(key, MAX_TEXT, fold=True)


def _presumption(base: FieldReader) -> Presumption:
    base.only("above", "citation")
    return Presumption(_count(base, "above"), _text(base, "citation"))


def _rule(raw: object, at: int, sources: set[str], place: _Place) -> Rule:
    entry = FieldReader(raw, "", place.report(_named(raw, at), f"rules[{at}]"))
    entry.only(
        *("id", "title", "quantity", *COMPARISONS, "when", "or_else", "derived", "assumes", "other_conditions"),
        *("notify", "citation", "consequence", "since", "status", "sources"),
    )
    derived = entry.texts("derived")
    if "derived" in entry and not derived:
        entry.wrong("derived", "a list of rules")
    if "derived" in entry and any(name in entry for name in ("quantity", *COMPARISONS)):
        entry.problem("derived", "a rule must have either a threshold or the rules that it is derived from")
    when = entry.maybe_object("when")
    quantities = None if "derived" in entry else _quantities(entry)
    if "sources" in entry:
        _check_sources(entry, sources)
    return Rule(
        id=_id(entry, "id"),
        title=_text(entry, "title", str(entry.raw("id"))),
        citation=_text(entry, "citation"),
        consequence=_text(entry, "consequence", ""),
        since=entry.matching("since", _DATE, 'a date as text, such as "2025-08-02"') if "since" in entry else "",
        status=entry.one_of("status", STATUSES) if "status" in entry else TEXT,
        when=Conditions() if when is None else _conditions(when),
        quantities=quantities,
        threshold=None if quantities is None else _threshold(entry, quantities),
        or_else=_id(entry, "or_else") if "or_else" in entry else None,
        derived=derived,
        assumes=_text(entry, "assumes", ""),
        other_conditions=_other_conditions(entry),
        notify=entry.flag("notify") is True,
    )


def _named(raw: object, at: int) -> str:
    """A rule's name for messages: its id, or its position where the id is unusable."""
    name = raw.get("id") if isinstance(raw, Mapping) else None
    return f"rule {name:.60}" if isinstance(name, str) and name.isprintable() and name else f"rule {at + 1}"


def _other_conditions(entry: FieldReader) -> tuple[str, ...]:
    found = tuple(" ".join(text.split()) for text in entry.texts("other_conditions"))
    if "other_conditions" in entry and not all(
        text and len(text) <= MAX_TEXT and text.isprintable() for text in (found or ("",))
    ):
        entry.wrong("other_conditions", f"a list of texts of at most {MAX_TEXT} printable characters")
        return ()
    return found


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
        base_above_flop=_count(flop, "above") if flop is not None and "above" in flop else None,
        base_not_above_flop=_count(flop, "not_above") if flop is not None and "not_above" in flop else None,
    )


def _count(entry: FieldReader, key: str) -> int:
    """A count of FLOP that a ledger can hold, as a whole number or as text such as "1e25"."""
    flop = 0
    if key in entry:
        try:
            flop = parse_flop(entry.raw(key))
        except ValueError as fault:
            entry.problem(key, str(fault))
    if not 0 < flop < MAX_FLOP:
        entry.wrong(key, "a count of FLOP from 1 to below 1e40")
        return 1
    return flop


def _quantities(entry: FieldReader) -> tuple[Quantity, Quantity]:
    known = [quantity.value for quantity in Quantity]
    if isinstance(entry.raw("quantity"), Mapping):
        choice = entry.object("quantity")
        choice.only("ordinary_base", "systemic_base")
        return Quantity(choice.one_of("ordinary_base", known)), Quantity(choice.one_of("systemic_base", known))
    quantity = Quantity(entry.one_of("quantity", known)) if "quantity" in entry else Quantity.CUMULATIVE
    return quantity, quantity


def _threshold(entry: FieldReader, quantities: Sequence[Quantity]) -> Threshold:
    given = [name for name in COMPARISONS if name in entry]
    if len(given) != 1:
        entry.report(f"{given[-1] if given else entry.at('at_least')}: must have one of {', '.join(COMPARISONS)}")
        return Threshold(Fraction(1), None)
    (name,) = given
    at_least = name == AT_LEAST
    if isinstance(entry.raw(name), Mapping):
        part = entry.object(name)
        part.only("of_base")
        of_base = part.fraction("of_base")
        if max(of_base.numerator, of_base.denominator) > MAX_TERM:
            part.wrong("of_base", "a fraction of whole numbers up to 1e9")
        if not WITH_BASE.isdisjoint(quantities):
            # That would need another formula: `own > (F - 1) x base`, and any base at all for F below 1.
            part.problem("of_base", "cannot use a base+ quantity: for base+updates above 4/3 write updates above 1/3")
        return Threshold(None, of_base, at_least)
    raw = entry.raw(name)
    flop = Fraction(raw) if is_whole(raw) and raw > 0 else entry.fraction(name)
    if not 1 <= flop < MAX_FLOP or flop.denominator > MAX_TERM:
        entry.wrong(name, "from 1 to below 1e40, divided by 1e9 at most")
    return Threshold(flop, None, at_least)


def _check_sources(entry: FieldReader, known: set[str]) -> None:
    """Sources are for the reader of the file: they are checked, and not kept."""
    sources = list(entry.objects("sources"))
    if not sources:
        entry.problem("sources", "must be a list: every claim names its source")
    for source in sources:
        _check_source(source, known)


def _check_source(source: FieldReader, known: set[str]) -> None:
    """The source of a claim: a key of the policy's sources, or `flopsd` for its own interpretation."""
    source.only("of", "at", "says", "status")
    source.one_of("of", sorted(known))
    status = source.one_of("status", STATUSES) if "status" in source else TEXT
    if source.raw("of") == OURS and status != INTERPRETATION:
        source.problem("status", "must be interpretation, as every reading by flopsd is")
    _text(source, "at"), _text(source, "says")


def _form(form: FieldReader, sources: set[str]) -> FormRules:
    names = ("flop", "notification", "energy", "parameters", "hardware_days")
    keys = [f"{name}_significant_figures" for name in names]
    form.only(*keys, "training_time_bands_months", "sources")
    bands = form.raw("training_time_bands_months")
    if not isinstance(bands, list) or not bands or not all(map(is_whole, bands)) or bands != sorted({*bands} - {0}):
        form.wrong("training_time_bands_months", "a list of whole months in rising order")
        bands = [1]
    _check_sources(form, sources)
    flop, notification, energy, parameters, hardware_days = (form.whole(key, 1, 12) for key in keys)
    return FormRules(flop, notification, energy, parameters, hardware_days, tuple(bands))


def _check_together(rules: Sequence[Rule], place: _Place) -> None:
    """Report inconsistencies between rules."""
    by_id = {rule.id: rule for rule in rules}
    if len(by_id) != len(rules):
        place.report("policy")("rules: two rules have the same id")
    for at, rule in enumerate(rules):
        report = place.report(f"rule {rule.id}", f"rules[{at}]")
        for other in rule.derived:
            if other not in by_id or by_id[other].derived:
                report(f"derived: {other[:60]!r} is not a rule with a threshold of its own")
        if rule.or_else is None:
            continue
        partner = by_id.get(rule.or_else)
        if partner is None or partner.or_else != rule.id or rule.derived or partner.derived:
            report("or_else: the two rules must name each other and have thresholds")
        elif {rule.when.base_systemic, partner.when.base_systemic} != {True, False}:
            report("or_else: one rule must be for base.systemic true, one for false")
        elif rule.when._replace(base_systemic=None) != partner.when._replace(base_systemic=None):
            report("or_else: the two rules must have the same conditions but for base.systemic")
