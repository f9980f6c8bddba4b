"""The figures of the Model Documentation Form and of a notification, from a ledger's predicate. Pure.

The Form belongs to the Transparency chapter of the Code of Practice (10 July 2025); its rounding is in the policy.
Quantities that were not measured are given as bounds, never as figures. Names come from the ledger: whoever shows them
must treat them as untrusted text.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from flopsd.core.figures import Figures, figures_from
from flopsd.core.policy.contradictions import START_BASE_DIFFERS
from flopsd.core.policy.finding import OPERATOR_COUNT
from flopsd.core.policy.policy_file import FormRules, Policy
from flopsd.core.rounding import Towards, format_percent, magnitude, plain, scientific, significant
from flopsd.core.values import span_seconds, utc_ns
from flopsd.errors import PolicyError
from flopsd.report.contents.model import Form, FormLine
from flopsd.report.contents.model_documentation_texts import (
    base_note,
    compute_methodology,
    energy_methodology,
    notification,
    unmeasured,
)
from flopsd.report.ledger_json import is_complete, job_seconds, may_be_longer
from flopsd.report.numbers import beyond_margin
from flopsd.settings.words import ABSENT, say_all

DAY_S = 86_400
MONTH_DAYS = Fraction(365, 12)
JOULES_PER_MWH = 3_600_000_000
NOT_KNOWN = "not known"
NOT_APPLICABLE = "N/A"
_OF_THESE = ", by the ledgers that are here"  # missing ledgers may add more


def form(predicate: Mapping[str, Any], policy: Policy) -> Form:
    """The Form, filled from a ledger's predicate. Raises PolicyError if the policy has no form; KeyError, TypeError,
    ValueError for a malformed predicate."""
    if policy.form is None:
        raise PolicyError([f"policy {policy.id} has no form"], hint="use the packaged eu-ai-act policy")
    rules = policy.form
    method = compute_methodology(predicate)
    lines = (
        _size(predicate, rules),
        _wall_clock(predicate, rules),
        _hardware_days(predicate, rules),
        *_compute(predicate, rules),
        FormLine(
            "Measurement methodology, compute", method, "", "in the absence of a delegated act under Article 53(5)"
        ),
        _energy(predicate, rules),
        FormLine("Measurement methodology, energy", energy_methodology(predicate), "same"),
        _dependencies(predicate),
    )
    return Form(lines, notification(predicate, policy, method), policy.title)


def figure_text(figures: Figures, digits: int) -> tuple[str, str]:
    """The figure for the Form, and its bounds, rounded outward."""
    low = scientific(figures.low_flop, digits, Towards.DOWN)
    bounds = f"at least {low} FLOP; no upper bound is known"
    if figures.high_flop is not None:
        bounds = f"between {low} and {scientific(figures.high_flop, digits, Towards.UP)} FLOP"
    if figures.measured_flop is None:
        return f"not measured: {bounds}", ""
    return f"{scientific(figures.measured_flop, digits)} FLOP", bounds


def order_of_magnitude(figures: Figures, digits: int) -> str:
    """The order of magnitude of the figure as rounded for the AI Office, such as `10^22`; in parentheses the orders
    within its bounds. Without a measured figure, only these."""
    low = _power(figures.low_flop, digits, Towards.DOWN)
    if figures.high_flop is not None:
        high = _power(figures.high_flop, digits, Towards.UP)
        orders = low if low == high else f"orders of magnitude from {low} to {high}"
    else:
        orders = f"{low} or more" if figures.low_flop else NOT_KNOWN
    if figures.measured_flop is None:
        return orders
    point = _power(figures.measured_flop, digits, Towards.NEAREST)
    return point if orders == point else f"{point} ({'bounds ' if orders == NOT_KNOWN else ''}{orders})"


def band(days: Fraction, months: tuple[int, ...]) -> str:
    """The band of training time: `less than 1 month`, `1 to 3 months`, … A month is a twelfth of 365 days."""
    edges = [edge * MONTH_DAYS for edge in months]
    place = sum(days >= edge for edge in edges[:-1]) + (days > edges[-1])
    if place == 0:
        return f"less than {months[0]} month{'s' if months[0] != 1 else ''}"
    if place == len(months):
        return f"more than {months[-1]} months"
    return f"{months[place - 1]} to {months[place]} months"


def _size(predicate: Mapping[str, Any], rules: FormRules) -> FormLine:
    name, architecture = "Total model size", predicate["totals"]["architecture"]
    if predicate["kind"] != "node":  # ledgers add up FLOP, never the parameters of one model
        return FormLine(name, NOT_KNOWN, NOT_KNOWN, "it is in the node ledgers, where a model was declared")
    if architecture is None:
        reason = say_all(ABSENT, predicate["totals"][ABSENT]) or "the ledger does not say why"
        return FormLine(name, NOT_KNOWN, NOT_KNOWN, f"not computed from the model's architecture: {reason}")
    text = f"{scientific(int(architecture['parameters']['total']), rules.parameters_figures)} parameters"
    return FormLine(name, text, text, "counted from the declared architecture")


def _wall_clock(predicate: Mapping[str, Any], rules: FormRules) -> FormLine:
    name, figures = "Training time, wall clock", rules.hardware_days_figures
    if predicate["kind"] == "node":
        days = Fraction(predicate["wallSeconds"]) / DAY_S
        return FormLine(
            name, f"{plain(days, figures)} days", band(days, rules.bands_months), "the time that the meter ran"
        )
    note = "by the wall clock, from the first record to the last of all ledgers, pauses included"
    span_s = span_seconds(predicate["startedAt"], predicate["lastRecordAt"]) + 1  # fractions are dropped
    if utc_ns(predicate["startedAt"]) > utc_ns(predicate["lastRecordAt"]) or span_s < _longest_node_s(predicate):
        return FormLine(
            name, NOT_KNOWN, NOT_KNOWN, "by the wall clock it is less than the meter ran: that was set back"
        )
    days = Fraction(span_s, DAY_S)
    national = band(days, rules.bands_months)
    if days >= rules.bands_months[0] * MONTH_DAYS:
        national += ", pauses included"
    if is_complete(predicate):
        return FormLine(name, f"at most {plain(days, figures, Towards.UP)} days", national, note)
    # A missing node may have run for longer, so this is no bound in either direction.
    return FormLine(name, f"{plain(days, figures)} days{_OF_THESE}", f"{national}{_OF_THESE}", note)


def _longest_node_s(predicate: Mapping[str, Any]) -> Fraction:
    """The longest time that the daemon ran on one node, by the clock since boot; 0 for a lineage, whose jobs only have
    the sums over their nodes."""
    ran_s: dict[tuple[object, object], Fraction] = {}
    for child in predicate["children"] if predicate["kind"] == "job" else ():
        node = child["rank"], child["node"]
        ran_s[node] = ran_s.get(node, Fraction(0)) + Fraction(child["nodeSeconds"])
    return max(ran_s.values(), default=Fraction(0))


def _hardware_days(predicate: Mapping[str, Any], rules: FormRules) -> FormLine:
    whole_s = job_seconds(predicate["coverage"])
    by_model: dict[str, Fraction] = {}
    for device in predicate.get("devices", ()):
        by_model[device["model"]] = by_model.get(device["model"], Fraction(0)) + Fraction(device["spanSeconds"])
    note, about, towards = "device time of the job, idle time included", "", Towards.NEAREST
    if predicate["kind"] == "node" and not by_model:
        return FormLine("Training time, hardware", NOT_KNOWN, "", "no accelerator was metered")
    if not by_model and not whole_s:
        return FormLine("Training time, hardware", NOT_KNOWN, "", "no device time was metered")
    if not is_complete(predicate) or _has_open_gaps(predicate):
        about, towards = "at least ", Towards.DOWN
    if not by_model:
        by_model = {"accelerator": whole_s}
        note += "; their models are in the node ledgers"
    elif len(by_model) == 1:
        by_model = dict.fromkeys(by_model, whole_s)
    elif sum(by_model.values()) != whole_s:
        if about:
            why = "some gaps are of unknown length, and some time was another job's"
            return FormLine("Training time, hardware", NOT_KNOWN, "", why)
        about, towards = "at most ", Towards.UP
        note += "; some of it was another job's, or was metered by MIG slice"
    if any(device["parent"] for device in predicate.get("devices", ())):
        note += "; a MIG slice counts as a device"
    figures = rules.hardware_days_figures
    days = [f"{about}{plain(s / DAY_S, figures, towards)} {model} days" for model, s in sorted(by_model.items())]
    return FormLine("Training time, hardware", ", ".join(days), "", note)


def _has_open_gaps(predicate: Mapping[str, Any]) -> bool:
    return may_be_longer(predicate["coverage"]["gapSecondsByReason"])


def _compute(predicate: Mapping[str, Any], rules: FormRules) -> list[FormLine]:
    name = "Amount of computation used for training"
    guidelines = predicate["totals"]["guidelines"]
    rows = (
        (name, guidelines, "compute directly contributing to parameter updates"),
        (f"{name}, cumulative", guidelines["cumulative"], "what the systemic-risk threshold refers to"),
    )
    without = base_note(predicate)
    beside = f"; {without}" if without else ""
    here = "" if is_complete(predicate) else _OF_THESE
    return [
        _flop_line(line, figures_from(figures), rules, f"{what}{beside}{_unseen(predicate, figures)}", here)
        for line, figures, what in rows
    ]


def _unseen(predicate: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """The share of time that was not measured. A measured figure, which lacks that time, must not go without it."""
    if predicate["coverage"]["coveragePpm"] is None:
        return "; no device time was observed"
    missing = min(Fraction(1), sum(unmeasured(predicate)))
    if not missing:
        return ""
    least, towards = ("at least ", Towards.DOWN) if _has_open_gaps(predicate) else ("", Towards.UP)
    share = f"; {least}{format_percent(missing, towards)} of device time was not measured"
    if OPERATOR_COUNT in predicate["totals"]["executed"]["byEvidence"]:
        what = "lower bound" if figures["measured"] is None else "figure"
        return f"{share}: of that time the {what} holds only what training processes counted, which nobody checked"
    if figures["measured"] is not None:
        return f"{share} and is not in the figure"
    return share if figures["high"] is None else f"{share} and counts in the upper bound only"


def _flop_line(name: str, figures: Figures, rules: FormRules, what: str, here: str) -> FormLine:
    text, bounds = figure_text(figures, rules.flop_figures)
    note = "; ".join(filter(None, (bounds, beyond_margin(figures), what)))
    return FormLine(name, f"{text}{here}", order_of_magnitude(figures, rules.flop_figures), note)


def _energy(predicate: Mapping[str, Any], rules: FormRules) -> FormLine:
    name = "Energy used for training"
    if predicate["energyJoules"] is None:
        return FormLine(name, NOT_APPLICABLE, NOT_APPLICABLE, "no energy counter of an accelerator could be read")
    mwh = Fraction(predicate["energyJoules"]) / JOULES_PER_MWH
    uncounted = Fraction(predicate["energyUncountedSeconds"])
    whole = not uncounted and is_complete(predicate)
    # With missing energy this is a lower bound, which is rounded down.
    text = f"{plain(mwh, rules.energy_figures, Towards.NEAREST if whole else Towards.DOWN)} MWh"
    note = "accelerators only: hosts, network and cooling are not included"
    if uncounted:
        least, towards = ("at least ", Towards.DOWN) if _has_open_gaps(predicate) else ("", Towards.NEAREST)
        days = plain(uncounted / DAY_S, rules.energy_figures, towards)
        note += f"; {least}{days} device days without an energy reading"
    if not whole:
        text = f"at least {text}"
    return FormLine(name, text, text, note)


def _dependencies(predicate: Mapping[str, Any]) -> FormLine:
    declared = predicate["declared"]
    base, method = declared["base"], declared["method"]
    conflict = say_all("declared.conflict", declared.get("conflict", ()))  # only in a merged ledger
    of_starts = [one for one in declared.get("contradictions", ()) if one["code"] == START_BASE_DIFFERS]
    conflict = conflict or say_all("declared.contradictions", of_starts)
    if base is not None:
        name = base["name"] or "a base model whose name is not declared"
        return FormLine("Model dependencies", name, "", f"as declared; {conflict}" if conflict else "as declared")
    if method == "pretraining" and not conflict:
        return FormLine("Model dependencies", NOT_APPLICABLE, "", "declared as trained from the start")
    return FormLine("Model dependencies", NOT_KNOWN, "", conflict or "no base model is declared")


def _power(flop: int, figures: int, towards: Towards) -> str:
    digits, exponent = significant(flop, figures, towards)
    return f"10^{exponent + magnitude(digits)} FLOP" if digits else "0 FLOP"
