"""Models that process tokens next to the trained one, declared by training processes in sessions with a role. Pure.

All their compute was executed. The part that training required is in `computed` and `high`, but not in `low`: the
Guidelines (C(2025) 5045, annex A.1) count what directly contributes to parameter updates, and do not mention these
passes. The training of an auxiliary model, such as a value function, need not be counted (annex A.1): only `high`
includes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flopsd.core.architecture import Bounds, bare_model, training_from
from flopsd.core.architecture.by_weights import is_counted
from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Phase
from flopsd.core.kernel_windows import has_work
from flopsd.core.notes import Note, note, note_of, with_reason
from flopsd.core.policy.reconcile import OpenBounds
from flopsd.core.policy.ways import Way, by_shape, way_for
from flopsd.core.session_protocol import DeclaredSession, has_passed
from flopsd.errors import ArchitectureError

# A process may declare anything, but must not be able to stop the metering.
NO_MODEL = (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError)
NO_FLOP = Bounds(0, 0, 0)
WITHOUT_GRADIENTS = note("passes_without_gradients")
_DIAGNOSTIC_OR_DATA = (Phase.EVALUATE.value, Phase.GENERATE.value)  # never required for an update


@dataclass(frozen=True, slots=True)
class OtherModelsFlop:
    """These models' part of what training required and of what all phases executed, with notes about it."""

    required: OpenBounds
    executed: OpenBounds
    notes: tuple[Note, ...] = ()


def other_models(sessions: Sequence[DeclaredSession]) -> OtherModelsFlop:
    """The sum over all sessions with a role, with open ends for work that any session declares as not counted."""
    required, executed, notes = OpenBounds.of(NO_FLOP), OpenBounds.of(NO_FLOP), dict[Note, None]()
    for session in sessions:
        named = session.facts.get("not_counted", {})
        parts = [_open_part({phase: [note("not_counted", what=text) for text in named[phase]] for phase in named})]
        if not session.is_trained:
            parts += [_of_model(session.facts, session.work)] if has_work(session.work) else []
        elif uncounted := [phase for phase, counters in session.work.items() if _uncounted(counters)]:
            parts.append(_open_part({phase: [note("trained_tokens_not_counted")] for phase in uncounted}))
        for part in parts:
            required, executed = required + part.required, executed + part.executed
            notes |= dict.fromkeys(part.notes)
    return OtherModelsFlop(required, executed, tuple(notes))


def required_without_gradients(phase: str, passes: Bounds) -> Bounds:
    """The part of forward passes in `phase` that training required."""
    return NO_FLOP if phase in _DIAGNOSTIC_OR_DATA else Bounds(0, passes.computed, passes.high)


def _uncounted(counters: Mapping[str, int]) -> bool:
    return bool(counters.get("forward_passes")) and not (has_passed(counters) or is_counted(counters))


def _open_part(work: Mapping[str, Sequence[Note]]) -> OtherModelsFlop:
    matters = any(phase not in _DIAGNOSTIC_OR_DATA for phase in work)
    return OtherModelsFlop(
        OpenBounds.of(NO_FLOP, is_open=matters),
        OpenBounds.of(NO_FLOP, is_open=bool(work)),
        tuple(one for phase in sorted(work) for one in work[phase]),
    )


def _of_model(facts: Mapping[str, Any], work: Mapping[str, Mapping[str, int]]) -> OtherModelsFlop:
    role, way = facts["role"], _way(facts, work)
    if way is None or any(
        counters.get("forward_passes") and not way.has_passed(counters) for counters in work.values()
    ):
        code = "other_model_tokens_not_counted" if way is not None else "other_model_not_read"
        return _open_part({Phase.OTHER.value: [note(code, role=role)]})
    try:
        required, executed = _passes(way, facts, work)
    except (ArchitectureError, *NO_MODEL) as fault:
        why = note_of(fault) if isinstance(fault, ArchitectureError) else note("model_of_other_types")
        return _open_part({Phase.OTHER.value: [with_reason("other_model_not_counted", why, role=role)]})
    return OtherModelsFlop(
        OpenBounds.of(required), OpenBounds.of(executed), (note("executed_has_other_model", role=role),)
    )


def _way(facts: Mapping[str, Any], work: Mapping[str, Mapping[str, int]]) -> Way | None:
    """By its configuration, otherwise by the weights that rows passed or its size; None if unreadable."""
    try:
        return way_for(facts, work)
    except (ArchitectureError, *NO_MODEL):
        pass
    try:
        return by_shape(bare_model(facts["parameters_total"]))
    except (ArchitectureError, *NO_MODEL):
        return None


def _passes(way: Way, facts: Mapping[str, Any], work: Mapping[str, Mapping[str, int]]) -> tuple[Bounds, Bounds]:
    training, required, executed = training_from(facts), NO_FLOP, NO_FLOP
    for phase, counters in work.items():
        if not way.has_passed(counters):
            continue
        if phase == Phase.TRAIN.value:
            trained = way.flop(counters, training)
            required += Bounds(0, 0, trained.required.high)
            executed += trained.executed
        else:
            passes = way.forward(counters, training)
            required += required_without_gradients(phase, passes)
            executed += passes
    return required, executed
