"""How the FLOP of a declared model are computed: by its shape, otherwise by the weights that rows passed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flopsd.core.architecture import (
    ArchitectureFlop,
    Bounds,
    Model,
    Parameters,
    Training,
    bare_model,
    flop,
    forward_flop,
    parameters,
    read_model,
)
from flopsd.core.architecture.by_weights import is_counted, weights_flop, weights_forward
from flopsd.core.dataclass import dataclass
from flopsd.core.notes import Note, note, note_of, with_reason
from flopsd.core.policy.reconcile import SHAPE, WEIGHTS
from flopsd.core.session_protocol import has_passed
from flopsd.errors import ArchitectureError

Work = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Way:
    """`flop` and `forward` take the counters of one phase; `has_passed` returns whether these suffice for a figure."""

    flop: Callable[[Work, Training], ArchitectureFlop]
    forward: Callable[[Work, Training], Bounds]
    has_passed: Callable[[Work], bool]
    sizes: Parameters
    method: str
    notes: tuple[Note, ...] = ()


def way_for(facts: Mapping[str, Any], work: Mapping[str, Work]) -> Way:
    """The way for a model with these facts and counters by phase. Raises ArchitectureError if there is none."""
    config, total = facts.get("model_config"), facts.get("parameters_total")
    by_weights = any(map(is_counted, work.values()))
    if config is None and total is None:
        raise ArchitectureError("no_model_declared", hint="declare one of them")
    try:
        if config is not None:
            return by_shape(read_model(config))
        if not by_weights:
            return by_shape(bare_model(total or 0))
    except ArchitectureError as fault:
        if not by_weights:
            raise
        return _by_weights(config or {}, total, note_of(fault))
    return _by_weights({}, total, note("no_configuration"))


def by_shape(model: Model) -> Way:
    """Count by every matrix of the model, or by its size."""
    return Way(partial(flop, model), partial(forward_flop, model), has_passed, parameters(model), SHAPE)


def _by_weights(config: Mapping[str, Any], total: int | None, why: Note) -> Way:
    if not total:
        raise ArchitectureError(
            "no_parameters_total", hint="declare parameters_total", why=why.code, **dict(why.parameters)
        )
    return Way(
        partial(weights_flop, config),
        lambda work, _: weights_forward(config, work),
        is_counted,
        Parameters(total, 0, 0, total),
        WEIGHTS,
        (with_reason("not_by_shape", why),),
    )
