"""Estimate a planned training: FLOP by the model's architecture, hours, costs, and the share of each threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from flopsd.core.architecture import ArchitectureFlop, Bounds, Model, Parameters, Training, adapters, flop, parameters
from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Base, Method
from flopsd.core.figures import Figures
from flopsd.core.model import PPM
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.finding import Finding
from flopsd.core.policy.guidelines import Guidelines
from flopsd.core.policy.policy_file import Policy
from flopsd.core.rounding import format_usd
from flopsd.core.values import ceil_div
from flopsd.report.estimate.planned_hardware import Hardware, Mfu, Need, need_of

_PRICE_FIGURES = 8  # enough to show a price as given
ALONE = (
    "its lineage has no earlier training, no data is generated for it, and no other model, such as a reference or a "
    "teacher, processes its tokens: all that counts is this model's forward and backward passes"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned training. `training` leaves the method open: each of `methods` is estimated."""

    model: Model
    work: Mapping[str, int]
    training: Training
    methods: tuple[Method, ...]
    hardware: tuple[Hardware, ...]
    mfu: Mfu
    base: Base | None
    policies: tuple[Policy, ...]
    streamed: Mapping[str, int] | None  # the same work where a row may hold the end of an epoch and the next
    assumed: tuple[str, ...]  # assumptions made where the user left something open, in words


@dataclass(frozen=True, slots=True)
class Option:
    """One way to train. `needs`: one for each hardware of the plan."""

    method: Method
    trainable: Bounds | None
    flop: ArchitectureFlop
    needs: tuple[Need, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """`assumed` and `not_known` are texts: the assumptions of the figures, and the facts that would narrow them."""

    plan: Plan
    parameters: Parameters
    options: tuple[Option, ...]
    assumed: tuple[str, ...]
    not_known: tuple[str, ...]


def estimate(plan: Plan) -> Estimate:
    """Estimate every method of the plan. Raises ArchitectureError if the work does not fit the model."""
    options = tuple(_option(plan, method) for method in plan.methods)
    return Estimate(plan, parameters(plan.model), options, tuple(_assumed(plan)), tuple(_not_known(plan.model)))


def _assumed(plan: Plan) -> Iterator[str]:
    yield from plan.assumed
    if plan.hardware:
        yield "hours: all devices compute at that MFU all the time; no start, stop, failure or evaluation is in them"
    prices = {one.name: one.price for one in plan.hardware if one.price is not None}
    for name, price in prices.items():
        usd = format_usd(price, figures=_PRICE_FIGURES)
        yield f"price of {name}: {usd} an hour, as given; the cost covers the hours only"


def _not_known(model: Model) -> Iterator[str]:
    """For a model of which only the size is known: the missing facts, and the options that give them."""
    size = model.bare
    if size is None:
        return
    if size.active is None:
        yield (
            "how many of the parameters a token goes through: all of a dense model (--dense), few of a mixture of "
            "experts (--active-parameters)"
        )
    elif size.embedding is None:
        yield "how many parameters are looked up and not multiplied (--embedding-parameters)"
    if size.layers is None:
        yield "how much attention there is, beyond what the size allows (--layers with --attention-width)"


def work_from_lengths(tokens: int, length: int, target: int | None, epochs: int = 1) -> dict[str, int]:
    """Counters of a planned work: in each epoch sequences of `length` tokens and one rest; with a target length for
    each."""
    whole, rest = divmod(tokens, length)
    sequences, tokens = epochs * (whole + (rest > 0)), epochs * tokens
    work = {"tokens": tokens, "sequences": sequences, "square_pairs": epochs * (whole * length**2 + rest**2)}
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
    if plan.streamed is not None:
        other = flop(plan.model, plan.streamed, training)
        required, executed = found.required | other.required, found.executed | other.executed
        found = replace(found, required=required, executed=executed)
    needs = tuple(need_of(found.required, hardware, plan.mfu) for hardware in plan.hardware)
    verdicts = [one for policy in plan.policies for one in findings(policy, _case(plan, method, found, policy))]
    return Option(method, _trainable(plan, training), found, needs, tuple(verdicts))


def _case(plan: Plan, method: Method, found: ArchitectureFlop, policy: Policy) -> Case:
    """A planned run as the case of a policy: nothing is measured, and the policy's margin for estimates applies."""
    low, high = found.required.low, found.required.high
    margin = policy.margin_ppm
    figures = Figures(low * (PPM - margin) // PPM, None, ceil_div(high * (PPM + margin), PPM))
    return Case(Guidelines(figures, figures), method, plan.base)


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


def methods_of(names: Sequence[str] | None) -> tuple[Method, ...]:
    """The named methods without repeats; by default the three that are worth comparing before a fine-tuning."""
    return tuple(dict.fromkeys(map(Method, names))) if names else (Method.FULL, Method.LORA, Method.QLORA)
