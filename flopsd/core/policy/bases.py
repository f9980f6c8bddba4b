"""The bases of a run: executed, counted by the Guidelines, and required for the model and its tokens. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import NOTHING_DECLARED, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.figures import Figures, sum_by_key
from flopsd.core.kernel_windows import has_work
from flopsd.core.model import PPM, UNDECLARED_PHASE
from flopsd.core.notes import Note
from flopsd.core.operator_count import NOT_COUNTED, OPERATOR_FLOP, RECOMPUTED
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
from flopsd.core.policy.reconcile import NO_PROCESS, Architecture
from flopsd.core.session_protocol import DeclaredSession


class Declarations(NamedTuple):
    """What follows from declarations alone. `settings` are the operator's declarations; those of processes enter the
    architecture basis and the stated share. `absent` says why there is no architecture basis."""

    settings: OperatorDeclarations
    required: Required
    architecture: Architecture | None
    absent: tuple[Note, ...]
    framework_flop: int | None
    process: int | None = None  # pid of the process, if all claims are of one


class Bases(NamedTuple):
    """The bases of one run and their inputs."""

    by_phase: Mapping[str, Figures]
    executed: Figures
    guidelines: Guidelines
    integers: Guidelines  # integer operations, which only some policies count
    declarations: Declarations
    claimed: Claimed | None  # None: no process claims a phase or format of the run


def declarations_of(declared: OperatorDeclarations, sessions: Sequence[DeclaredSession]) -> Declarations:
    """Combine the declarations of settings and training processes; settings take precedence."""
    trained = [session for session in sessions if session.is_trained]
    method = declared.method or _agreed(trained, "method", Method)
    recomputation = declared.recomputation or _agreed(trained, "recomputation", Recomputation)
    all_weights = _all_weights(trained)
    counted_as = method or all_weights
    found: Architecture | None = None
    absent: tuple[Note, ...] = (NO_PROCESS,)
    if sessions:
        from flopsd.core.policy.model_basis import architecture_of  # 0.7 MB that other runs need not load

        found, absent = architecture_of(sessions, declared, all_weights)
    share = required_share(counted_as, recomputation)
    if found is not None:
        share = _share_of(found, share)
    if declared.recomputation in (None, Recomputation.SELECTIVE):
        share = _counted_share(sessions, share)
    if recomputation is not None and declared.recomputation is None:
        # A process that declares no recomputation may have recomputed everything.
        share = replace(share, low_ppm=LEAST_PPM, source=(*share.source, "processes_word"))
    if recomputes_head(declared, sessions):
        share = replace(share, low_ppm=LEAST_PPM, source=(*share.source, "fused_head"))
    counts = [counters.get("framework_flop", 0) for session in sessions for counters in session.work.values()]
    processes = {session.pid for session in sessions}
    process = processes.pop() if len(processes) == 1 else None
    return Declarations(declared, share, found, absent, max(counts, default=0) or None, process)


def _counted_share(sessions: Sequence[DeclaredSession], known: Required) -> Required:
    """The share from the operators that were computed again, if processes counted all operators of their training."""
    train = Phase.TRAIN.value
    counting = [one.work.get(train, {}) for one in sessions if one.refused is None]
    whole, again = (sum(work.get(name, 0) for work in counting) for name in (OPERATOR_FLOP, RECOMPUTED))
    if not whole or again > whole or any(train in one.facts.get(name, ()) for one in sessions for name in NOT_COUNTED):
        return known
    stated = max(LEAST_PPM, (whole - again) * PPM // whole)  # otherwise "measured" would be below "at least"
    return replace(known, stated_ppm=stated, source=(*known.source, "operators_again"))


def recomputes_head(declared: OperatorDeclarations, sessions: Sequence[DeclaredSession]) -> bool:
    """Whether the settings deny all recomputation while a process counts some: then the share is not trusted."""
    counted = any(counters.get("fused_head_tokens") for session in sessions for counters in session.work.values())
    return declared.recomputation is Recomputation.NONE and counted


NO_DECLARATIONS = Declarations(NOTHING_DECLARED, required_share(None, None), None, (NO_PROCESS,), None)


ByPhase = Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class Phased:
    """The figures of one tally by phase, according to whose declarations are used."""

    recorded: ByPhase
    settings: ByPhase  # by the settings alone; low and high come from these
    measured: ByPhase  # by the settings, otherwise by the processes
    claimed: ByPhase  # by the processes, otherwise by the settings
    claims: Claims = field(default_factory=dict)


def run_bases(
    flop: Sequence[Phased],
    integers: Sequence[Phased],
    executed: Figures,
    declared: Declarations,
    operators: Sequence[Phased] = (),
) -> Bases:
    """The bases in FLOP and integer operations from the figures of each tally. `executed` is the sum of FLOP;
    `operators` is what training processes' operator counts add, by device."""
    if not flop:  # without a device it is not known what ran
        unknown = {UNDECLARED_PHASE: Figures(0, None, None)}
        flop = integers = [Phased(unknown, unknown, unknown, unknown)]

    def counted(parts: Iterable[ByPhase]) -> Guidelines:
        return guidelines(sum_by_key(parts), declared.required)

    def with_measured(by_settings: ByPhase, parts: Sequence[Phased]) -> Guidelines:
        ends = guidelines(by_settings, declared.required)
        is_one = all(one.measured is one.settings for one in parts)
        return ends if is_one else measured_as(ends, counted([one.measured for one in parts]))

    operations, read = with_measured(sum_by_key([one.settings for one in integers]), integers), flop
    flop = [*read, *operators]
    settings = sum_by_key([one.settings for one in flop])
    is_recorded = all(one.settings is one.recorded for one in flop)
    ends = with_measured(settings, flop)
    if operators:
        alone = counted(one.settings for one in read)
        both = ((ends.updates, alone.updates), (ends.cumulative, alone.cumulative))
        updates, cumulative = (whole.low_flop - part.low_flop for whole, part in both)
        ends = replace(ends, by_operators=(updates, cumulative))
    claims = sum_by_key([one.claims for one in flop if one.claims])
    claimed = Claimed(counted(one.claimed for one in flop), claims, declared.process) if claims else None
    by_phase = settings if is_recorded else sum_by_key(one.recorded for one in flop)
    return Bases(by_phase, executed, ends, operations, declared, claimed)


def _agreed(sessions: Sequence[DeclaredSession], fact: str, kind: Any) -> Any:
    """The value of a fact on which all processes that declare it agree; None where they differ, where none declares it,
    or where one that counts training work does not."""
    train = Phase.TRAIN.value
    trained = (one for one in sessions if fact in one.facts or has_work({train: one.work.get(train, {})}))
    declared = {one.facts.get(fact) for one in trained}
    value = declared.pop() if len(declared) == 1 else None
    return None if value is None else kind(value)


def _all_weights(sessions: Sequence[DeclaredSession]) -> Method | None:
    """`Method.FULL` if every process trains all weights; pretraining and fine-tuning then cost the same."""
    found = [session.facts for session in sessions if has_work(session.work)]
    alike = all(facts.get("method", Method.FULL) in (Method.FULL, Method.PRETRAINING) for facts in found)
    sizes = [(facts.get("parameters_total"), facts.get("parameters_trainable")) for facts in found]
    return Method.FULL if sizes and alike and all(total and total == trained for total, trained in sizes) else None


def _share_of(found: Architecture, known: Required) -> Required:
    """The share by the model's own arithmetic, if its training was counted and its recomputation is known."""
    needed, did = found.counted.required, found.training_executed
    # Open bounds give no share: the uncounted work may be any part.
    if known.stated_ppm is None or needed.computed is None or not (did.low and did.computed and did.high):
        return known
    stated = min(PPM, needed.computed * PPM // did.computed)
    # Work that the terms leave out, such as the optimizer's, is not recomputed: no upper bound below 1 is certain.
    return replace(known, stated_ppm=stated, source=(*known.source, "model_terms"))
