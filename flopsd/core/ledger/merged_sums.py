"""Sums over ledgers: figures, energy, times, declarations. Exact, in any order and grouping. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Base, Method, Phase, base_from
from flopsd.core.figures import NO_FIGURES, Figures, figures_from, sum_by_key
from flopsd.core.ledger.energy import Comparisons, energy_for_ledger, energy_from, sum_comparisons
from flopsd.core.ledger.history import History
from flopsd.core.ledger.rated_tally import coverage_of
from flopsd.core.ledger.statement import METHODS, integers_for_ledger
from flopsd.core.ledger.unended import as_of
from flopsd.core.model import Evidence
from flopsd.core.notes import Note, note, note_from, notes_for_ledger
from flopsd.core.phases import split_bucket
from flopsd.core.policy.conditions import PRETRAINING_WITH_BASE
from flopsd.core.policy.contradictions import START_BASE_DIFFERS, Contradiction, of_bases
from flopsd.core.policy.guidelines import NOTHING_COUNTED, Claimed, Guidelines
from flopsd.core.policy.policy_file import Policy
from flopsd.core.policy.reconcile import MOST_REASONS, ArchitectureFigures, figures_of_ledger
from flopsd.core.values import (
    added,
    joules,
    millijoules,
    nanoseconds,
    seconds,
    sum_of_known,
    text_or_none,
    whole_number,
)

TIMES = ("deviceSeconds", "nodeSeconds", "energyUncountedSeconds")
COVERAGE_TIMES = (
    "observedSeconds", "gapSeconds", "recoveredSeconds", "spanSeconds", "jobSeconds", "unknownSeconds",
    "boundedSeconds",
)  # fmt: skip
BASES_DIFFER = "bases_differ"
NODE_METHODS_DIFFER = "node_methods_differ"
NODE_METHOD_NOT_DECLARED = "node_method_not_declared"
_MORE = note("more_reasons")  # reasons than a sum lists
_INCOMPLETE = note("ledger_may_be_missing")


@dataclass(frozen=True, slots=True)
class LedgerSums:
    """The sums of some ledgers. Unknown stays unknown, as in sums of `Figures`; energy without a counter is None."""

    executed: Figures = NO_FIGURES
    by_evidence: Mapping[str, Figures] = field(default_factory=dict)
    methods: frozenset[str] = frozenset()
    energy_mj: int | None = None
    times_ns: Mapping[str, int] = field(default_factory=dict)
    gap_ns_by_reason: Mapping[str, int] = field(default_factory=dict)
    by_phase: Mapping[str, Figures] = field(default_factory=dict)
    guidelines: Guidelines = NOTHING_COUNTED
    counted: ArchitectureFigures | None = None  # the architecture basis of the ledgers that have one
    absent: frozenset[Note] = frozenset()  # why the others have none
    integers: Figures = NO_FIGURES
    integers_counted: Guidelines = NOTHING_COUNTED  # the integer operations that the Guidelines basis would count
    may_be_integer_flop: int = 0
    claimed: Claimed | None = None  # None: no process of these ledgers claims anything
    energy: Comparisons = field(default_factory=dict)  # energy per FLOP, compared with published runs

    def __add__(self, other: LedgerSums) -> LedgerSums:
        both = [counted for counted in (self.counted, other.counted) if counted is not None]
        return LedgerSums(
            self.executed + other.executed,
            sum_by_key((self.by_evidence, other.by_evidence)),
            self.methods | other.methods,
            sum_of_known((self.energy_mj, other.energy_mj)),
            added(self.times_ns, other.times_ns),
            added(self.gap_ns_by_reason, other.gap_ns_by_reason),
            sum_by_key((self.by_phase, other.by_phase)),
            self.guidelines + other.guidelines,
            both[0] + both[1] if len(both) == 2 else both[0] if both else None,
            self.absent | other.absent,
            self.integers + other.integers,
            self.integers_counted + other.integers_counted,
            self.may_be_integer_flop + other.may_be_integer_flop,
            None if self.claimed is None and other.claimed is None else self.as_claimed + other.as_claimed,
            sum_comparisons((self.energy, other.energy)),
        )

    @property
    def as_claimed(self) -> Claimed:
        """The claims; without any, the figures are the unclaimed ones."""
        return Claimed(self.guidelines, {}) if self.claimed is None else self.claimed

    def for_ledger(self, *, whole: bool = True) -> dict[str, Any]:
        """The sums in ledger form. Without the whole account no upper bound is known."""
        figures, integers = (one if whole else one.unbounded for one in (self.executed, self.integers))
        counted, of_integers = self.guidelines_of(whole=whole)
        architecture = self.counted if whole and not self.absent else None
        return {
            "totals": {
                "executed": {
                    **figures.for_ledger(),
                    "method": [name for name in METHODS if name in self.methods],
                    "mayBeIntegerFlop": str(self.may_be_integer_flop),
                    "byEvidence": {name: self.by_evidence[name].for_ledger() for name in sorted(self.by_evidence)},
                    "byPhase": {name: self.by_phase[name].for_ledger() for name in sorted(self.by_phase)},
                },
                "integerOperations": integers_for_ledger(integers, of_integers),
                "guidelines": counted.for_ledger(self.claims(whole=whole)),
                "architecture": None if architecture is None else architecture.for_ledger(),
                "architectureAbsentReasons": [] if architecture is not None else self._why_absent(),
            },
            "reconciliation": energy_for_ledger(self.energy),
            "energyJoules": joules(self.energy_mj),
            **{name: seconds(self.times_ns.get(name, 0)) for name in TIMES},
            "coverage": {
                **{name: seconds(self.times_ns.get(name, 0)) for name in COVERAGE_TIMES},
                "coveragePpm": text_or_none(
                    coverage_of(self.times_ns.get("jobSeconds", 0), self.times_ns.get("unknownSeconds", 0))
                ),
                "gapSecondsByReason": {n: seconds(self.gap_ns_by_reason[n]) for n in sorted(self.gap_ns_by_reason)},
            },
        }

    def _why_absent(self) -> list[dict[str, Any]]:
        """A limited number of reasons: a job may have thousands of nodes, and its children list all reasons."""
        reasons = sorted(notes_for_ledger((self.absent or {_INCOMPLETE}) - {_MORE}), key=_compact)
        more = [_MORE.for_ledger()] if _MORE in self.absent or len(reasons) > MOST_REASONS else []
        return [*reasons[:MOST_REASONS], *more]

    def guidelines_of(self, *, whole: bool) -> tuple[Guidelines, Guidelines]:
        """What counts of FLOP and of integer operations. Without the whole account no upper bound is known."""
        known = self.guidelines, self.integers_counted
        return known if whole else (known[0].unbounded, known[1].unbounded)

    def claims(self, *, whole: bool) -> Claimed | None:
        known = self.claimed
        return known if whole or known is None else replace(known, counted=known.counted.unbounded)


def sums_of_ledger(ledger: Mapping[str, Any]) -> LedgerSums:
    """The inverse of `for_ledger`. Raises KeyError, TypeError, ValueError, AttributeError on anything else."""
    totals, coverage = ledger["totals"], ledger["coverage"]
    executed, guidelines, architecture = totals["executed"], totals["guidelines"], totals["architecture"]
    integers, count = totals["integerOperations"], guidelines["operatorCount"]
    by_operators = whole_number(count["low"]), whole_number(count["cumulativeLow"])
    return LedgerSums(
        figures_from(executed),
        {str(name): figures_from(figures) for name, figures in executed["byEvidence"].items()},
        _methods_from(executed["method"]),
        None if ledger["energyJoules"] is None else millijoules(ledger["energyJoules"]),
        {
            **{name: nanoseconds(ledger[name]) for name in TIMES},
            **{name: nanoseconds(coverage[name]) for name in COVERAGE_TIMES},
        },
        {str(name): nanoseconds(text) for name, text in coverage["gapSecondsByReason"].items()},
        {str(name): figures_from(figures) for name, figures in executed["byPhase"].items()},
        replace(_guidelines_from(guidelines), by_operators=by_operators),
        None if architecture is None else figures_of_ledger(architecture),
        _reasons_from(totals["architectureAbsentReasons"], architecture),
        figures_from(integers),
        _guidelines_from(integers["guidelines"]),
        whole_number(executed["mayBeIntegerFlop"]),
        None if guidelines["asClaimed"] is None else _claimed_from(guidelines["asClaimed"]),
        energy_from(ledger["reconciliation"]),
    )


def _compact(said: Mapping[str, Any]) -> str:
    """A text for sorting that does not depend on the order of the members."""
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def _reasons_from(said: Iterable[Mapping[str, Any]], architecture: object) -> frozenset[Note]:
    """The reasons for a missing basis. There must be one, or the sum would treat the child as part of the basis."""
    notes = map(note_from, said)
    reasons = frozenset(Note(one.code, tuple(sorted(one.parameters))) for one in notes)
    if (architecture is None) != bool(reasons):
        raise ValueError("a child needs either an architecture basis or a reason why it has none, not both")
    return reasons


def node_sums(predicate: Mapping[str, Any], history: History) -> LedgerSums:
    """The sums of a node ledger with journal `history`, with the time up to its seal, as in its coverage."""
    sealed = as_of(history, str(predicate["method"]["sealedAt"]))
    tallies = [tally for incarnation in sealed.incarnations for tally in incarnation.tallies.values()]
    return sums_of_ledger(
        {
            **predicate,
            "nodeSeconds": predicate["wallSeconds"],
            "coverage": {
                **predicate["coverage"],
                "jobSeconds": seconds(sum(tally.job_ns for tally in tallies)),
                "unknownSeconds": seconds(sum(tally.unknown_ns for tally in tallies)),
                "boundedSeconds": seconds(sum(tally.known_ns(Evidence.UTILIZATION) for tally in tallies)),
            },
        }
    )


def _methods_from(listed: Iterable[str]) -> frozenset[str]:
    methods = frozenset(listed)
    if not methods or not methods <= {*METHODS}:
        raise ValueError("the method of the executed figure is missing or unknown")
    return methods


def _guidelines_from(entry: Mapping[str, Any]) -> Guidelines:
    return Guidelines(figures_from(entry), figures_from(entry["cumulative"]))


def _claimed_from(entry: Mapping[str, Any]) -> Claimed:
    """Claims of any process: a sum does not distinguish between processes."""
    claims = {_claim_of(claim): figures_from(claim["flop"]) for claim in entry["claims"]}
    if not claims:
        raise ValueError("asClaimed has no claims: it must be null where no process claims anything")
    return Claimed(_guidelines_from(entry), claims)


def _claim_of(claim: Mapping[str, Any]) -> tuple[str, str]:
    phase, label = claim["phase"], claim["precision"]
    if label is not None:
        split_bucket(f"{phase or Phase.TRAIN.value}@{label}")
    return "" if phase is None else Phase(phase).value, label or ""


@dataclass(slots=True)
class MergedDeclarations:
    """The combined declarations of a merged ledger's children, independent of their order."""

    _methods: set[str | None] = field(default_factory=set)
    _of_nodes: set[str | None] = field(default_factory=set)  # for a job whose nodes differ, in place of its own
    _bases: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _differ: bool = False  # already between the parts of one child
    _contradictions: set[Contradiction] = field(default_factory=set)

    def add(self, declared: Mapping[str, Any]) -> None:
        """Add the declarations of one child. Raises KeyError, TypeError or ValueError on anything else."""
        method, base = declared["method"], declared["base"]
        self._methods.add(None if method is None else Method(method).value)
        differ = [one["methods"] for one in declared["contradictions"] if one["code"] == NODE_METHODS_DIFFER]
        self._of_nodes.update(differ[0] if differ and method is not None else [method])
        if (parsed := base_from(base)) is not None:
            self._bases[repr(parsed)] = base
        for one in declared["contradictions"]:
            self._contradictions.add(Contradiction(one["name"], note_from(one, "name")))
            self._differ = self._differ or one["code"] == START_BASE_DIFFERS
            if one["code"] == NODE_METHOD_NOT_DECLARED:
                self._of_nodes.add(None)
        self._differ = self._differ or BASES_DIFFER in declared.get("conflict", ())

    @property
    def method(self) -> Method | None:
        """The method of the whole: pretraining if any part is, otherwise a modification if all methods are known."""
        if Method.PRETRAINING.value in self._methods:
            return Method.PRETRAINING
        if None in self._methods or not self._methods:
            return None
        declared = {method for method in self._methods if method is not None}
        return Method(declared.pop()) if len(declared) == 1 else Method.FULL

    @property
    def methods(self) -> tuple[Method | None, ...]:
        """The distinct methods of the nodes; None for a node that declares none."""
        return tuple(one for one in (*Method, None) if one in self._of_nodes)

    @property
    def base(self) -> Base | None:
        return base_from(self._base)

    def contradictions(self, policies: Sequence[Policy], *, one_job: bool) -> list[Contradiction]:
        """Contradictions within each child, about the base model of the whole, and between the nodes of one job."""
        found = {*self._contradictions, *of_bases([] if self.base is None else [self.base], policies)}
        methods = sorted(method for method in self._methods if method is not None)
        if one_job and len(methods) > 1:
            found.add(Contradiction("METHOD_DIFFERS", note(NODE_METHODS_DIFFER, methods=tuple(methods))))
        if one_job and self.method is not None and None in self._methods:
            found.add(Contradiction("METHOD_DIFFERS", Note(NODE_METHOD_NOT_DECLARED)))
        return sorted(found, key=lambda one: _compact(one.for_ledger()))

    @property
    def conflict(self) -> tuple[str, ...]:
        """Codes of contradictions between the children about the base model."""
        differ = self._differ or len(self._bases) > 1
        found = [BASES_DIFFER] if differ else []
        if (differ or self._bases) and self.method is Method.PRETRAINING:
            found.append(PRETRAINING_WITH_BASE)
        return tuple(found)

    @property
    def _base(self) -> Mapping[str, Any] | None:
        return next(iter(self._bases.values())) if len(self._bases) == 1 and not self._differ else None

    def for_ledger(self) -> dict[str, Any]:
        return {
            "method": None if self.method is None else self.method.value,
            "base": None if self._base is None else dict(self._base),
            "conflict": list(self.conflict),
        }
