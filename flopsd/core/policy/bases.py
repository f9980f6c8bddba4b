"""The bases of a run: what was executed, what the guidelines count of it, what model and tokens require. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flopsd.core.architecture import training_from, why_not_read
from flopsd.core.declarations import NOTHING_DECLARED, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.figures import added_up
from flopsd.core.model import PPM, UNDECLARED_PHASE, Figures
from flopsd.core.policy.guidelines import (
    LEAST_PPM,
    Claimed,
    Claims,
    Guidelines,
    Required,
    guidelines,
    measured_as,
    required_share,
)
from flopsd.core.policy.open_bounds import OpenBounds
from flopsd.core.policy.other_models import (
    NO_FLOP,
    NO_MODEL,
    WITHOUT_GRADIENTS,
    OtherModels,
    is_trained,
    other_models,
    required_without_gradients,
)
from flopsd.core.policy.reconcile import ArchitectureFigures
from flopsd.core.policy.ways import way_for
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.values import added
from flopsd.errors import ArchitectureError

_MODEL_FACTS = (
    "model_config", "parameters_total", "parameters_trainable", "lora", "method", "recomputation", "attention",
    "packing", "window",
)  # fmt: skip
NO_PROCESS = "no training process declared its model and its tokens"
MOST_REASONS = 4
NO_WORK = "a training process declared its model, and no work of it"


@dataclass(frozen=True, slots=True)
class Architecture:
    """FLOP counted from model and tokens; `training_executed` is the training's part of what was executed, with the
    passes without gradients that it required."""

    counted: ArchitectureFigures
    training_executed: OpenBounds
    parameters_total: int
    parameters_active: int
    parameters_trainable: int | None
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declarations:
    """What follows from declarations alone. `absent` says why there is no architecture basis.

    `settings` are the operator's word. What processes declare is in the architecture basis and in the stated share.
    """

    settings: OperatorDeclarations
    required: Required
    architecture: Architecture | None
    absent: str
    framework_flop: int | None
    process: int | None = None  # whose claims they are, where all are one's


@dataclass(frozen=True, slots=True)
class Bases:
    """The bases of one run, and what they rest on."""

    by_phase: Mapping[str, Figures]
    executed: Figures
    guidelines: Guidelines
    integers: Guidelines  # of integer operations, which only some policies count
    declarations: Declarations
    claimed: Claimed | None  # None: no process claims anything of the run's phases and formats


def declarations_of(declared: OperatorDeclarations, sessions: Sequence[DeclaredSession]) -> Declarations:
    """What settings and training processes declare; settings take precedence."""
    trained = [session for session in sessions if is_trained(session)]
    method = declared.method or _agreed(trained, "method", Method)
    recomputation = declared.recomputation or _agreed(trained, "recomputation", Recomputation)
    counted_as = method or _all_weights(trained)
    found, absent = _architecture(sessions, counted_as, recomputation)
    share = required_share(counted_as, recomputation)
    if found is not None:
        share = _share_of(found, share)
    if recomputation is not None and declared.recomputation is None:
        # Who says that nothing was recomputed may have recomputed everything.
        source = f"{share.source}; by the training processes' word, which low leaves out"
        share = replace(share, low_ppm=LEAST_PPM, source=source)
    if recomputes_head(declared, sessions):
        share = replace(share, low_ppm=LEAST_PPM, source=f"{share.source}; but {FUSED}")
    counts = [counters.get("framework_flop", 0) for session in sessions for counters in session.work.values()]
    processes = {session.pid for session in sessions}
    process = processes.pop() if len(processes) == 1 else None
    return Declarations(declared, share, found, absent, max(counts, default=0) or None, process)


FUSED = "a training process counts tokens whose logits a fused loss computed twice"


def recomputes_head(declared: OperatorDeclarations, sessions: Sequence[DeclaredSession]) -> bool:
    """Whether the settings deny all recomputation, and a process counts some: the share is not believed then."""
    counted = any(counters.get("fused_head_tokens") for session in sessions for counters in session.work.values())
    return declared.recomputation is Recomputation.NONE and counted


NO_DECLARATIONS = Declarations(NOTHING_DECLARED, required_share(None, None), None, NO_PROCESS, None)


ByPhase = Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class Phased:
    """The figures of one tally by phase, as different words have it."""

    recorded: ByPhase
    settings: ByPhase  # by the settings alone: these make both ends
    measured: ByPhase  # by the settings, else by the processes
    claimed: ByPhase  # by the processes, else by the settings
    claims: Claims = field(default_factory=dict)


def run_bases(flop: Sequence[Phased], integers: Sequence[Phased], executed: Figures, declared: Declarations) -> Bases:
    """The bases of FLOP and integer operations, of each tally's figures; `executed` is the sum of FLOP."""
    if not flop:  # without a device it is not known what there was
        unknown = {UNDECLARED_PHASE: Figures(0, None, None)}
        flop = integers = [Phased(unknown, unknown, unknown, unknown)]

    def counted(parts: Iterable[ByPhase]) -> Guidelines:
        return guidelines(added_up(parts), declared.required)

    def with_measured(parts: Sequence[Phased]) -> Guidelines:
        ends = counted(one.settings for one in parts)
        is_one = all(one.measured is one.settings for one in parts)
        return ends if is_one else measured_as(ends, counted(one.measured for one in parts))

    ends, operations = with_measured(flop), with_measured(integers)
    claims = added_up(one.claims for one in flop)
    claimed = Claimed(counted(one.claimed for one in flop), claims, declared.process) if claims else None
    return Bases(added_up(one.recorded for one in flop), executed, ends, operations, declared, claimed)


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
    working = [session for session in sessions if session.work and is_trained(session)]
    if not working:
        return None, _without_work(sessions)
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
    found, absent = [], []
    for facts, work in groups.values():
        try:
            found.append(_of_model(facts, work))
        except ArchitectureError as fault:
            absent.append(f"{fault}; {fault.hint}")
        except NO_MODEL as fault:
            absent.append(f"what a process declared of its model is not of the types that flopsd knows: {fault!r:.100}")
    if absent:
        return None, "; ".join(dict.fromkeys(absent[:MOST_REASONS]))
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
    return _with_others(whole, other_models(sessions)), ""


def _with_others(found: Architecture, others: OtherModels) -> Architecture:
    counted = found.counted
    if others.required.high != 0 or WITHOUT_GRADIENTS in found.assumptions:
        others = replace(others, notes=(*others.notes, WITHOUT_GRADIENTS))
    return replace(
        found,
        counted=replace(
            counted, required=counted.required + others.required, executed=counted.executed + others.executed
        ),
        training_executed=found.training_executed + others.required,
        assumptions=tuple(dict.fromkeys((*found.assumptions, *others.notes))),
    )


def _without_work(sessions: Sequence[DeclaredSession]) -> str:
    """Why there is no architecture basis before any work was declared."""
    configs = [session.facts["model_config"] for session in sessions if "model_config" in session.facts]
    refused = dict.fromkeys(filter(None, map(why_not_read, configs)))
    if refused:
        return "; ".join([*refused][:MOST_REASONS])
    return NO_WORK if configs or any("parameters_total" in session.facts for session in sessions) else NO_PROCESS


def _of_model(facts: Mapping[str, Any], work: Mapping[str, Mapping[str, int]]) -> Architecture:
    way = way_for(facts, work)
    passed = {phase for phase, counters in work.items() if way.has_passed(counters)}
    for phase, counters in work.items():
        # Passes without tokens leave the figures of the others open; steps alone, or nothing else, leave none.
        if phase not in passed and (counters.get("steps") or counters.get("forward_passes")):
            if counters.get("forward_passes") and passed:
                continue
            raise ArchitectureError(
                f"no tokens were counted in phase {phase}, in which work was done",
                hint="count the tokens that passed through the model",
            )
    training = training_from(facts)
    train, required, trained_executed = work.get(Phase.TRAIN.value, {}), NO_FLOP, NO_FLOP
    assumptions = way.notes
    if way.has_passed(train):
        trained = way.flop(train, training)
        required, trained_executed = trained.required, trained.executed
        assumptions += trained.assumptions
    executed = trained_executed
    for phase, counters in work.items():
        if phase != Phase.TRAIN.value and way.has_passed(counters):
            passes = way.forward(counters, training)
            executed += passes
            needed = required_without_gradients(phase, passes)
            required += needed
            trained_executed += needed
            assumptions += (WITHOUT_GRADIENTS,) if needed.high else ()
    figures = ArchitectureFigures(
        OpenBounds.of(required), OpenBounds.of(executed), train.get("tokens", 0), frozenset([way.method])
    )
    return Architecture(
        figures,
        OpenBounds.of(trained_executed),
        way.sizes.total,
        way.sizes.active,
        facts.get("parameters_trainable"),
        assumptions,
    )


def _share_of(found: Architecture, known: Required) -> Required:
    """The share by the model's own arithmetic, where its training was counted and its recomputation is known."""
    needed, did = found.counted.required, found.training_executed
    # Open bounds are no share: what was not counted may be any part.
    if known.stated_ppm is None or needed.computed is None or not (did.low and did.computed and did.high):
        return known
    stated = min(PPM, needed.computed * PPM // did.computed)
    # What the terms leave out, such as the optimizer, is executed and not recomputed: no upper end below 1 is certain.
    return replace(known, stated_ppm=stated, source=f"{known.source}; by the model's own terms")
