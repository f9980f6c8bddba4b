"""Named contradictions between a run's declarations, reported as findings so that nobody has to notice them. Pure.

None of them narrows a figure, because it is not known which declaration is wrong. LOSS_RECOMPUTES removes the higher
low end that the declaration had given (bases.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, bases_of
from flopsd.core.notes import Note, note
from flopsd.core.policy.bases import recomputes_head
from flopsd.core.policy.conditions import PRETRAINING_WITH_BASE, base_bounds
from flopsd.core.policy.policy_file import Policy
from flopsd.core.session_protocol import DeclaredSession, has_passed
from flopsd.core.unused_count import UnusedCount

START_BASE_DIFFERS = "start_base_differs"
_ALL_WEIGHTS = (Method.PRETRAINING, Method.FULL)


class Contradiction(NamedTuple):
    """A name for look-ups and alerts, and a note of what contradicts what."""

    name: str
    note: Note

    def for_ledger(self) -> dict[str, Any]:
        return {"name": self.name, **self.note.for_ledger()}


def contradictions(
    starts: Sequence[OperatorDeclarations],
    sessions: Sequence[DeclaredSession],
    policies: Sequence[Policy],
    unused: Iterable[UnusedCount] = (),
) -> tuple[Contradiction, ...]:
    """Each contradiction once, in order of the declarations. `starts`: the settings of each daemon start. Those of the
    last are compared with what processes declare."""
    settings = starts[-1]
    found = [*of_bases(bases_of(starts), policies), *_of_starts(starts), *_of_settings(settings)]
    if recomputes_head(settings, sessions):
        found.append(Contradiction("LOSS_RECOMPUTES", Note("fused_head")))
    for session in (one for one in sessions if one.is_trained):
        found += _of_session(settings, session)
    order = {session.id: at for at, session in enumerate(sessions)}
    found += (
        Contradiction(one.reason.value.upper(), one.note) for one in sorted(unused, key=lambda one: order[one.session])
    )
    return tuple(dict.fromkeys(found))


def of_bases(bases: Iterable[Base], policies: Sequence[Policy]) -> Iterator[Contradiction]:
    """Base models that the law presumes to carry systemic risk by their compute, but that are not declared so."""
    for base, policy in product(bases, policies):
        if base.systemic or not presumed_systemic(base, policy):
            continue
        assert policy.presumed is not None
        presumed = {"flop": str(policy.presumed.above_flop), "citation": policy.presumed.citation}
        if base.systemic is None:
            why = note("systemic_presumed", **presumed)
        elif base.reason:
            why = note("systemic_presumed_and_denied", **presumed, reason=base.reason)
        else:
            why = note("systemic_presumed_and_denied_without_reason", **presumed)
        yield Contradiction("SYSTEMIC_RISK_IS_PRESUMED", why)


def presumed_systemic(base: Base, policy: Policy) -> bool:
    """Whether the policy's law presumes systemic risk of the base model, even by the lower bound of its compute."""
    return policy.presumed is not None and base_bounds(base, policy.margin_ppm)[0] > policy.presumed.above_flop


def _of_starts(starts: Sequence[OperatorDeclarations]) -> Iterator[Contradiction]:
    last = starts[-1].method
    for one in starts:
        if one.method is not None and last is not None and one.method is not last:
            yield Contradiction(
                "METHOD_DIFFERS", note("start_method_differs", earlier=one.method.value, last=last.value)
            )
    if len(bases_of(starts)) > 1:
        yield Contradiction("BASE_MODEL_DIFFERS", Note(START_BASE_DIFFERS))


def _of_settings(settings: OperatorDeclarations) -> Iterator[Contradiction]:
    if settings.method is Method.PRETRAINING and settings.base is not None:
        yield Contradiction("PRETRAINING_WITH_A_BASE", Note(PRETRAINING_WITH_BASE))
    if settings.phase is Phase.EVALUATE and settings.method is not None:
        yield Contradiction("EVALUATION_WITH_A_METHOD", note("evaluation_with_method", method=settings.method.value))


def _of_session(settings: OperatorDeclarations, session: DeclaredSession) -> Iterator[Contradiction]:
    said = session.facts.get("method")
    if said is not None and settings.method is not None and said != settings.method.value:
        differs = note("process_method_differs", settings=settings.method.value, process=said)
        yield Contradiction("METHOD_DIFFERS", differs)
    loaded = session.facts.get("model_name")
    if settings.base is not None and settings.base.name and loaded and _other_model(settings.base.name, loaded):
        yield Contradiction(
            "BASE_MODEL_DIFFERS", note("process_model_differs", settings=settings.base.name, process=loaded)
        )
    if said == Method.PRETRAINING.value and settings.base is not None and settings.method is None:
        yield Contradiction("PRETRAINING_WITH_A_BASE", Note("process_pretraining_with_base"))
    if settings.phase is Phase.EVALUATE and has_passed(session.work.get(Phase.TRAIN.value, {})):
        yield Contradiction("EVALUATION_THAT_TRAINS", Note("evaluation_that_trains"))
    method = settings.method or (None if said is None else Method(said))
    total, trainable = (session.facts.get(f"parameters_{which}") for which in ("total", "trainable"))
    if method is None or not total or trainable is None or (trainable == total) == (method in _ALL_WEIGHTS):
        return
    share = note("trainable_share_differs", method=method.value, trainable=str(trainable), total=str(total))
    yield Contradiction("TRAINABLE_SHARE_DIFFERS", share)


def _other_model(declared: str, loaded: str) -> bool:
    """Whether two names belong to different models: compares their last parts, ignoring case and punctuation. A path on
    disk names a copy and does not say which model it is."""
    if loaded.startswith(("/", ".", "~")):
        return False
    one, other = (
        "".join(filter(str.isalnum, name.rstrip("/").rpartition("/")[2].lower())) for name in (declared, loaded)
    )
    return one != other
