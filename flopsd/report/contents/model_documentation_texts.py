"""The free texts of the Form and of a notification, about a hundred words each, built from a ledger's facts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from flopsd.core.declarations import Method
from flopsd.core.figures import figures_from
from flopsd.core.ledger.statement import NO_METHOD
from flopsd.core.model import PPM, Evidence, Pipe
from flopsd.core.phases import PROCESS
from flopsd.core.policy.policy_file import FormRules, Policy
from flopsd.core.rounding import Towards, format_percent, scientific
from flopsd.core.rows import UNDECLARED
from flopsd.core.values import NS_PER_S, nanoseconds
from flopsd.report.claims import required_source
from flopsd.report.contents.bases import SOME_READ_NOTHING
from flopsd.report.ledger_json import is_complete, job_seconds, may_be_longer
from flopsd.report.numbers import beyond_margin
from flopsd.report.rule_words import doubt, of_compute_alone
from flopsd.report.terminal import sentence
from flopsd.settings.data_files import is_packaged
from flopsd.settings.words import say, say_all

_QUANTITIES = {
    "updates": "compute directly contributing to parameter updates",
    "cumulative": "cumulative training compute",
    "base+updates": "compute directly contributing to parameter updates, with the base model's compute",
    "base+cumulative": "cumulative training compute, with the base model's compute",
}
_TENSOR = (Pipe.TENSOR.value, Pipe.TENSOR_HMMA.value)  # only a declaration shows their number format
_MOST_TABLES = 3  # that are named
_DECLARED_BASE = "the base model's part of it is declared, not measured"


def compute_methodology(predicate: Mapping[str, Any]) -> str:
    """How the compute was measured: evidence, coverage, deductions and uncertainty."""
    executed, guidelines = predicate["totals"]["executed"], predicate["totals"]["guidelines"]
    sentences = [
        _measured_from(_flopsd(predicate), executed),
        "Every number format counts alike; a fused multiply-add is two operations; rates are dense.",
        *_own_rates(predicate),
        *_assumed_format(predicate),
        *_coverage(predicate, guidelines["high"]),
    ]
    if "requiredPpmSource" in guidelines:  # a merged ledger may have several sources
        sentences.append(sentence(f"Recomputation of activations: {required_source(guidelines)}"))
    sentences.append(sentence(say("guidelines.method", guidelines["method"])))
    sentences += [*_reservations(predicate), _uncertainty(guidelines, executed)]
    return " ".join(sentences)


def energy_methodology(predicate: Mapping[str, Any]) -> str:
    """How the energy was measured and its boundary, or what is missing."""
    if predicate["energyJoules"] is None:
        return (
            "Missing: no energy counter of an accelerator could be read, and energy is not estimated. It takes an "
            "accelerator and driver with an energy counter, or a figure from the provider of the hardware."
        )
    sentences = [
        "Sum of the accelerators' own energy counters, as differences between readings.",
        "The boundary is the accelerators, as their counters draw it: hosts, storage, network and cooling are outside.",
    ]
    uncounted, whole = Fraction(predicate["energyUncountedSeconds"]), job_seconds(predicate["coverage"])
    if uncounted:
        is_open = may_be_longer(predicate["coverage"]["gapSecondsByReason"])
        least, towards = ("at least ", Towards.DOWN) if is_open else ("", Towards.UP)
        share = f" ({least}{format_percent(uncounted / whole, towards)} of device time)" if whole else ""
        sentences.append(f"Some device time has no energy reading{share}, so the figure is a lower bound.")
    return " ".join([*sentences, *_reservations(predicate)])


def notification(predicate: Mapping[str, Any], policy: Policy, method: str) -> tuple[str, ...]:
    """The part on compute of a notification under Article 52(1) (Guidelines, paragraph 31), line by line. Empty unless
    a rule that asks for one applies and is certainly crossed."""
    notifying = {rule.id for rule in policy.rules if rule.notify}
    above = [
        found
        for found in predicate["findings"]
        if found["policy"] == policy.id
        and found["rule"] in notifying
        and found["applies"] is True
        and found["state"] == "above"
    ]
    if not above or policy.form is None:
        return ()
    parts = ["Information for a notification under Article 52(1) of Regulation (EU) 2024/1689."]
    for found in above:
        met = f"Requirement met: {found['title']} ({found['citation']})."
        parts.append(" ".join(filter(None, (met, doubt(found["status"]), of_compute_alone(found["otherConditions"])))))
        parts.append(_amount(found, policy.form, base_note(predicate)))
    return (*parts, f"Approach: {method}")


def base_note(predicate: Mapping[str, Any]) -> str:
    """A note that a base model's compute was not metered; empty if the model is trained from the start."""
    declared = predicate["declared"]
    method, base = declared["method"], declared["base"]
    if method == Method.PRETRAINING.value and base is None and not declared.get("conflict"):
        return ""
    if method in (None, Method.PRETRAINING.value) or base is None:
        return "a base model's compute, if there is one, is not in it"
    return "of the modification; the base model's compute is not in it"


def _amount(found: Mapping[str, Any], rules: FormRules, without: str) -> str:
    value, figures, quantity = found["value"], rules.notification_figures, " or ".join(found["quantities"])
    low = scientific(int(value["low"]), figures, Towards.DOWN)
    high = None if value["high"] is None else scientific(int(value["high"]), figures, Towards.UP)
    amount = f"at least {low} FLOP" if high is None else f"between {low} and {high} FLOP"
    if value["measured"] is not None:
        amount = f"{scientific(int(value['measured']), figures)} FLOP ({amount})"
    of_base = _DECLARED_BASE if quantity.startswith("base+") else without
    parts = (f"Amount: {amount}", beyond_margin(figures_from(value)), _QUANTITIES.get(quantity, quantity), of_base)
    return "; ".join(filter(None, parts)) + "."


def _flopsd(predicate: Mapping[str, Any]) -> str:
    """The versions that metered; of a merged ledger those that sealed its ledgers, since it lists no others."""
    if "incarnations" in predicate:
        return f"flopsd {', '.join(sorted({start['flopsdVersion'] for start in predicate['incarnations']}))}"
    return f"flopsd (ledgers of version {', '.join(predicate['method']['flopsdVersions'])})"


def _own_rates(predicate: Mapping[str, Any]) -> list[str]:
    """A sentence on peak tables that flopsd does not ship: their rates are those of whoever metered."""
    named = predicate["method"]["peakTableSha256"]
    tables = [named] if isinstance(named, str) else named
    own = [sha256 for sha256 in tables if not is_packaged(sha256)]
    whose = "The rates are" if len(own) == len(tables) else "The rates of some ledgers are"
    more = f" and {len(own) - _MOST_TABLES} more" if len(own) > _MOST_TABLES else ""
    of = f"{'peak tables' if len(own) > 1 else 'the peak table'} of SHA-256 {', '.join(own[:_MOST_TABLES])}{more}"
    return [f"{whose} not flopsd's own, but those of {of}."] if own else []


def _measured_from(flopsd: str, executed: Mapping[str, Any]) -> str:
    methods = [code for code in executed["method"] if code != NO_METHOD]  # a merged ledger has those of all its ledgers
    known = say_all("executed.method", methods)
    if not known:
        high = "no upper bound is known" if executed["high"] is None else "the upper bound is a ceiling"
        return f"Metered with {flopsd}, which read no counter that gives an estimate: {high}."
    some = f"; {SOME_READ_NOTHING}" if NO_METHOD in executed["method"] else ""
    return f"Measured with {flopsd} from {known}{some}."


def _assumed_format(predicate: Mapping[str, Any]) -> list[str]:
    """State the assumption behind a figure of undeclared tensor work: no counter distinguishes FP16, BF16 and FP8."""
    assumed = (
        "the estimate takes dense BF16 (FP16 on a part without it), the lower bound the slowest and the upper bound "
        "the fastest format of the part."
    )
    if predicate["kind"] != "node":
        return [f"Where a node's ledger has tensor work whose number format was not declared, {assumed}"]
    rows = [row for device in predicate["devices"] for row in device["work"]]
    if any(row["pipe"] in _TENSOR and row["precision"] == UNDECLARED and int(row["smCycles"]) for row in rows):
        return [f"The number format of some tensor work was not declared: for it {assumed}"]
    if any(row.get("precisionDeclaredBy") == PROCESS for row in rows):
        return ["The estimate takes the number format that training processes declare, and the bounds any of the part."]
    return []


def unmeasured(predicate: Mapping[str, Any]) -> tuple[Fraction, Fraction]:
    """The shares of the job's device time for which nothing was read, and for which only a ceiling was read."""
    coverage = predicate["coverage"]
    if coverage["coveragePpm"] is None:
        return Fraction(0), Fraction(0)
    if predicate["kind"] == "node":
        rows = [row for device in predicate["devices"] for row in device["work"]]
        bounded = [row["seconds"] for row in rows if row["evidence"] == Evidence.UTILIZATION.value]
    else:
        bounded = [coverage["boundedSeconds"]]
    # Read strictly: a Fraction would accept an untrusted 1e999999999, a very long number.
    bounded_s = Fraction(sum(map(nanoseconds, bounded)), NS_PER_S)
    return 1 - Fraction(int(coverage["coveragePpm"]), PPM), bounded_s / job_seconds(coverage)


def _coverage(predicate: Mapping[str, Any], high: str | None) -> list[str]:
    if predicate["coverage"]["coveragePpm"] is None:
        return ["No device time was observed."]
    unseen, bounded = unmeasured(predicate)
    most = "at most " if may_be_longer(predicate["coverage"]["gapSecondsByReason"]) else ""
    observed = f"Of the devices' time {most}{format_percent(1 - unseen, Towards.DOWN)} was observed"
    if bounded:
        observed += f", {format_percent(bounded, Towards.UP)} by a ceiling alone"
    if high is None or not unseen + bounded:
        return [f"{observed}."]
    if Evidence.OPERATOR_COUNT.value in predicate["totals"]["executed"]["byEvidence"]:
        how = "at the most that the devices can do; the estimate and the lower bound hold of it only what training "
        how += "processes counted, which nobody checked."
    else:
        how = "only, at the most that the devices can do."
    return [f"{observed}.", f"Unmeasured time counts in the upper bound {how}"]


def _reservations(predicate: Mapping[str, Any]) -> list[str]:
    found = []
    if predicate["replay"] is not None:
        is_node = predicate["kind"] == "node"
        what = "This is a replayed recording" if is_node else "Replayed recordings are in the sums"
        found.append(f"{what}, {'not a' if is_node else 'which are no'} measurement of a machine.")
    if not is_complete(predicate):
        summary = say("completeness.summary", predicate["completeness"]["summary"])
        found.append(sentence(f"The ledgers may be incomplete: {summary}"))
    return found


def _uncertainty(figures: Mapping[str, Any], executed: Mapping[str, Any]) -> str:
    if figures["measured"] is None:
        why = (
            "nothing that was read gives one"
            if executed["measured"] is None
            else "what was measured and declared leaves it open"
        )
        ends = "a lower bound is given, and no upper bound is known" if figures["high"] is None else "bounds are given"
        return f"No estimate is given, since {why}: only {ends}."
    if figures["high"] is None:
        return "No upper bound is known."
    measured = int(figures["measured"])
    if measured == 0:
        return "Lower and upper bounds are given beside the estimate."
    down = format_percent(Fraction(measured - int(figures["low"]), measured), Towards.UP)
    up = format_percent(Fraction(int(figures["high"]) - measured, measured), Towards.UP)
    return f"The true value may be {down} lower or {up} higher than the estimate."
