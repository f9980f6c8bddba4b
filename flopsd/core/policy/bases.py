"""The bases of a run: what was executed, what the guidelines count of it, what model and tokens require. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopsd.core.architecture import Bounds, bare_model, flop, forward_flop, parameters, read_model, training_from
from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.model import NO_FIGURES, PPM, UNDECLARED_PHASE, Figures
from flopsd.core.policy.guidelines import Guidelines, Required, guidelines, required_share
from flopsd.core.policy.reconcile import ArchitectureFigures
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.values import added
from flopsd.errors import ArchitectureError

_MODEL_FACTS = (
    "model_config", "parameters_total", "parameters_trainable", "lora", "method", "recomputation", "attention",
    "packing", "window",
)  # fmt: skip
_NO_MODEL = (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError)
NO_PROCESS = "no training process declared its model and its tokens"


@dataclass(frozen=True, slots=True)
class Architecture:
    """FLOP counted from model and tokens; `training_executed` is the training's part of what was executed."""

    counted: ArchitectureFigures
    training_executed: Bounds
    parameters_total: int
    parameters_active: int
    parameters_trainable: int | None
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declarations:
    """What follows from declarations alone. `absent` says why there is no architecture basis."""

    method: Method | None
    recomputation: Recomputation | None
    base: Base | None
    required: Required
    architecture: Architecture | None
    absent: str
    framework_flop: int | None


@dataclass(frozen=True, slots=True)
class Bases:
    """The bases of one run, and what they rest on."""

    by_phase: Mapping[str, Figures]
    executed: Figures
    guidelines: Guidelines
    integers: Guidelines  # of integer operations, which only some policies count
    declarations: Declarations


def declarations_of(declared: OperatorDeclarations, sessions: Sequence[DeclaredSession]) -> Declarations:
    """What settings and training processes declare, taken together; settings take precedence."""
    method = declared.method or _agreed(sessions, "method", Method)
    recomputation = declared.recomputation or _agreed(sessions, "recomputation", Recomputation)
    counted_as = method or _all_weights(sessions)
    found, absent = _architecture(sessions, counted_as, recomputation)
    share = required_share(counted_as, recomputation)
    if found is not None:
        share = _share_of(found, share)
    counts = [counters.get("framework_flop", 0) for session in sessions for counters in session.work.values()]
    return Declarations(method, recomputation, declared.base, share, found, absent, max(counts, default=0) or None)


NO_DECLARATIONS = Declarations(None, None, None, required_share(None, None), None, NO_PROCESS, None)


Parts = Sequence[Mapping[str, Figures]]


def run_bases(flop: Parts, integers: Parts, executed: Figures, declared: Declarations) -> Bases:
    """The bases of FLOP and integer operations by phase, one mapping for each tally; `executed` is the sum of FLOP."""
    by_phase = _added_up(flop)
    return Bases(
        by_phase,
        executed,
        guidelines(by_phase, declared.required),
        guidelines(_added_up(integers), declared.required),
        declared,
    )


def _added_up(parts: Parts) -> dict[str, Figures]:
    by_phase: dict[str, Figures] = {}
    for part in parts:
        for phase, figures in part.items():
            by_phase[phase] = by_phase.get(phase, NO_FIGURES) + figures
    return by_phase if parts else {UNDECLARED_PHASE: Figures(0, None, None)}  # without a device it is not known


def _agreed(sessions: Sequence[DeclaredSession], fact: str, kind: Any) -> Any:
    """The value that all processes declaring it agree on; None where they differ or none declares it."""
    declared = {session.facts[fact] for session in sessions if fact in session.facts}
    return kind(declared.pop()) if len(declared) == 1 else None


def _all_weights(sessions: Sequence[DeclaredSession]) -> Method | None:
    """Whether every process trains all weights: that costs the same in pretraining and in fine-tuning."""
    sizes = [(s.facts.get("parameters_total"), s.facts.get("parameters_trainable")) for s in sessions if s.work]
    return Method.FULL if sizes and all(total and total == trainable for total, trainable in sizes) else None


def _architecture(
    sessions: Sequence[DeclaredSession], method: Method | None, recomputation: Recomputation | None
) -> tuple[Architecture | None, str]:
    working = [session for session in sessions if session.work]
    if not working:
        return None, NO_PROCESS
    groups: dict[str, tuple[dict[str, Any], dict[str, dict[str, int]]]] = {}
    for session in working:
        facts = {name: session.facts[name] for name in _MODEL_FACTS if name in session.facts}
        if method is not None:
            facts["method"] = method.value
        if recomputation is not None:
            facts["recomputation"] = recomputation.value
        _, work = groups.setdefault(json.dumps(facts, sort_keys=True), (facts, {}))
        for phase, counters in session.work.items():
            work[phase] = added(work.get(phase, {}), counters)
    try:
        found = [_of_model(facts, work) for facts, work in groups.values()]
    except ArchitectureError as fault:
        return None, str(fault)
    except _NO_MODEL as fault:  # a process may declare anything, and must not stop the metering with it
        return None, f"what a process declared of its model is not of the types that flopsd knows: {fault!r:.100}"
    whole = found[0]
    for more in found[1:]:
        whole = Architecture(
            whole.counted + more.counted,
            whole.training_executed + more.training_executed,
            max(whole.parameters_total, more.parameters_total),
            max(whole.parameters_active, more.parameters_active),
            None,
            tuple(dict.fromkeys((*whole.assumptions, *more.assumptions))),
        )
    return whole, ""


def _of_model(facts: Mapping[str, Any], work: Mapping[str, Mapping[str, int]]) -> Architecture:
    config = facts.get("model_config")
    model = read_model(config) if config is not None else bare_model(facts.get("parameters_total", 0))
    training = training_from(facts)
    nothing = Bounds(0, 0, 0)
    train, required, trained_executed = work.get(Phase.TRAIN.value, {}), nothing, nothing
    assumptions: tuple[str, ...] = ()
    if train.get("tokens"):
        trained = flop(model, train, training)
        required, trained_executed, assumptions = trained.required, trained.executed, trained.assumptions
    executed = trained_executed
    for phase, counters in work.items():
        if phase != Phase.TRAIN.value and counters.get("tokens"):
            executed += forward_flop(model, counters, training)
    sizes = parameters(model)
    return Architecture(
        ArchitectureFigures(required, executed, train.get("tokens", 0)),
        trained_executed,
        sizes.total,
        sizes.active,
        facts.get("parameters_trainable"),
        assumptions,
    )


def _share_of(found: Architecture, known: Required) -> Required:
    """The share by the model's own arithmetic, where its training was counted and its recomputation is known."""
    needed, did = found.counted.required, found.training_executed
    pairs = ((needed.low, did.low), (needed.computed, did.computed), (needed.high, did.high))
    if known.stated_ppm is None or not all(whole for _, whole in pairs):
        return known
    shares = [min(PPM, part * PPM // whole) for part, whole in pairs]
    # What the terms leave out, such as the optimizer, is executed and not recomputed: no upper end below 1 is certain.
    return Required(min(known.stated_ppm, *shares), shares[1], PPM, f"{known.source}; by the model's own terms")
