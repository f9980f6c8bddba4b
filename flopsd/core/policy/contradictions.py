"""What is declared of a run that cannot all be so, by name: a finding, so that nobody has to notice. Pure.

None of it narrows a figure: which of two declarations is wrong is not known. LOSS_RECOMPUTES takes back the low end
that the declaration raised (bases.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase
from flopsd.core.policy.bases import FUSED, recomputes_head
from flopsd.core.policy.conditions import CONTRADICTION, base_bounds
from flopsd.core.policy.declared_work import has_passed, is_trained
from flopsd.core.policy.policy_file import Policy
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.unused_count import UnusedCount
from flopsd.core.values import short_flop

_ALL_WEIGHTS = (Method.PRETRAINING, Method.FULL)


class Contradiction(NamedTuple):
    """A name to look up and to alert on, and what contradicts what."""

    name: str
    summary: str

    def for_ledger(self) -> dict[str, str]:
        return {"name": self.name, "summary": self.summary}


def contradictions(
    settings: OperatorDeclarations,
    sessions: Sequence[DeclaredSession],
    policies: Iterable[Policy],
    unused: Iterable[UnusedCount] = (),
) -> tuple[Contradiction, ...]:
    """Each once, in the order of the declarations."""
    found = [*of_base(settings.base, policies), *_of_settings(settings)]
    if recomputes_head(settings, sessions):
        words = f"the settings declare that nothing is recomputed, and {FUSED}: `selective` is true"
        found.append(Contradiction("LOSS_RECOMPUTES", words))
    for session in filter(is_trained, sessions):
        found += _of_session(settings, session)
    found += (Contradiction(one.reason.value.upper(), one.words) for one in unused)
    return tuple(dict.fromkeys(found))


def of_base(base: Base | None, policies: Iterable[Policy]) -> Iterator[Contradiction]:
    """A base model that the law presumes to carry systemic risk by its compute, and that is not declared so."""
    for policy in policies:
        if base is None or base.systemic or not presumed_systemic(base, policy):
            continue
        assert policy.presumed is not None
        declared = "whether it does is not declared"
        if base.systemic is False:
            declared = f"the settings declare that it does not: {base.reason or 'no reason is given'}"
        yield Contradiction(
            "SYSTEMIC_RISK_IS_PRESUMED",
            f"the base model's compute is above {short_flop(policy.presumed.above_flop)} FLOP, so it is presumed to "
            f"carry systemic risk ({policy.presumed.citation}); {declared}",
        )


def presumed_systemic(base: Base, policy: Policy) -> bool:
    """Whether the policy's law presumes systemic risk of the base model: by its compute at the least."""
    return policy.presumed is not None and base_bounds(base, policy.margin_ppm)[0] > policy.presumed.above_flop


def _of_settings(settings: OperatorDeclarations) -> Iterator[Contradiction]:
    if settings.method is Method.PRETRAINING and settings.base is not None:
        yield Contradiction("PRETRAINING_WITH_A_BASE", CONTRADICTION)
    if settings.phase is Phase.EVALUATE and settings.method is not None:
        words = f"the settings declare evaluation, which trains nothing, and the method {settings.method.value}"
        yield Contradiction("EVALUATION_WITH_A_METHOD", words)


def _of_session(settings: OperatorDeclarations, session: DeclaredSession) -> Iterator[Contradiction]:
    said = session.facts.get("method")
    if said is not None and settings.method is not None and said != settings.method.value:
        words = f"the settings declare {settings.method.value}, a training process {said}"
        yield Contradiction("METHOD_DIFFERS", words)
    loaded = session.facts.get("model_name")
    if settings.base is not None and settings.base.name and loaded and _other_model(settings.base.name, loaded):
        words = f"the settings name the base model {settings.base.name}, a training process loaded {loaded}"
        yield Contradiction("BASE_MODEL_DIFFERS", words)
    if said == Method.PRETRAINING.value and settings.base is not None and settings.method is None:
        yield Contradiction(
            "PRETRAINING_WITH_A_BASE", "a training process declares pretraining, the settings a base model"
        )
    if settings.phase is Phase.EVALUATE and has_passed(session.work.get(Phase.TRAIN.value, {})):
        words = "the settings declare evaluation, and a training process counts tokens or images that it trained on"
        yield Contradiction("EVALUATION_THAT_TRAINS", words)
    method = settings.method or (None if said is None else Method(said))
    total, trainable = (session.facts.get(f"parameters_{which}") for which in ("total", "trainable"))
    if method is None or not total or trainable is None or (trainable == total) == (method in _ALL_WEIGHTS):
        return
    words = f"{method.value} is declared, and a training process trains {trainable} of its {total} parameters"
    yield Contradiction("TRAINABLE_SHARE_DIFFERS", words)


def _other_model(declared: str, loaded: str) -> bool:
    """Whether two names are of different models: by their last part, without regard to case and punctuation.

    A path on the disk names a copy, and does not tell of which model.
    """
    if loaded.startswith(("/", ".", "~")):
        return False
    one, other = (
        "".join(filter(str.isalnum, name.rstrip("/").rpartition("/")[2].lower())) for name in (declared, loaded)
    )
    return one != other
