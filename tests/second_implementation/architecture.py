"""The architecture basis of all sessions, by docs/ledger-models.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.second_implementation.shapes import (
    COMPUTED,
    HIGH,
    MATRICES,
    Llama,
    NoBasis,
    OfSize,
    Three,
    is_plain_llama,
    note,
)

J = dict[str, Any]
Open = tuple[int, int | None, int | None]
OF_MODEL = (
    "model_config", "parameters_total", "parameters_trainable", "lora", "method", "recomputation", "attention",
    "packing", "window",
)  # fmt: skip
NOTHING: Three = (0, 0, 0)
NAMES = ("low", "computed", "high")
NO_GRADIENTS = note("passes_without_gradients")


class Basis(NamedTuple):
    """The method and recomputation that apply; the ledger's basis; the required and executed FLOP of training, if
    all of it was counted; and the summands: each model with its facts and counters."""

    method: str | None
    recomputation: str | None
    architecture: J | None
    absent: list[J]
    share: tuple[Open, Open] | None
    parts: tuple[tuple[J, J, Part], ...] = ()


class Part(NamedTuple):
    required: Open
    executed: Open
    trained: Open
    notes: list[J]


def plus(parts: Iterable[Open]) -> Any:
    def total(values: Iterable[int | None]) -> int | None:
        listed = list(values)
        return None if None in listed else sum(one for one in listed if one is not None)

    return tuple(map(total, zip(*parts, strict=True)))


def once(notes: Iterable[J]) -> list[J]:
    return list({json.dumps(one, sort_keys=True): one for one in notes}.values())


def agreed(sessions: list[J], fact: str) -> str | None:
    declared = {one["facts"].get(fact) for one in sessions if fact in one["facts"] or works(one, ["train"])}
    return declared.pop() if len(declared) == 1 else None


def works(session: J, phases: Iterable[str] | None = None) -> bool:
    """Whether it counted work, beyond its observation of kernels, in these or all phases."""
    work = session["work"]
    return any(not name.startswith("kernel_") for phase in phases or work for name in work.get(phase, {}))


def has_passed(counters: J) -> bool:
    return bool(counters.get("tokens"))


def is_known(sessions: list[J]) -> bool:
    """Whether all models are of kinds that are computed here."""
    working = [one for one in sessions if works(one)]
    if not [one for one in working if "role" not in one["facts"]]:
        return all(is_plain_llama(one["facts"]["model_config"]) for one in sessions if "model_config" in one["facts"])
    return all(map(_is_known, working))


def _is_known(session: J) -> bool:
    facts, lora = session["facts"], session["facts"].get("lora") or {}
    counters = {name for work in session["work"].values() for name in work}
    if any(re.search("weight_|target_|cross_|patch|images", name) for name in counters) or lora.get("modules_to_save"):
        return False
    if set(lora.get("target_modules") or ()) - {*MATRICES, "all-linear"}:
        return False
    return "model_config" not in facts or is_plain_llama(facts["model_config"])


def settings_of(begins: list[J]) -> J:
    """The settings' declarations of a run: those of the last `begin`, but a recomputation only if all of them have
    it, a method only if no other has another one (no pretraining of different base models), and the base model of all that have one."""
    each = [begin.get("declared") or {} for begin in begins]
    alike, methods = len({one.get("recomputation") for one in each}) == 1, {one.get("method") for one in each} - {None}
    bases = bases_of(each)
    is_known = len(methods) == 1 and not (methods == {"pretraining"} and len(bases) > 1)
    return {
        **each[-1],
        "recomputation": each[-1].get("recomputation") if alike else None,
        "method": each[-1].get("method") if is_known else None,
        "base": bases[0] if len(bases) == 1 else None,
    }


def bases_of(each: list[J]) -> list[J]:
    """The base models that these declare, each once."""
    found: list[J] = []
    for one in each:
        if (base := one.get("base")) and base not in found:
            found.append(base)
    return found


def declared(settings: J, sessions: list[J]) -> Basis:
    sessions = sorted(sessions, key=lambda one: int(one["at"]))
    own = [session for session in sessions if "role" not in session["facts"]]
    working = [session for session in own if works(session)]
    method = settings.get("method") or agreed(own, "method")
    recomputation = settings.get("recomputation") or agreed(own, "recomputation")
    sizes = [(s["facts"].get("parameters_total"), s["facts"].get("parameters_trainable")) for s in working]
    alike = all(one["facts"].get("method", "full") in ("full", "pretraining") for one in working)
    whole = bool(sizes) and alike and all(total and total == trained for total, trained in sizes)
    method = method or ("full" if whole else None)
    if not working:
        said = any({"model_config", "parameters_total"} & session["facts"].keys() for session in sessions)
        return Basis(method, recomputation, None, [note("no_work" if said else "no_process")], None)
    groups: dict[str, tuple[J, J]] = {}
    for session in working:
        facts = {name: session["facts"][name] for name in OF_MODEL if name in session["facts"]}
        if (lora := facts.get("lora")) is not None:
            lora = {name: sorted(one) if isinstance(one, list) else one for name, one in lora.items()}
            facts["lora"] = {name: one for name, one in lora.items() if one is not None}
        facts = {"method": "full", **facts} if whole else facts
        facts |= {name: settings[name] for name in ("method", "recomputation") if settings.get(name)}
        _, work = groups.setdefault(json.dumps(facts, sort_keys=True), (facts, {}))
        for phase, counters in session["work"].items():
            for name, value in counters.items():
                work.setdefault(phase, {})[name] = work.get(phase, {}).get(name, 0) + value
    parts, totals, absent = [], [], []
    for facts, work in groups.values():
        try:
            model = _model(facts)
            parts.append(_of_model(model, work))
            totals.append(model.total)
        except NoBasis as refused:
            absent.append(refused.note)
    if absent:
        return Basis(method, recomputation, None, once(absent[:4]), None)
    beside = [part for session in sessions for part in _beside(session)]
    extra = plus([NOTHING, *(one.required for one in beside)])[HIGH]
    everything = [*parts, *beside]
    notes = [one for part in everything for one in part.notes] + ([] if extra == 0 else [NO_GRADIENTS])
    required, executed = plus(one.required for one in everything), plus(one.executed for one in everything)
    trained = plus(one.trained for one in everything)
    alone = next(iter(groups.values()))[0].get("parameters_trainable") if len(groups) == 1 else None
    architecture = {
        **_said(required), "executed": _said(executed), "method": ["shape"], "marginPpm": "300000",
        "tokens": str(sum(work.get("train", {}).get("tokens", 0) for _, work in groups.values())),
        "parameters": {
            "total": str(max(totals)), "active": str(max(totals)), "trainable": None if alone is None else str(alone),
        },
        "assumptions": once(notes),
    }  # fmt: skip
    if any(one is not None and one >= 10**36 for one in (*required, *executed)):
        return Basis(method, recomputation, None, [note("flop_beyond_counts")], None)
    share = None if required[COMPUTED] is None or not all(trained) else (required, trained)
    models = tuple((*of, part) for of, part in zip(groups.values(), parts, strict=True))
    return Basis(method, recomputation, architecture, [], share, models)


def _model(facts: J) -> Llama | OfSize:
    if "model_config" in facts:
        return Llama(facts)
    if "parameters_total" not in facts:
        raise NoBasis("no_model_declared")
    return OfSize(facts)


def _aside(phase: str, passes: Three) -> Three:
    return (0, *passes[1:]) if phase == "other" else NOTHING


def _of_model(model: Llama | OfSize, work: J) -> Part:
    some = any(map(has_passed, work.values()))
    for phase, counters in sorted(work.items()):
        if not has_passed(counters) and (counters.get("steps") or counters.get("forward_passes")):
            if counters.get("forward_passes") and some:
                continue
            raise NoBasis("no_tokens_in_phase", phase=phase)
    required, executed, notes = NOTHING, NOTHING, list[J]()
    if has_passed(work.get("train", {})):
        required, executed, notes = model.train(work["train"])
    trained = executed
    for phase, counters in work.items():
        if phase == "train" or not has_passed(counters):
            continue
        passes = model.forward(counters)
        more = _aside(phase, passes)
        required, trained, executed = plus([required, more]), plus([trained, more]), plus([executed, passes])
        notes = [*notes, NO_GRADIENTS] if more[HIGH] else notes
    return Part(required, executed, trained, notes)


def _left_out(phases: Iterable[str], notes: list[J]) -> Part:
    named = set(phases)

    def open_if(holds: object) -> Open:
        return (0, None, None) if holds else NOTHING

    matters = open_if(named & {"train", "other"})
    return Part(matters, open_if(named), matters, notes)


def _beside(session: J) -> Iterable[Part]:
    facts, work = session["facts"], session["work"]
    stated = facts.get("not_counted", {})
    yield _left_out(stated, [note("not_counted", what=what) for phase in sorted(stated) for what in stated[phase]])
    unseen = [phase for phase, one in work.items() if one.get("forward_passes") and not has_passed(one)]
    if "role" not in facts:
        if unseen:
            yield _left_out(unseen, [note("trained_tokens_not_counted")])
    elif works(session):
        yield _of_other(facts, work, seen=not unseen)


def _of_other(facts: J, work: J, *, seen: bool) -> Part:
    role = facts["role"]

    def refused(code: str, **why: object) -> Part:
        return _left_out(["other"], [note(code, role=role, **why)])

    try:
        model = _model(facts)
    except NoBasis:
        return refused("other_model_not_read")
    if not seen:
        return refused("other_model_tokens_not_counted")
    required, executed = NOTHING, NOTHING
    try:
        for phase, counters in work.items():
            if not has_passed(counters):
                continue
            if phase == "train":
                trained = model.train(counters)
                required, executed = (
                    plus([required, (0, 0, trained.required[HIGH])]),
                    plus([executed, trained.executed]),
                )
            else:
                passes = model.forward(counters)
                required, executed = plus([required, _aside(phase, passes)]), plus([executed, passes])
    except NoBasis as fault:
        why = {name: value for name, value in fault.note.items() if name != "code"}
        return refused("other_model_not_counted", **why, why=fault.note["code"])
    return Part(required, executed, required, [note("executed_has_other_model", role=role)])


def _said(bounds: Open) -> J:
    return {name: None if one is None else str(one) for name, one in zip(NAMES, bounds, strict=True)}
