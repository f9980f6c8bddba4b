"""Before a run: what a training will cost in FLOP by the model's architecture, in hours, and of each threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from flopsd.core.architecture import ArchitectureFlop, Bounds, Model, Parameters, Training, adapters, flop, parameters
from flopsd.core.declarations import Base, Method
from flopsd.core.model import PPM, Figures
from flopsd.core.part import Part
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.finding import Finding
from flopsd.core.policy.policy_file import Policy
from flopsd.core.rounding import Towards, divided, format_rate
from flopsd.core.values import ceil_div
from flopsd.errors import UnknownDeviceError

ALONE = "no data is generated for it and its lineage has no earlier training: cumulative compute is that of its updates"


@dataclass(frozen=True, slots=True)
class Hardware:
    """`devices` of one part of the peak table; their dense datasheet peak in one number format, added up."""

    name: str
    part: str
    devices: int
    number_format: str
    peak_flop_per_s: int
    disputed_peak_flop_per_s: int  # what other sources say; else the same
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mfu:
    """The share of the datasheet peak that required FLOP are done at. `source` states whether it was measured."""

    low: Fraction
    high: Fraction
    source: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A training that is planned. `training` leaves the method open: each of `methods` is estimated."""

    model: Model
    work: Mapping[str, int]
    training: Training
    methods: tuple[Method, ...]
    hardware: Hardware | None
    mfu: Mfu
    base: Base | None
    policies: tuple[Policy, ...]
    assumed: tuple[str, ...] = (ALONE,)  # what the user left open and was filled in, in words


@dataclass(frozen=True, slots=True)
class Option:
    """One way to train. `hours` are of wall clock, between all FLOP at the best MFU and at the worst."""

    method: Method
    trainable: Bounds | None
    flop: ArchitectureFlop
    hours: tuple[Fraction, Fraction] | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    plan: Plan
    parameters: Parameters
    options: tuple[Option, ...]


def estimate(plan: Plan) -> Estimate:
    """Every method of the plan. Raises ArchitectureError where the model and the work do not go together."""
    return Estimate(plan, parameters(plan.model), tuple(_option(plan, method) for method in plan.methods))


def hardware_from(table: PeakTable, name: str, count: int, devices: int | None, number_format: str) -> Hardware:
    """`count` instances of a SageMaker type with `devices` each, or `count` devices of a part of the table.

    Raises UnknownDeviceError where the table does not know the name, the number of devices or the format's peak.
    """
    instance = table.instances.get(name)
    part = table.parts.get(name if instance is None else instance.accelerator)
    if part is None:
        raise UnknownDeviceError(
            f"{name!r:.60} is no SageMaker instance type and no part that the peak table has",
            hint=f"parts: {', '.join(table.parts)}",
        )
    each = devices or (1 if instance is None else instance.count)
    if each is None:
        raise UnknownDeviceError(
            f"no source has the number of accelerators of {name}", hint="give it with --devices-per-instance"
        )
    peak = peak_flop_per_s(part, number_format)
    if peak is None:
        known = dict.fromkeys(of for _, of, _ in part.datasheet_peaks())
        raise UnknownDeviceError(
            f"the peak table has no datasheet peak of {part.id} in {number_format}",
            hint=f"it has {', '.join(known) or 'none'}: choose with --format",
        )
    doubts = []
    rates = f"the rates of {part.id} are {part.status}"
    if peak[1] > peak[0]:
        doubts.append(f"{rates}: the shortest time assumes {format_rate(peak[1])} each, as others publish it")
    elif part.status != "published":
        doubts.append(rates)
    if instance is not None and devices is None and instance.status != "published":
        doubts.append(f"that {name} has {each} is {instance.status}")
    devices_in_all = count * each
    return Hardware(
        name, part.id, devices_in_all, number_format, devices_in_all * peak[0], devices_in_all * peak[1], tuple(doubts)
    )


def peak_flop_per_s(part: Part, number_format: str, slice_sm_count: int | None = None) -> tuple[int, int] | None:
    """The dense datasheet peak of a device, or of a MIG slice of so many SMs: as the table has it, and the highest
    that a disputed rate gives. None where the table has no peak in that format."""
    disputed = replace(
        part, tensor_flop_per_cycle={**part.tensor_flop_per_cycle, **part.disputed_tensor_flop_per_cycle}
    )
    found = [{of: peak for _, of, peak in one.datasheet_peaks(slice_sm_count)} for one in (part, disputed)]
    if number_format not in found[0]:
        return None
    return found[0][number_format], max(one[number_format] for one in found)


def work_from_lengths(tokens: int, length: int | None, target: int | None) -> dict[str, int]:
    """Counters of a planned work: sequences of `length` tokens and one rest; with a target length for each.

    Without a length the pairs of attention are left out, and stay an interval.
    """
    if length is None:
        return {"tokens": tokens}
    whole, rest = divmod(tokens, length)
    sequences = whole + (rest > 0)
    work = {"tokens": tokens, "sequences": sequences, "square_pairs": whole * length**2 + rest**2}
    if target is not None:
        work |= {
            "target_tokens": sequences * target,
            "target_square_pairs": sequences * target**2,
            "cross_pairs": tokens * target,
        }
    return work


def _option(plan: Plan, method: Method) -> Option:
    adapted = method in (Method.LORA, Method.QLORA)
    training = replace(plan.training, method=method, lora=plan.training.lora if adapted else None)
    found = flop(plan.model, plan.work, training)
    hours = None
    if plan.hardware is not None:
        fastest, surest = plan.hardware.disputed_peak_flop_per_s, plan.hardware.peak_flop_per_s
        hours = (
            found.required.low / (3600 * fastest * plan.mfu.high),
            found.required.high / (3600 * surest * plan.mfu.low),
        )
    verdicts = [one for policy in plan.policies for one in findings(policy, _case(plan, method, found, policy))]
    return Option(method, _trainable(plan, training), found, hours, tuple(verdicts))


def _case(plan: Plan, method: Method, found: ArchitectureFlop, policy: Policy) -> Case:
    """A planned run as the account of a lineage. By its own margin an estimate may be off; nothing is measured."""
    low, high = found.required.low, found.required.high
    margin = policy.margin_ppm
    figures = Figures(low * (PPM - margin) // PPM, None, ceil_div(high * (PPM + margin), PPM))
    return Case(figures, figures, method, plan.base)


def _trainable(plan: Plan, training: Training) -> Bounds | None:
    if training.trainable is not None:
        return Bounds(training.trainable, training.trainable, training.trainable)
    if training.method in (Method.FULL, Method.PRETRAINING):
        total = parameters(plan.model).total
        return Bounds(total, total, total)
    lora = training.lora
    if plan.model.bare is not None or lora is None or lora.target_modules is None:
        return None
    plain, more = (adapters(plan.model, lora, ambiguous=some) for some in (False, True))
    return Bounds(plain, plain, more)


def as_dict(found: Estimate) -> dict[str, Any]:
    """The estimate as JSON without floats: counts, hours and shares are decimal strings."""
    plan, hardware = found.plan, found.plan.hardware
    return {
        "model": {
            "family": plan.model.family,
            "parameters": str(found.parameters.total),
            "active": str(found.parameters.active),
            "embedding": str(found.parameters.embedding),
        },
        "work": {name: str(value) for name, value in plan.work.items()},
        "hardware": None
        if hardware is None
        else {
            "name": hardware.name,
            "part": hardware.part,
            "devices": str(hardware.devices),
            "format": hardware.number_format,
            "peakFlopPerSecond": str(hardware.peak_flop_per_s),
            "doubts": list(hardware.doubts),
        },
        "mfu": {**_ends(plan.mfu.low, plan.mfu.high), "source": plan.mfu.source},
        "assumed": list(plan.assumed),
        "options": [_option_dict(option) for option in found.options],
    }


def _option_dict(option: Option) -> dict[str, Any]:
    return {
        "method": option.method.value,
        "trainable": None if option.trainable is None else option.trainable.for_ledger(),
        "required": option.flop.required.for_ledger(),
        "executed": option.flop.executed.for_ledger(),
        "terms": {name: str(value) for name, value in option.flop.terms.items()},
        "assumptions": list(option.flop.assumptions),
        "hours": None if option.hours is None else _ends(*option.hours),
        "findings": [finding.for_ledger() for finding in option.findings],
    }


def _ends(low: Fraction, high: Fraction) -> dict[str, str]:
    return {"low": _decimal(low, Towards.DOWN), "high": _decimal(high, Towards.UP)}


def _decimal(number: Fraction, towards: Towards) -> str:
    """Three decimals."""
    thousandths = divided(1000 * number.numerator, number.denominator, towards)
    return f"{thousandths // 1000}.{thousandths % 1000:03}"


def methods_of(names: Sequence[str] | None) -> tuple[Method, ...]:
    """Those named, without repeats; else the three that are worth comparing before a fine-tuning."""
    return tuple(dict.fromkeys(map(Method, names))) if names else (Method.FULL, Method.LORA, Method.QLORA)
