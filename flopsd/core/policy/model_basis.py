"""The architecture basis from the models, and the work on them, that training processes declare. Pure.

Imported only when a process declares something, because the architecture arithmetic is a large part of the program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.architecture import training_from, why_not_read
from flopsd.core.declarations import Method, OperatorDeclarations, Phase
from flopsd.core.declared_facts import MODEL_FACTS
from flopsd.core.kernel_windows import has_work
from flopsd.core.notes import Note, note, note_of
from flopsd.core.policy.other_models import (
    NO_FLOP,
    NO_MODEL,
    WITHOUT_GRADIENTS,
    OtherModelsFlop,
    other_models,
    required_without_gradients,
)
from flopsd.core.policy.reconcile import (
    MOST_REASONS,
    NO_PROCESS,
    NO_WORK,
    Architecture,
    ArchitectureFigures,
    OpenBounds,
)
from flopsd.core.policy.ways import way_for
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.values import added
from flopsd.errors import ArchitectureError

# A ledger's counts have 40 digits; the sum over a job's nodes of this many FLOP each still has fewer.
MOST_FLOP = 10**36
_BEYOND_COUNTS = note("flop_beyond_counts")


def architecture_of(
    sessions: Sequence[DeclaredSession], settings: OperatorDeclarations, otherwise: Method | None
) -> tuple[Architecture | None, tuple[Note, ...]]:
    """The basis, or None and the reasons. `otherwise`: the method of sessions where neither they nor the settings
    declare one."""
    working = [session for session in sessions if has_work(session.work) and session.is_trained]
    if not working:
        return None, _without_work(sessions)
    groups: dict[str, tuple[dict[str, Any], dict[str, dict[str, int]]]] = {}
    for session in working:
        facts = {name: session.facts[name] for name in MODEL_FACTS if name in session.facts}
        if method := settings.method or ("method" not in facts and otherwise):
            facts["method"] = method.value
        if settings.recomputation is not None:
            facts["recomputation"] = settings.recomputation.value
        _, work = groups.setdefault(json.dumps(facts, sort_keys=True), (facts, {}))
        for phase, counters in session.work.items():
            work[phase] = added(work.get(phase, {}), counters)
    found, absent = [], []
    for facts, work in groups.values():
        try:
            found.append(_of_model(facts, work))
        except ArchitectureError as fault:
            absent.append(note_of(fault))
        except NO_MODEL:
            absent.append(note("model_of_other_types"))
    if absent:
        return None, tuple(dict.fromkeys(absent[:MOST_REASONS]))
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
    basis = _with_others(whole, other_models(sessions))
    return (None, (_BEYOND_COUNTS,)) if basis.counted.most_flop >= MOST_FLOP else (basis, ())


def _with_others(found: Architecture, others: OtherModelsFlop) -> Architecture:
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


def _without_work(sessions: Sequence[DeclaredSession]) -> tuple[Note, ...]:
    """The reasons for having no architecture basis before any work was declared."""
    configs = [session.facts["model_config"] for session in sessions if "model_config" in session.facts]
    refused = dict.fromkeys(note_of(fault) for fault in map(why_not_read, configs) if fault is not None)
    if refused:
        return tuple(refused)[:MOST_REASONS]
    return (NO_WORK if configs or any("parameters_total" in session.facts for session in sessions) else NO_PROCESS,)


def _of_model(facts: Mapping[str, Any], work: Mapping[str, Mapping[str, int]]) -> Architecture:
    way = way_for(facts, work)
    passed = {phase for phase, counters in work.items() if way.has_passed(counters)}
    for phase, counters in sorted(work.items()):
        # Passes without tokens leave the other phases' figures open. Phases with steps alone, or no others, leave none.
        if phase not in passed and (counters.get("steps") or counters.get("forward_passes")):
            if counters.get("forward_passes") and passed:
                continue
            raise ArchitectureError(
                "no_tokens_in_phase", phase=phase, hint="count the tokens that passed through the model"
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
