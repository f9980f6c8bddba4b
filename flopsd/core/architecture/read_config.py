"""Builds a Model from a config.json, or from numbers of parameters alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.architecture.model import Model, Size
from flopsd.core.architecture.weight_reuse import instead
from flopsd.core.notes import note
from flopsd.errors import ArchitectureError, UnknownFieldsError

_OF_OTHER_TYPES = (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError)


def read_model(config: Mapping[str, Any]) -> Model:
    """The model that a Hugging Face config.json describes. Absent fields have the defaults of transformers' class. A
    mapping with `parameters_total` and no `model_type`, such as declared facts without a configuration, is a model of
    which only that number is known: 6PD with wide bounds.

    Raises ArchitectureError, which names the family or the field and advises what to do. An unknown family is never
    guessed. An unknown field is never ignored, unless its value is null, false or empty: it is then taken to be off,
    and the model's notes name it.
    """
    family = config.get("model_type", config.get("_class_name"))
    if family is not None and not isinstance(family, str):
        raise ArchitectureError("model_type_no_name", value=f"{family!r:.60}", hint="give a model's config.json")
    if family is None and config.get("parameters_total") is not None:
        return bare_model(config["parameters_total"])
    if family is None:
        raise ArchitectureError("no_model_type", hint=instead(family, config))
    from flopsd.core.architecture.families import DIFFUSERS, READERS  # late: a run that declares no model needs none

    reader = READERS.get(family) or DIFFUSERS.get(family)
    if reader is None:
        raise ArchitectureError("family_not_modelled", family=f"{family:.60}", hint=instead(family, config))
    try:
        model = _read(reader, config)
    except _OF_OTHER_TYPES as fault:
        raise ArchitectureError(
            "field_of_other_type", family=family, hint=f"check config.json ({fault!r:.100})"
        ) from fault
    if not config.get("auto_map"):
        return model
    return replace(model, notes=(*model.notes, note("code_of_its_own")))


def why_not_read(config: Mapping[str, Any]) -> ArchitectureError | None:
    """Why `read_model` refuses a configuration; None if it reads it."""
    try:
        read_model(config)
    except ArchitectureError as fault:
        return fault
    return None


def _read(reader: Callable[[Mapping[str, Any]], Model], config: Mapping[str, Any]) -> Model:
    """Read without unknown fields that are null, false or empty, and name these in the notes."""
    off: list[str] = []
    while True:
        try:
            model = reader(config)
        except UnknownFieldsError as fault:
            fewer = _without(config, fault.fields)
            if fewer == config:
                raise
            off += fault.fields
            config = fewer
        else:
            break
    notes = (note("field_taken_as_off", name=f"{name!s:.60}") for name in off)
    return replace(model, notes=(*model.notes, *notes)) if off else model


def _without(config: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """The configuration without these fields, if each is null, false or empty and occurs once; otherwise unchanged."""
    places = (config, *(part for part in config.values() if isinstance(part, Mapping)))
    values = [[place[name] for place in places if name in place] for name in names]
    if any(len(found) != 1 or not _is_off(found[0]) for found in values):
        return config
    return {
        name: {inner: value for inner, value in part.items() if inner not in names}
        if isinstance(part, Mapping)
        else part
        for name, part in config.items()
        if name not in names
    }


def _is_off(value: object) -> bool:
    return value is None or value is False or (isinstance(value, list | tuple | dict) and not value)


def bare_model(
    parameters_total: int,
    *,
    active: int | None = None,
    embedding: int | None = None,
    layers: int | None = None,
    attention_width: int | None = None,
) -> Model:
    """A model of which only the size is known, as defined by `Size`: 6PD, with bounds that allow for the unknown.
    Raises ArchitectureError if the numbers contradict each other."""
    if parameters_total < 1:
        raise ArchitectureError("total_is_zero", hint="count the parameters before they are sharded or packed")
    if active is not None and not 1 <= active <= parameters_total:
        raise ArchitectureError(
            "active_not_of_all", active=active, total=parameters_total, hint="active parameters are a part of all"
        )
    if embedding is not None and (active is None or embedding >= active):
        code, more = ("embedding_alone", {}) if active is None else ("embedding_not_of_active", {"active": active})
        raise ArchitectureError(code, embedding=embedding, **more, hint="they are a part of the active parameters")
    if (layers is None) != (attention_width is None):
        raise ArchitectureError(
            "layers_without_width", hint="give both; the width is the number of heads x the head size"
        )
    return Model("bare", bare=Size(parameters_total, active, embedding, layers, attention_width))
